"""UPS Push, Pull, Watch and Query as an SCP (DICOM PS3.4 CC.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.events import Event
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from triage.core.dicom_json import text_of
from triage.core.query import QueryError
from triage.core.workitem_attributes import (
    DELETION_LOCK,
    INPUT_INFORMATION,
    RECEIVING_AE,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    STATE,
    TRANSACTION_UID,
)
from triage.core.workitems import (
    FILTERED_SUBSCRIPTION,
    UPS_PULL,
    UPS_PUSH,
    UPS_QUERY,
    UPS_WATCH,
    StepState,
    UpsStatus,
    WorkitemError,
)
from triage.receiver.headers import is_valid_uid
from triage.receiver.peers import peer_by_ae_title
from triage.receiver.query.statuses import QueryStatus
from triage.receiver.services import DimseService
from triage.receiver.statuses import error_comment
from triage.receiver.ups.datasets import attributes_of, dataset_of
from triage.settings import Settings
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.study_workitems import new_uid
from triage.store.workitem_events import Subscriber
from triage.store.workitem_subscriptions import (
    WELL_KNOWN,
    subscribe,
    subscribe_globally,
    suspend,
    unsubscribe,
)
from triage.store.workitem_tables import Channel
from triage.store.workitem_views import Presentation
from triage.store.workitems import (
    change_state,
    create_workitem,
    find_workitems,
    read_workitem,
    request_cancel,
    update_workitem,
)

log = structlog.get_logger(__name__)

Answer = tuple[Dataset, Dataset | None]
Done = tuple[UpsStatus, Dataset | None]

CHANGE_STATE, REQUEST_CANCEL, SUBSCRIBE, UNSUBSCRIBE, SUSPEND = range(1, 6)
"""Action types (tables CC.2.1-1, CC.2.2-1 and CC.2.3-1)."""


def ups_services(settings: Settings, database: Database, clock: Clock) -> tuple[DimseService, ...]:
    """Return the service for the receiver, if it is enabled.

    UPS Event is not among its SOP classes: it is we who call the subscribers.
    """
    if not settings.ups.enabled:
        return ()
    provider = UpsProvider(settings, database, clock)
    return (
        DimseService(
            (UPS_PUSH, UPS_WATCH, UPS_PULL, UPS_QUERY),
            (
                (evt.EVT_N_CREATE, lambda event: provider.answered(provider.create, event)),
                (evt.EVT_N_SET, lambda event: provider.answered(provider.set, event)),
                (evt.EVT_N_GET, lambda event: provider.answered(provider.get, event)),
                (evt.EVT_N_ACTION, lambda event: provider.answered(provider.act, event)),
                (evt.EVT_C_FIND, provider.find),
            ),
        ),
    )


class UpsProvider:
    """Carries out requests; what is answered with success is in the database."""

    def __init__(self, settings: Settings, database: Database, clock: Clock) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._presentation = Presentation.of(settings)
        self._allowed = {title.strip() for title in settings.ups.allowed_calling_ae_titles}
        self._actions: Mapping[int, Callable[[Event, str, dict[str, Any]], UpsStatus]] = {
            CHANGE_STATE: self._change_state,
            REQUEST_CANCEL: self._request_cancel,
            SUBSCRIBE: self._subscribe,
            UNSUBSCRIBE: self._unsubscribe,
            SUSPEND: self._suspend,
        }

    def answered(self, carry_out: Callable[[Event], Done], event: Event) -> Answer:
        """Return the response to a request of the normalized services."""
        try:
            self._check_allowed(event)
            status, given = carry_out(event)
        except WorkitemError as refusal:
            return _refused(event, refusal.status, str(refusal))
        except QueryError as error:
            return _refused(event, UpsStatus.INVALID_ARGUMENT_VALUE, str(error))
        except IntegrityError:  # another association has just created it
            return _refused(event, UpsStatus.DUPLICATE_INSTANCE, "there is a UPS of this UID")
        except SQLAlchemyError as error:
            log.warning("UPS request not carried out", error=type(error).__name__)
            return _refused(event, UpsStatus.RESOURCE_LIMITATION, "not now: ask again")
        answer = Dataset()
        answer.Status = int(status)
        return answer, given

    def create(self, event: Event) -> Done:
        """Carry out an N-CREATE (CC.2.5)."""
        request: Any = event.request
        uid = str(request.AffectedSOPInstanceUID or "")
        if not is_valid_uid(uid):
            raise WorkitemError(
                UpsStatus.INVALID_OBJECT_INSTANCE, "Affected SOP Instance UID is not a valid UID"
            )
        given = attributes_of(lambda: event.attribute_list)
        with self._database.transaction() as session:
            status = create_workitem(session, uid, given, now=self._clock())
        log.info("workitem created", sop_instance_uid=uid, calling_ae_title=_calling(event))
        return status, None

    def set(self, event: Event) -> Done:
        """Carry out an N-SET (CC.2.6)."""
        request: Any = event.request
        uid = str(request.RequestedSOPInstanceUID or "")
        changes = attributes_of(lambda: event.modification_list)
        with self._database.transaction() as session:
            status = update_workitem(
                session,
                uid,
                changes,
                transaction_uid=text_of(changes, TRANSACTION_UID),
                now=self._clock(),
            )
        return status, None

    def get(self, event: Event) -> Done:
        """Carry out an N-GET (CC.2.7); without a list of attributes it gives all."""
        request: Any = event.request
        tags = [f"{int(tag):08X}" for tag in event.attribute_identifiers]
        with self._database.reading() as session:
            attributes = read_workitem(
                session,
                str(request.RequestedSOPInstanceUID or ""),
                self._presentation,
                with_inputs=not tags or INPUT_INFORMATION in tags,
            )
        return UpsStatus.SUCCESS, dataset_of(attributes, tags or None)

    def act(self, event: Event) -> Done:
        """Carry out an N-ACTION (CC.2.1, CC.2.2, CC.2.3)."""
        request: Any = event.request
        uid = str(request.RequestedSOPInstanceUID or "")
        carry_out = self._actions.get(int(event.action_type or 0))
        if carry_out is None:
            raise WorkitemError(UpsStatus.NO_SUCH_ACTION, "action types are 1 to 5")
        status = carry_out(event, uid, attributes_of(lambda: event.action_information))
        log.info(
            "workitem action",
            sop_instance_uid=uid,
            action=int(event.action_type or 0),
            status=f"0x{status:04X}",
            calling_ae_title=_calling(event),
        )
        return status, None

    def find(self, event: Event) -> Iterator[tuple[Any, Dataset | None]]:
        """Give the responses to a C-FIND (CC.2.8); pynetdicom adds the final success."""
        try:
            self._check_allowed(event)
            keys = attributes_of(lambda: event.identifier)
            returned = {SOP_CLASS_UID, SOP_INSTANCE_UID, *keys} - {TRANSACTION_UID}
            with self._database.reading() as session:
                for attributes in find_workitems(
                    session, keys, self._presentation, with_inputs=False
                ):
                    if event.is_cancelled:
                        yield QueryStatus.CANCEL, None
                        return
                    yield QueryStatus.PENDING, _match(attributes, keys, returned)
        except WorkitemError as refusal:
            is_forbidden = refusal.status is UpsStatus.NOT_AUTHORIZED
            status = QueryStatus.NOT_AUTHORIZED if is_forbidden else QueryStatus.UNABLE_TO_PROCESS
            yield _status(status, str(refusal)), None
        except QueryError as error:
            yield _status(QueryStatus.IDENTIFIER_DOES_NOT_MATCH, str(error)), None
        except SQLAlchemyError as error:
            log.warning("worklist not searched", error=type(error).__name__)
            yield _status(QueryStatus.UNABLE_TO_PROCESS, "not now: ask again"), None

    def _check_allowed(self, event: Event) -> None:
        if self._allowed and _calling(event) not in self._allowed:
            raise WorkitemError(UpsStatus.NOT_AUTHORIZED, "this AE title may not use the worklist")

    def _change_state(self, event: Event, uid: str, given: dict[str, Any]) -> UpsStatus:
        try:
            wanted = StepState(text_of(given, STATE))
        except ValueError as error:
            raise WorkitemError(
                UpsStatus.INVALID_ARGUMENT_VALUE, "Procedure Step State (0074,1000) is no state"
            ) from error
        with self._database.transaction() as session:
            return change_state(
                session,
                uid,
                wanted,
                transaction_uid=text_of(given, TRANSACTION_UID),
                requester=_calling(event),
                now=self._clock(),
            )

    def _request_cancel(self, event: Event, uid: str, given: dict[str, Any]) -> UpsStatus:
        with self._database.transaction() as session:
            return request_cancel(
                session,
                uid,
                given,
                requester=_calling(event),
                own_uid=new_uid(),
                now=self._clock(),
            )

    def _subscribe(self, event: Event, uid: str, given: dict[str, Any]) -> UpsStatus:
        del event
        ae_title = _receiving(given)
        if peer_by_ae_title(self._settings, ae_title) is None:
            raise WorkitemError(
                UpsStatus.UNKNOWN_RECEIVING_AE, "Receiving AE is not among our [[remotes]]"
            )
        lock = text_of(given, DELETION_LOCK)
        if lock not in ("TRUE", "FALSE"):
            raise WorkitemError(
                UpsStatus.INVALID_ARGUMENT_VALUE, "Deletion Lock must be TRUE or FALSE"
            )
        subscriber = Subscriber(ae_title, Channel.DIMSE)
        with self._database.transaction() as session:
            if uid not in WELL_KNOWN:
                subscribe(session, subscriber, uid, deletion_lock=lock == "TRUE", now=self._clock())
                return UpsStatus.SUCCESS
            no_keys = (RECEIVING_AE, DELETION_LOCK)
            keys = {tag: key for tag, key in given.items() if tag not in no_keys}
            subscribe_globally(
                session,
                subscriber,
                deletion_lock=lock == "TRUE",
                filter_keys=keys if uid == FILTERED_SUBSCRIPTION else None,
                worklist_label=self._presentation.worklist_label,
                now=self._clock(),
            )
        return UpsStatus.SUCCESS

    def _unsubscribe(self, event: Event, uid: str, given: dict[str, Any]) -> UpsStatus:
        del event
        with self._database.transaction() as session:
            unsubscribe(session, _receiving(given), uid)
        return UpsStatus.SUCCESS

    def _suspend(self, event: Event, uid: str, given: dict[str, Any]) -> UpsStatus:
        del event
        with self._database.transaction() as session:
            suspend(session, _receiving(given), uid)
        return UpsStatus.SUCCESS


def _receiving(given: Mapping[str, Any]) -> str:
    ae_title = text_of(given, RECEIVING_AE)
    if not 0 < len(ae_title) <= 16 or not ae_title.isprintable():
        raise WorkitemError(
            UpsStatus.INVALID_ARGUMENT_VALUE, "Receiving AE (0074,1234) is missing or no AE title"
        )
    return ae_title


def _match(attributes: Mapping[str, Any], keys: Mapping[str, Any], returned: set[str]) -> Dataset:
    """Return the identifier of a match: every key of the request, empty where it has no value."""
    empty = {tag: {"vr": keys[tag]["vr"]} for tag in returned - set(attributes) if tag in keys}
    return dataset_of({**empty, **{tag: attributes[tag] for tag in returned & set(attributes)}})


def _calling(event: Event) -> str:
    return str(event.assoc.requestor.ae_title).strip()


def _status(status: int, comment: str) -> Dataset:
    answer = Dataset()
    answer.Status = int(status)
    answer.ErrorComment = error_comment(comment)
    return answer


def _refused(event: Event, status: UpsStatus, comment: str) -> Answer:
    log.warning(
        "UPS request refused",
        calling_ae_title=_calling(event),
        status=f"0x{status:04X}",
        reason=comment,
    )
    return _status(status, comment), None
