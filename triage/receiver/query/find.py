"""C-FIND as an SCP (DICOM PS3.4 C.4.1)."""

from __future__ import annotations

from collections.abc import Iterator

import structlog
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pynetdicom.events import Event
from sqlalchemy.exc import SQLAlchemyError

from triage.core.query import QueryError
from triage.receiver.query.identifier import match_identifier, parse_identifier
from triage.receiver.query.statuses import QueryStatus, may_ask
from triage.receiver.statuses import error_comment
from triage.settings import Settings
from triage.store.database import Database
from triage.store.query import find

log = structlog.get_logger(__name__)

_PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"

Response = tuple[int | Dataset, Dataset | None]


class FindProvider:
    """Answers C-FIND requests from the index, page by page."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings.query
        self._database = database
        self._ae_title = settings.receiver.ae_title

    def handle(self, event: Event) -> Iterator[Response]:
        """Give the responses to one request; pynetdicom adds the final success."""
        count = 0
        if not may_ask(self._settings, event.assoc.requestor.ae_title):
            yield _failure(QueryStatus.NOT_AUTHORIZED, "this AE title may not query"), None
            return
        try:
            identifier = _identifier_of(event)
            query = parse_identifier(identifier, is_patient_root=_is_patient_root(event))
            asked_in = _character_set_of(identifier)
            for values in find(self._database, query):
                if event.is_cancelled:
                    yield QueryStatus.CANCEL, None
                    return
                yield (
                    QueryStatus.PENDING,
                    match_identifier(query, values, ae_title=self._ae_title, asked_in=asked_in),
                )
                count += 1
        except QueryError as error:
            yield _failure(QueryStatus.IDENTIFIER_DOES_NOT_MATCH, str(error)), None
            return
        except SQLAlchemyError as error:
            log.warning("query not answered", error=type(error).__name__)
            yield _failure(QueryStatus.UNABLE_TO_PROCESS, "the index cannot be read now"), None
            return
        log.info(
            "query answered",
            query_level=str(query.level),
            matches=count,
            calling_ae_title=event.assoc.requestor.ae_title.strip(),
        )


def _identifier_of(event: Event) -> Dataset:
    try:
        return event.identifier
    except Exception as error:  # whatever hostile bytes make the parser raise
        raise QueryError(f"the identifier cannot be decoded: {type(error).__name__}") from error


def _is_patient_root(event: Event) -> bool:
    return str(event.context.abstract_syntax) == _PATIENT_ROOT_FIND


def _character_set_of(identifier: Dataset) -> str:
    value = identifier.get("SpecificCharacterSet")
    if isinstance(value, (MultiValue, list)):
        return ""  # code extensions
    return str(value or "").strip()


def _failure(status: QueryStatus, comment: str) -> Dataset:
    answer = Dataset()
    answer.Status = int(status)
    answer.ErrorComment = error_comment(comment)
    return answer
