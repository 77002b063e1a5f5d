"""What the services that announce images have in common: data sets read, and statuses answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.dimse_primitives import N_CREATE
from pynetdicom.events import Event
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from triage.receiver.headers import is_valid_uid
from triage.receiver.statuses import NormalizedStatus, error_comment
from triage.store.signals import (
    DuplicateSignalError,
    FinalStepError,
    Reference,
    UnknownSignalError,
)

log = structlog.get_logger(__name__)

Answer = tuple[Dataset, Dataset | None]


class RefusedRequestError(Exception):
    """The request is not carried out: `status` and `comment` are what its sender is told.

    Attributes:
        error_id: Error ID (0000,0903), where the standard has one.
    """

    def __init__(self, status: NormalizedStatus, comment: str, error_id: int | None = None) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = error_comment(comment)
        self.error_id = error_id


def answered(carry_out: Callable[[Event], str], event: Event) -> Answer:
    """Return the response to an N-CREATE or N-SET request (DICOM PS3.7 10.1.3.1, 10.1.5.1).

    `carry_out` returns the SOP Instance UID once what the request says is durable.
    """
    try:
        uid = carry_out(event)
    except RefusedRequestError as refusal:
        return _refused(event, refusal)
    except DuplicateSignalError:
        return _refused(
            event,
            RefusedRequestError(NormalizedStatus.DUPLICATE_SOP_INSTANCE, "it is there already"),
        )
    except IntegrityError:  # another association has just created it
        return _refused(
            event,
            RefusedRequestError(NormalizedStatus.DUPLICATE_SOP_INSTANCE, "it is there already"),
        )
    except UnknownSignalError:
        return _refused(
            event,
            RefusedRequestError(NormalizedStatus.NO_SUCH_SOP_INSTANCE, "it was never created"),
        )
    except FinalStepError:
        comment = "Performed Procedure Step Object may no longer be updated"
        return _refused(
            event, RefusedRequestError(NormalizedStatus.PROCESSING_FAILURE, comment, 0xA710)
        )
    except SQLAlchemyError as error:
        log.warning("announcement not kept", error=type(error).__name__)
        comment = "the index cannot be written now, send again"
        return _refused(event, RefusedRequestError(NormalizedStatus.RESOURCE_LIMITATION, comment))
    status = Dataset()
    status.Status = int(NormalizedStatus.SUCCESS)
    given = Dataset()
    if isinstance(event.request, N_CREATE) and event.request.AffectedSOPInstanceUID is None:
        given.AffectedSOPInstanceUID = uid  # pynetdicom moves it into the command
    return status, given


def _refused(event: Event, refusal: RefusedRequestError) -> Answer:
    log.warning(
        "announcement refused",
        calling_ae_title=calling_ae_title(event),
        status=f"0x{refusal.status:04X}",
        reason=refusal.comment,
    )
    status = Dataset()
    status.Status = int(refusal.status)
    status.ErrorComment = refusal.comment
    if refusal.error_id is not None:
        status.ErrorID = refusal.error_id
    return status, None


def calling_ae_title(event: Event) -> str:
    """Return the AE title of who asks."""
    return str(event.assoc.requestor.ae_title).strip()


def instance_uid_of(event: Event) -> str:
    """Return the SOP Instance UID of an N-CREATE request, one of our own where it has none.

    Raises:
        RefusedRequestError: it is not a valid UID.
    """
    uid = cast(N_CREATE, event.request).AffectedSOPInstanceUID
    if uid is None:
        return str(generate_uid(prefix=None))
    if not is_valid_uid(str(uid)):
        raise RefusedRequestError(
            NormalizedStatus.INVALID_OBJECT_INSTANCE, "SOP Instance UID is not a valid UID"
        )
    return str(uid)


def read(source: Callable[[], Dataset]) -> Dataset:
    """Return the data set of a request, read to the end.

    Raises:
        RefusedRequestError: its bytes are no data set.
    """
    try:
        dataset = source()
        dataset.walk(lambda _, element: element.value)
    except Exception as error:  # whatever hostile bytes make the parser raise
        reason = f"data set cannot be parsed: {type(error).__name__}"
        raise RefusedRequestError(NormalizedStatus.PROCESSING_FAILURE, reason) from error
    return dataset


def required_uid(dataset: Dataset, keyword: str) -> str:
    """Return the UID of attribute `keyword`.

    Raises:
        RefusedRequestError: it is missing, or no valid UID.
    """
    value = str(dataset.get(keyword) or "")
    if not value:
        raise RefusedRequestError(NormalizedStatus.MISSING_ATTRIBUTE, f"{keyword} is missing")
    if not is_valid_uid(value):
        raise RefusedRequestError(
            NormalizedStatus.INVALID_ATTRIBUTE_VALUE, f"{keyword} is not a valid UID"
        )
    return value


def references(
    series: Dataset, keyword: str, is_available: Callable[[Dataset], bool] = lambda _: True
) -> Iterator[Reference]:
    """Give the instances that the sequence `keyword` of an item of a series sequence names.

    Raises:
        RefusedRequestError: a UID is missing or not valid.
    """
    for item in series.get(keyword) or ():
        yield Reference(
            series_instance_uid=required_uid(series, "SeriesInstanceUID"),
            sop_instance_uid=required_uid(item, "ReferencedSOPInstanceUID"),
            is_available=is_available(item),
        )
