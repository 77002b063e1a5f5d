"""Result objects on their way into a folder, each whole or not at all."""

from __future__ import annotations

import errno
import filecmp
import hashlib
import os
import shutil
import unicodedata
import uuid
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from triage.results.errors import DeliveryError
from triage.settings import FolderDestination
from triage.store.files import InstanceFiles
from triage.store.outbox import DueDelivery
from triage.store.syncing import sync

_KEYWORDS = {
    "patient_id": "PatientID",
    "accession_number": "AccessionNumber",
    "study_date": "StudyDate",
    "modality": "Modality",
    "study_instance_uid": "StudyInstanceUID",
    "series_instance_uid": "SeriesInstanceUID",
    "sop_instance_uid": "SOPInstanceUID",
}
_LONGEST_VALUE = 64
_NO_VALUE = "none"
_ENDING = ".part"


def store(due: DueDelivery, destination: FolderDestination, files: InstanceFiles) -> None:
    """Write one object into the folder and return once it is durable there.

    It is written under a name that begins with a dot and ends in `.part`, synced, and renamed: who
    watches the folder never sees half of it. What is there already with the same content is left
    alone, so that sending twice changes nothing.

    Raises:
        DeliveryError: it could not be written; the message says why. That is permanent only where
            the object has no file any more: whatever is wrong with a folder may be mended.
    """
    if not due.path:
        raise DeliveryError("its file was purged by retention", is_permanent=True)
    source = files.absolute(due.path)
    if not source.is_file():
        raise DeliveryError("its file is no longer in the store", is_permanent=True)
    root = _root(destination)
    target = root / path_in(destination, source, role=due.role)
    if not target.parent.resolve().is_relative_to(root.resolve()):
        raise DeliveryError(
            f"{destination.name}: {target.parent} leads out of the folder; remove the link",
            is_permanent=False,
        )
    try:
        _write(source, target, root, due.attempt)
    except OSError as error:
        raise DeliveryError(
            f"{destination.name}: {target.parent} cannot be written: {error.strerror or error}",
            is_permanent=False,
        ) from error


def reach(destination: FolderDestination) -> str:
    """Write a file into the folder and remove it again.

    Raises:
        DeliveryError: it is not there, or cannot be written.
    """
    root = _root(destination)
    probe = root / f".{uuid.uuid4().hex}{_ENDING}"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise DeliveryError(
            f"{destination.name}: {root} cannot be written: {error.strerror or error}",
            is_permanent=False,
        ) from error
    return f"{root} can be written"


def path_in(destination: FolderDestination, source: Path, *, role: str) -> Path:
    """Return where the object in the file `source` goes, below the folder.

    Raises:
        DeliveryError: the file is damaged, or cannot be read.
    """
    try:
        header = dcmread(source, stop_before_pixels=True, specific_tags=list(_KEYWORDS.values()))
    except InvalidDicomError as error:
        raise DeliveryError("its file in the store is damaged", is_permanent=True) from error
    except OSError as error:
        raise DeliveryError(f"its file cannot be read: {error}", is_permanent=False) from error
    values = {name: as_name(str(header.get(word) or "")) for name, word in _KEYWORDS.items()}
    return Path(destination.template.format(**values, role=as_name(role)))


def as_name(value: str) -> str:
    """Return `value` as a part of a name on any file system.

    >>> [as_name(value) for value in ("A/../B", "..", ".x", "", "1.2.840", "Größe 7")]
    ['A_.._B', 'none', 'x', 'none', '1.2.840', 'Größe_7']
    """
    composed = unicodedata.normalize("NFC", value)
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in composed)
    return safe[:_LONGEST_VALUE].strip(".") or _NO_VALUE


def unfinished_at(target: Path, attempt: int) -> Path:
    """Return where an attempt to write `target` keeps what is not whole yet.

    Not by the target's own name, which may be as long as the file system allows.
    """
    stem = hashlib.sha256(target.name.encode()).hexdigest()[:16]
    return target.with_name(f".{stem}-{attempt}{_ENDING}")


def _root(destination: FolderDestination) -> Path:
    root = destination.path.absolute()
    if not root.is_dir():
        # Not made: where a network share is not mounted, its mount point would fill.
        raise DeliveryError(
            f"{destination.name}: the folder {root} is not there; make it, or mount the share",
            is_permanent=False,
        )
    return root


def _write(source: Path, target: Path, root: Path, attempt: int) -> None:
    if target.is_file() and filecmp.cmp(source, target, shallow=False):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_at(target, attempt)
    try:
        with source.open("rb") as content, unfinished.open("wb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    finally:
        # With what an earlier attempt left whose worker was killed.
        for left in range(1, attempt + 1):
            unfinished_at(target, left).unlink(missing_ok=True)
    for folder in (target.parent, *target.parent.parents):
        _sync_names(folder)
        if folder == root:
            return


def _sync_names(folder: Path) -> None:
    try:
        sync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise
        # Network shares know no sync of a folder: they keep its names by themselves.
