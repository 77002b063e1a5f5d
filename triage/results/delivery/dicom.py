"""Result objects on their way to an archive: C-STORE as an SCU (DICOM PS3.4 annex B)."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from triage.associations import AssociationError, associate
from triage.results.errors import DeliveryError
from triage.settings import DicomDestination
from triage.store.files import InstanceFiles
from triage.store.outbox import DueDelivery

_DUPLICATE_SOP_INSTANCE = 0x0111
_PERMANENT_STATUSES = {
    0x0117: "the object's UID is invalid to it",
    0x0122: "it does not support the SOP class",
    0x0212: "it cannot read the message",
}
_PASSING_STATUSES = {
    0x0110: "processing failed",
    0x0124: "this AE title is not authorised",
    0x0210: "duplicate message",
    0x0211: "it does not know C-STORE",
}


def store(
    due: DueDelivery,
    destination: DicomDestination,
    files: InstanceFiles,
    *,
    calling_ae_title: str,
) -> None:
    """Send one object to `destination` and return once it was taken.

    Exactly one presentation context is proposed: the object's SOP class in the transfer syntax of
    its file, so nothing is transcoded. A warning status (0xB000, 0xB006, 0xB007) means that the
    object is stored (DICOM PS3.4 B.2.3), and a duplicate that it was stored before, with the
    answer lost.

    Raises:
        DeliveryError: the destination did not take it; the message says why. A refused
            association is never permanent: it says something about two configurations, not about
            the object, and a person may mend either at any time.
    """
    if not due.path:
        raise DeliveryError("its file was purged by retention", is_permanent=True)
    dataset = _read(files.absolute(due.path))
    transfer_syntax = UID(str(dataset.file_meta.TransferSyntaxUID))
    contexts = [build_context(due.sop_class_uid, transfer_syntax)]
    try:
        with associate(destination, contexts, calling_ae_title=calling_ae_title) as association:
            answer = _store(association, dataset, destination)
    except AssociationError as error:
        if error.no_context:
            raise DeliveryError(
                f"{destination.name} does not accept {UID(due.sop_class_uid).name} as "
                f"{transfer_syntax.name}",
                is_permanent=True,
            ) from error
        raise DeliveryError(str(error), is_permanent=False) from error
    _check_status(answer, destination)


def _store(association: Association, dataset: Dataset, destination: DicomDestination) -> Dataset:
    try:
        return association.send_c_store(dataset)
    except ValueError as error:
        raise DeliveryError(
            f"{destination.name}: the object cannot be encoded: {error}", is_permanent=True
        ) from error
    except RuntimeError as error:
        raise DeliveryError(
            f"{destination.name}: the association ended before the object was sent",
            is_permanent=False,
        ) from error


def _read(path: Path) -> Dataset:
    try:
        return dcmread(path)
    except FileNotFoundError as error:
        raise DeliveryError("its file is no longer in the store", is_permanent=True) from error
    except OSError as error:
        raise DeliveryError(f"its file cannot be read: {error}", is_permanent=False) from error


def _check_status(answer: Dataset, destination: DicomDestination) -> None:
    """Raise unless `answer` says that the object is stored (DICOM PS3.4 table B.2-1)."""
    if "Status" not in answer:
        raise DeliveryError(
            f"{destination.name} did not answer C-STORE within {destination.timeout_s:g} s, or "
            "broke off",
            is_permanent=False,
        )
    status = int(answer.Status)
    if status == 0x0000 or status & 0xF000 == 0xB000 or status == _DUPLICATE_SOP_INSTANCE:
        return
    words, is_permanent = _in_words(status)
    comment = str(answer.get("ErrorComment") or "").strip()
    said = f", saying {comment!r}" if comment else ""
    raise DeliveryError(
        f"{destination.name} answered 0x{status:04X}: {words}{said}", is_permanent=is_permanent
    )


def _in_words(status: int) -> tuple[str, bool]:
    if status in _PERMANENT_STATUSES:
        return _PERMANENT_STATUSES[status], True
    if status & 0xFF00 == 0xA700:
        return "it is out of resources", False
    if status & 0xFF00 == 0xA900:
        return "the object does not match its SOP class, it says", True
    if status & 0xF000 == 0xC000:
        return "it cannot understand the object", True
    return _PASSING_STATUSES.get(status, "failure"), False
