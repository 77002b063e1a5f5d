"""The life of a unified procedure step (UPS, a "workitem"): states, lock and statuses.

The source is DICOM PS3.4 annex CC; its state transition table (CC.1.1-2) is `status_of_change`,
`status_of_update` and `status_of_cancel_request`.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

from triage.core.errors import TriageError
from triage.core.priority import Priority

UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
"""The SOP class of every instance, whichever of the five was negotiated (CC.3.1)."""
UPS_WATCH = "1.2.840.10008.5.1.4.34.6.2"
UPS_PULL = "1.2.840.10008.5.1.4.34.6.3"
UPS_EVENT = "1.2.840.10008.5.1.4.34.6.4"
UPS_QUERY = "1.2.840.10008.5.1.4.34.6.5"
GLOBAL_SUBSCRIPTION = "1.2.840.10008.5.1.4.34.5"
"""The instance that stands for all workitems in subscriptions (CC.3.1.2)."""
FILTERED_SUBSCRIPTION = "1.2.840.10008.5.1.4.34.5.1"
"""The instance that stands for all workitems which match a filter (CC.2.3.3.1)."""


class StepState(StrEnum):
    """Procedure Step State (0074,1000), DICOM PS3.4 table CC.1.1-1."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"

    @property
    def is_final(self) -> bool:
        """Whether nothing can be changed any more."""
        return self in (StepState.COMPLETED, StepState.CANCELED)


class InputReadiness(StrEnum):
    """Input Readiness State (0040,4041): whether the images to be read are all there."""

    INCOMPLETE = "INCOMPLETE"
    UNAVAILABLE = "UNAVAILABLE"
    READY = "READY"


class StepPriority(StrEnum):
    """Scheduled Procedure Step Priority (0074,1200)."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"

    @property
    def rank(self) -> int:
        """A greater rank is read earlier."""
        return list(StepPriority).index(self)

    @classmethod
    def of(cls, priority: Priority) -> StepPriority:
        """Return the priority of the workitem of a study; STAT has no word of its own here.

        >>> [str(StepPriority.of(priority)) for priority in Priority]
        ['LOW', 'MEDIUM', 'HIGH', 'HIGH']
        """
        return _PRIORITIES[priority]


_PRIORITIES = {
    Priority.LOW: StepPriority.LOW,
    Priority.ROUTINE: StepPriority.MEDIUM,
    Priority.HIGH: StepPriority.HIGH,
    Priority.STAT: StepPriority.HIGH,
}


class UpsStatus(IntEnum):
    """Statuses of the UPS services (DICOM PS3.4 CC.2, PS3.7 annex C)."""

    SUCCESS = 0x0000
    CREATED_WITH_MODIFICATIONS = 0xB300
    ALREADY_CANCELED = 0xB304
    COERCED = 0xB305
    ALREADY_COMPLETED = 0xB306
    MAY_NO_LONGER_BE_UPDATED = 0xC300
    WRONG_TRANSACTION_UID = 0xC301
    ALREADY_IN_PROGRESS = 0xC302
    SCHEDULED_BY_CREATION_ONLY = 0xC303
    FINAL_STATE_NOT_MET = 0xC304
    UNKNOWN_INSTANCE = 0xC307
    UNKNOWN_RECEIVING_AE = 0xC308
    NOT_CREATED_AS_SCHEDULED = 0xC309
    NOT_IN_PROGRESS = 0xC310
    IS_COMPLETED = 0xC311
    PERFORMER_OUT_OF_REACH = 0xC312
    WRONG_ACTION_FOR_INSTANCE = 0xC314
    INVALID_ATTRIBUTE_VALUE = 0x0106
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_INSTANCE = 0x0111
    INVALID_ARGUMENT_VALUE = 0x0115
    INVALID_OBJECT_INSTANCE = 0x0117
    MISSING_ATTRIBUTE = 0x0120
    MISSING_ATTRIBUTE_VALUE = 0x0121
    NO_SUCH_ACTION = 0x0123
    NOT_AUTHORIZED = 0x0124
    RESOURCE_LIMITATION = 0x0213

    @property
    def is_failure(self) -> bool:
        """Whether nothing was done; a warning is none."""
        return self is not UpsStatus.SUCCESS and self & 0xF000 != 0xB000


class WorkitemError(TriageError):
    """A request about a workitem is refused; the message names the attribute, never its value.

    Attributes:
        status: what the requester is told over DIMSE.
    """

    def __init__(self, status: UpsStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


MEANINGS = {
    UpsStatus.ALREADY_CANCELED: "the UPS is already in the requested state of CANCELED",
    UpsStatus.ALREADY_COMPLETED: "the UPS is already in the requested state of COMPLETED",
    UpsStatus.MAY_NO_LONGER_BE_UPDATED: "the UPS may no longer be updated",
    UpsStatus.WRONG_TRANSACTION_UID: "the correct Transaction UID was not provided",
    UpsStatus.ALREADY_IN_PROGRESS: "the UPS is already IN PROGRESS",
    UpsStatus.SCHEDULED_BY_CREATION_ONLY: "the UPS may only become SCHEDULED via N-CREATE",
    UpsStatus.UNKNOWN_INSTANCE: "there is no such UPS here",
    UpsStatus.NOT_IN_PROGRESS: "the UPS is not in the IN PROGRESS state",
    UpsStatus.IS_COMPLETED: "the UPS is already COMPLETED",
    UpsStatus.PERFORMER_OUT_OF_REACH: "the performer cannot be contacted: nobody subscribed",
}
"""What the statuses of the state machine mean."""


def status_of_change(
    state: StepState, recorded_uid: str, wanted: StepState, given_uid: str
) -> UpsStatus:
    """Return what becomes of a request to change the state; SUCCESS if it is to be changed.

    Final state requirements are looked at only then (`missing_for_final_state`). The correct
    Transaction UID of a SCHEDULED workitem is any: whoever claims it first sets it (CC.2.1.2).

    Args:
        state: of the workitem.
        recorded_uid: the Transaction UID of its claim, "" as long as nobody has claimed it.
        wanted: the state that is asked for.
        given_uid: the Transaction UID of the request, "" where it has none.
    """
    if wanted is StepState.SCHEDULED:
        return UpsStatus.SCHEDULED_BY_CREATION_ONLY
    if not given_uid or (state is not StepState.SCHEDULED and given_uid != recorded_uid):
        return UpsStatus.WRONG_TRANSACTION_UID
    return _CHANGES[wanted][state]


_CHANGES = {
    StepState.IN_PROGRESS: {
        StepState.SCHEDULED: UpsStatus.SUCCESS,
        StepState.IN_PROGRESS: UpsStatus.ALREADY_IN_PROGRESS,
        StepState.COMPLETED: UpsStatus.MAY_NO_LONGER_BE_UPDATED,
        StepState.CANCELED: UpsStatus.MAY_NO_LONGER_BE_UPDATED,
    },
    StepState.COMPLETED: {
        StepState.SCHEDULED: UpsStatus.NOT_IN_PROGRESS,
        StepState.IN_PROGRESS: UpsStatus.SUCCESS,
        StepState.COMPLETED: UpsStatus.ALREADY_COMPLETED,
        StepState.CANCELED: UpsStatus.MAY_NO_LONGER_BE_UPDATED,
    },
    StepState.CANCELED: {
        StepState.SCHEDULED: UpsStatus.NOT_IN_PROGRESS,
        StepState.IN_PROGRESS: UpsStatus.SUCCESS,
        StepState.COMPLETED: UpsStatus.MAY_NO_LONGER_BE_UPDATED,
        StepState.CANCELED: UpsStatus.ALREADY_CANCELED,
    },
}


def status_of_update(state: StepState, recorded_uid: str, given_uid: str) -> UpsStatus:
    """Return whether attributes may be set (CC.2.6.2, CC.2.6.3).

    A SCHEDULED workitem has no Transaction UID, and a request that brings one takes it for one
    that is in progress.
    """
    if state.is_final:
        return UpsStatus.MAY_NO_LONGER_BE_UPDATED
    if state is StepState.SCHEDULED:
        return UpsStatus.NOT_IN_PROGRESS if given_uid else UpsStatus.SUCCESS
    return UpsStatus.SUCCESS if given_uid == recorded_uid else UpsStatus.WRONG_TRANSACTION_UID


def status_of_cancel_request(state: StepState, *, may_be_told: bool) -> UpsStatus:
    """Return what becomes of a request of another system to cancel (CC.2.2.3).

    Args:
        state: SCHEDULED is cancelled by the provider itself, IN PROGRESS by its performer.
        may_be_told: whether anybody is subscribed, so that the performer may hear of it.
    """
    if state is StepState.COMPLETED:
        return UpsStatus.IS_COMPLETED
    if state is StepState.CANCELED:
        return UpsStatus.ALREADY_CANCELED
    if state is StepState.IN_PROGRESS and not may_be_told:
        return UpsStatus.PERFORMER_OUT_OF_REACH
    return UpsStatus.SUCCESS
