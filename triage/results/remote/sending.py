"""Images on their way to a remote model, by C-STORE or STOW-RS and without identity."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pynetdicom.presentation import build_context

from triage.associations import AssociationError, associate
from triage.core.backoff import pause_s
from triage.decoding.errors import DecodingError
from triage.decoding.files import check_file
from triage.deidentification.profile import Method, deidentify
from triage.deidentification.pseudonyms import DeidentificationError, Pseudonyms, site_key
from triage.results.delivery.stow import store_file
from triage.results.errors import DeliveryError
from triage.settings import RemoteModelSettings, Settings, StowDestination
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.remote_models import (
    DueImages,
    ask_about_new_studies,
    claim_images,
    mark_not_sent,
    mark_sent,
    note_unanswered,
)

_LEASE = timedelta(minutes=30)


def pseudonyms_of(model: RemoteModelSettings, settings: Settings) -> Pseudonyms:
    """Return the pseudonyms that `model` knows.

    Raises:
        DeidentificationError: the site's secret cannot be read.
    """
    return Pseudonyms(site_key(settings.data_directory), f"remote model {model.name}")


def send_next(
    database: Database,
    settings: Settings,
    files: InstanceFiles,
    clock: Clock,
    model: RemoteModelSettings,
) -> bool:
    """Route new studies, send the images of the most urgent one; return whether there was one."""
    pseudonyms = pseudonyms_of(model, settings)
    with database.transaction() as session:
        ask_about_new_studies(session, model, pseudonym=pseudonyms.uid, now=clock())
        note_unanswered(session, now=clock())
        due = claim_images(session, model, lease=_LEASE, now=clock())
    if due is None:
        return False
    try:
        _send(due, model, settings, files, Method(pseudonyms, frozenset(model.retain)))
    except DeliveryError as error:
        is_last = error.is_permanent or due.attempt >= model.maximum_attempts
        pause = pause_s(
            due.attempt,
            first_s=settings.results.first_retry_s,
            longest_s=settings.results.longest_retry_s,
        )
        pause *= random.uniform(0.5, 1.0)  # noqa: S311 - so that not all come again together
        retry_at = None if is_last else clock() + timedelta(seconds=pause)
        with database.transaction() as session:
            mark_not_sent(session, due, str(error), retry_at=retry_at, now=clock())
        return True
    with database.transaction() as session:
        mark_sent(session, due, model, now=clock())
    return True


def _send(
    due: DueImages,
    model: RemoteModelSettings,
    settings: Settings,
    files: InstanceFiles,
    method: Method,
) -> None:
    if not due.paths:
        raise DeliveryError("its images were purged by retention", is_permanent=True)
    paths = [files.absolute(path) for path in due.paths]
    if model.stow_destination is not None:
        _send_by_stow(paths, model.stow_destination, method)
        return
    remote = settings.remote(model.remote)
    proposed = [build_context(*context) for context in sorted(due.contexts)]
    try:
        with associate(
            remote, proposed, calling_ae_title=settings.receiver.ae_title
        ) as association:
            for path in paths:
                answer = association.send_c_store(_without_identity(path, method))
                _check(answer, remote.name)
    except AssociationError as error:
        raise DeliveryError(str(error), is_permanent=error.no_context) from error
    except (ValueError, RuntimeError) as error:
        raise DeliveryError(
            f"{remote.name}: the association ended before all images were sent: {error}",
            is_permanent=False,
        ) from error


def _send_by_stow(paths: Sequence[Path], there: StowDestination, method: Method) -> None:
    with tempfile.TemporaryDirectory(prefix="triage-leaving-") as folder:
        copy = Path(folder) / "image.dcm"
        for path in paths:
            _without_identity(path, method).save_as(copy, enforce_file_format=True)
            store_file(copy, there)


def _without_identity(path: Path, method: Method) -> Dataset:
    dataset = _read(path)
    try:
        deidentify(dataset, method)
    except DeidentificationError as error:
        raise DeliveryError(str(error), is_permanent=True) from error
    return dataset


def _read(path: Path) -> Dataset:
    try:
        check_file(path)
        return dcmread(path)
    except FileNotFoundError as error:
        raise DeliveryError("an image is no longer in the store", is_permanent=True) from error
    except (OSError, InvalidDicomError, DecodingError) as error:
        raise DeliveryError(f"an image cannot be read: {error}", is_permanent=True) from error


def _check(answer: Dataset, remote: str) -> None:
    """Raise unless `answer` says that the image is stored (DICOM PS3.4 table B.2-1)."""
    if "Status" not in answer:
        raise DeliveryError(f"{remote} did not answer C-STORE in time", is_permanent=False)
    status = int(answer.Status)
    if status != 0x0000 and status & 0xF000 != 0xB000 and status != 0x0111:
        raise DeliveryError(f"{remote} answered 0x{status:04X} to C-STORE", is_permanent=False)
