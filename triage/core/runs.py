"""The life of an analysis run, as a checked state machine."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """Where an analysis run stands.

    PENDING waits for a worker. RUNNING is claimed under a lease. COMPLETED has findings.
    REFUSED is a stated "not analysed, because …" of a gate: the input was out of the model's
    scope, so no retry can help. FAILED has used up its attempts. CANCELLED was ended by a person.
    SUPERSEDED belongs to an earlier state of a study that has since received more images.
    """

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


_NEXT: dict[RunState, frozenset[RunState]] = {
    RunState.PENDING: frozenset(
        {RunState.RUNNING, RunState.SUPERSEDED, RunState.FAILED, RunState.CANCELLED}
    ),
    RunState.RUNNING: frozenset(
        {
            RunState.PENDING,  # the lease ran out, or an attempt failed and another is left
            RunState.COMPLETED,
            RunState.REFUSED,
            RunState.FAILED,
            RunState.CANCELLED,
            RunState.SUPERSEDED,
        }
    ),
    RunState.COMPLETED: frozenset({RunState.SUPERSEDED}),
    RunState.REFUSED: frozenset({RunState.PENDING, RunState.SUPERSEDED}),
    RunState.FAILED: frozenset({RunState.PENDING, RunState.SUPERSEDED}),
    RunState.CANCELLED: frozenset({RunState.SUPERSEDED}),
    RunState.SUPERSEDED: frozenset(),
}

FINAL_STATES = frozenset({RunState.COMPLETED, RunState.REFUSED, RunState.FAILED})


class IllegalTransitionError(Exception):
    """A run was asked to change to a state that cannot follow its present one."""


def check_transition(run: object, current: RunState, following: RunState) -> None:
    """Raise IllegalTransitionError unless a run in state `current` may become `following`.

    Raises:
        IllegalTransitionError: names the run and both states.
    """
    if following not in _NEXT[current]:
        raise IllegalTransitionError(
            f"analysis run {run} is {current}; it cannot become {following}"
        )


class DeliveryKind(StrEnum):
    """What a delivery tells.

    RESULT is what an analysis left, as an object or a notice; it is kept back when its run no
    longer counts. PRIORITY is a change of a study's priority. WITHDRAWAL takes a result back.
    """

    RESULT = "result"
    PRIORITY = "priority"
    WITHDRAWAL = "withdrawal"


class DeliveryState(StrEnum):
    """Where the delivery of one object or notice to one destination stands.

    DEAD has failed for good, and a person may send it again. GIVEN_UP is dead and a person has
    decided that it stays so. WITHDRAWN is kept back, because its run no longer counts.
    """

    WAITING = "waiting"
    SENDING = "sending"
    DELIVERED = "delivered"
    DEAD = "dead"
    GIVEN_UP = "given-up"
    WITHDRAWN = "withdrawn"


class StudyState(StrEnum):
    """Whether instances of a study are still arriving."""

    RECEIVING = "receiving"
    COMPLETE = "complete"
