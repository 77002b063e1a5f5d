"""UPS Event as an SCP: subscribers are called and told (DICOM PS3.4 CC.2.4)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta

import structlog
from pynetdicom.association import Association
from pynetdicom.presentation import build_context, build_role
from sqlalchemy.exc import SQLAlchemyError

from triage.associations import AssociationError, associate
from triage.core.backoff import pause_s
from triage.core.workitems import UPS_EVENT, UPS_PUSH
from triage.receiver.peers import peer_by_ae_title
from triage.receiver.rounds import Rounds
from triage.receiver.statuses import NormalizedStatus
from triage.receiver.ups.datasets import dataset_of
from triage.settings import Settings
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.study_workitems import end_forsaken, schedule_what_has_none
from triage.store.workitem_events import (
    DueEvent,
    claim_events,
    give_up,
    has_due_events,
    has_subscribers,
    mark_not_told,
    mark_told,
    release_claims,
    tell_of_going_down,
    tell_of_restart,
)
from triage.store.workitems import purge_finished

log = structlog.get_logger(__name__)

_TELLERS = 2
_LEASE = timedelta(seconds=180)
_LOOK_EVERY_S = 60.0
_LONGEST_WAIT_FOR_END_S = 5.0
_LONGEST_WAIT_TO_SAY_S = 2.0


class NotToldError(Exception):
    """The subscriber was not told; says why."""


class UpsEvents:
    """The threads that tell subscribers, and keep the list of workitems in order.

    A subscriber that hangs keeps one thread waiting; there is another. `name` is the receiver's,
    the same after a restart.
    """

    def __init__(self, settings: Settings, database: Database, clock: Clock, name: str) -> None:
        self._name = name
        self._settings = settings
        self._database = database
        self._clock = clock
        self._has_started = False
        self._has_told_of_restart = not settings.ups.enabled
        self._rounds = [
            *(
                Rounds(f"ups-events-{n + 1}", self.go_round, pause_s=0.2, commits_to=database)
                for n in range(_TELLERS)
            ),
            Rounds("ups-list", self.keep_in_order, pause_s=_LOOK_EVERY_S),
        ]

    def start(self) -> None:
        """Begin, after freeing what a killed receiver of this name was telling."""
        try:
            with self._database.transaction() as session:
                release_claims(session, self._name, self._clock())
        except SQLAlchemyError as error:  # then its lease has to run out
            log.warning("claims of events not freed", error=type(error).__name__)
        for rounds in self._rounds:
            rounds.start()
        self._has_started = True

    def stop(self) -> None:
        """Say that we stop, and stop; what is left to tell is told after the next start."""
        self._say_going_down()
        for rounds in self._rounds:
            rounds.end()
        deadline = time.monotonic() + _LONGEST_WAIT_FOR_END_S
        for rounds in self._rounds:
            rounds.join(max(0.0, deadline - time.monotonic()))

    def _say_going_down(self) -> None:
        """Tell subscribers who answer at once; nobody else delays the end."""
        if not (self._settings.ups.enabled and self._has_started):
            return
        try:
            with self._database.reading() as session:
                if not has_subscribers(session):
                    return
            with self._database.transaction() as session:
                tell_of_going_down(session, self._clock())
            deadline = time.monotonic() + _LONGEST_WAIT_TO_SAY_S
            while self._is_to_tell() and time.monotonic() < deadline:
                time.sleep(0.02)
        except SQLAlchemyError as error:
            log.warning("subscribers not told of the end", error=type(error).__name__)

    def _is_to_tell(self) -> bool:
        with self._database.reading() as session:
            return has_due_events(session, self._clock())

    def keep_in_order(self) -> bool:
        """Say that we are back, give older studies their workitems, delete what ended long ago."""
        now = self._clock()
        if not self._has_told_of_restart:
            with self._database.transaction() as session:
                tell_of_restart(session, now)
            self._has_told_of_restart = True
        with self._database.transaction() as session:
            if schedule_what_has_none(session, now):
                return True  # there may be more
            before = now - timedelta(days=self._settings.ups.keep_finished_days)
            end_forsaken(session, before, now)
            purge_finished(session, before)
        return False

    def go_round(self) -> bool:
        """Tell one subscriber what is due; return whether there was one."""
        if not self._settings.ups.enabled:
            return False
        with self._database.reading() as session:
            if not has_due_events(session, self._clock()):
                return False
        with self._database.transaction() as session:
            due = claim_events(session, lease=_LEASE, now=self._clock(), holder=self._name)
        if not due:
            return False
        told: list[DueEvent] = []
        try:
            self._tell(due, told)
        except (NotToldError, AssociationError) as error:
            self._failed([one for one in due if one not in told], str(error))
        if told:
            log.info("subscriber told", ae_title=due[0].ae_title, events=len(told))
        return True

    def _tell(self, due: Sequence[DueEvent], told: list[DueEvent]) -> None:
        ae_title = due[0].ae_title
        peer = peer_by_ae_title(self._settings, ae_title)
        if peer is None:
            raise NotToldError(
                f"{ae_title} is no configured remote or destination, so its address is not "
                "known; add it to [[remotes]]"
            )
        with associate(
            peer,
            [build_context(UPS_EVENT)],
            calling_ae_title=self._settings.receiver.ae_title,
            roles=[build_role(UPS_EVENT, scp_role=True)],
        ) as association:
            for event in due:
                self._tell_one(association, event)
                told.append(event)

    def _tell_one(self, association: Association, event: DueEvent) -> None:
        try:
            answered, _ = association.send_n_event_report(
                dataset_of(event.information),
                int(event.event_type),
                UPS_PUSH,
                event.sop_instance_uid,
            )
        except ValueError as error:
            raise NotToldError(
                f"{event.ae_title} did not let us be the SCP of UPS Event (role selection)"
            ) from error
        except RuntimeError as error:
            raise NotToldError(f"{event.ae_title} ended the association") from error
        status = answered.get("Status")
        if status is None:
            raise NotToldError(f"{event.ae_title} did not answer an event report")
        now = self._clock()
        with self._database.transaction() as session:
            if status == NormalizedStatus.SUCCESS:
                mark_told(session, [event.event_id], now=now)
            else:  # it has heard of it; to say so again would only keep the others waiting
                give_up(session, event.event_id, f"answered with 0x{status:04X}")

    def _failed(self, due: Sequence[DueEvent], error: str) -> None:
        ups = self._settings.ups
        wait_s = pause_s(due[0].attempt, first_s=ups.first_retry_s, longest_s=ups.longest_retry_s)
        with self._database.transaction() as session:
            given_up = mark_not_told(
                session,
                due,
                error,
                retry_after=timedelta(seconds=wait_s),
                maximum_attempts=ups.maximum_attempts,
                now=self._clock(),
            )
        log.warning(
            "subscriber not told",
            ae_title=due[0].ae_title,
            reason=error,
            events=len(due),
            given_up=given_up,
        )
