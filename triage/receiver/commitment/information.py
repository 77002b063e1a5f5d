"""Action and Event Information of storage commitment, read and written (PS3.4 J.3.2, J.3.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from pydicom.dataset import Dataset

from triage.core.commitment import FailureReason, Reference
from triage.receiver.headers import is_valid_uid

REQUEST_STORAGE_COMMITMENT = 1
"""Action Type ID of a request (DICOM PS3.4 J.3.2)."""


class EventType(IntEnum):
    """Event Type ID of a report (DICOM PS3.4 J.3.3)."""

    SUCCESSFUL = 1
    FAILURES_EXIST = 2


class InformationError(Exception):
    """Action or Event Information is not what the service asks for; says what is wrong."""


@dataclass(frozen=True, slots=True)
class CommitmentRequest:
    """What an N-ACTION asks to commit to."""

    transaction_uid: str
    references: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """What an N-EVENT-REPORT says: who is responsible for what, and for what nobody is."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: Mapping[Reference, int]


def decoded(decode: Callable[[], Dataset]) -> Dataset:
    """Return what `decode` gives.

    Raises:
        InformationError: it cannot be decoded.
    """
    try:
        return decode()
    except Exception as error:  # whatever hostile bytes make the parser raise
        raise InformationError(f"it cannot be decoded: {type(error).__name__}") from error


def parse_request(information: Dataset) -> CommitmentRequest:
    """Return the request of an N-ACTION.

    Raises:
        InformationError: Transaction UID or Referenced SOP Sequence are missing or invalid.
    """
    transaction_uid = _transaction_uid(information)
    references = tuple(_references(information, "ReferencedSOPSequence"))
    if not references:
        raise InformationError("Referenced SOP Sequence is missing or empty")
    return CommitmentRequest(transaction_uid, tuple(dict.fromkeys(references)))


def parse_report(information: Dataset) -> CommitmentReport:
    """Return the report of an N-EVENT-REPORT.

    Raises:
        InformationError: the Transaction UID or a reference is missing or invalid.
    """
    failed = {
        reference: int(item.get("FailureReason") or FailureReason.PROCESSING_FAILURE)
        for item, reference in zip(
            information.get("FailedSOPSequence") or (),
            _references(information, "FailedSOPSequence"),
            strict=True,
        )
    }
    committed = tuple(_references(information, "ReferencedSOPSequence"))
    return CommitmentReport(_transaction_uid(information), committed, failed)


def _transaction_uid(information: Dataset) -> str:
    uid = str(information.get("TransactionUID") or "")
    if not is_valid_uid(uid):
        raise InformationError("Transaction UID is missing or not a valid UID")
    return uid


def _references(information: Dataset, keyword: str) -> Iterable[Reference]:
    for item in information.get(keyword) or ():
        sop_class_uid = str(item.get("ReferencedSOPClassUID") or "")
        sop_instance_uid = str(item.get("ReferencedSOPInstanceUID") or "")
        if not (is_valid_uid(sop_class_uid) and is_valid_uid(sop_instance_uid)):
            raise InformationError(f"a reference in {keyword} is no pair of valid UIDs")
        yield Reference(sop_class_uid, sop_instance_uid)


def request_information(transaction_uid: str, references: Sequence[Reference]) -> Dataset:
    """Return the Action Information that asks to commit to `references`."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [_item(one) for one in references]
    return information


def report_information(
    transaction_uid: str,
    references: Sequence[Reference],
    failure_of: Callable[[Reference], FailureReason | None],
    *,
    ae_title: str,
) -> tuple[EventType, Dataset]:
    """Return event type and Event Information of the report on `references`."""
    reasons = [(reference, failure_of(reference)) for reference in references]
    committed = [_item(reference) for reference, reason in reasons if reason is None]
    failed = []
    for reference, reason in reasons:
        if reason is not None:
            failed.append(_item(reference))
            failed[-1].FailureReason = int(reason)
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.RetrieveAETitle = ae_title
    # Each sequence is there only with items (DICOM PS3.4 table J.3-2).
    if committed:
        information.ReferencedSOPSequence = committed
    if failed:
        information.FailedSOPSequence = failed
    return (EventType.FAILURES_EXIST if failed else EventType.SUCCESSFUL), information


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item
