"""Whatever happens in whatever order: nothing is lost, nothing is told too often."""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.store.notification_scenes import Ward, settings_of
from tests.tools import ManualClock
from triage.core.notifications import MessageKind, MessageState, NotificationState
from triage.core.priority import Priority
from triage.core.withdrawals import WithdrawalReason
from triage.store.base import Table
from triage.store.database import Database
from triage.store.notification_outbox import claim_message, mark_not_sent, mark_sent
from triage.store.notifications import NotificationError, acknowledge, snooze
from triage.store.withdrawals import record_withdrawal

LIMIT = 2
LEASE = timedelta(minutes=2)
WAITS_S = (600, 900, 1200)
UNSENT = (MessageState.WAITING, MessageState.HELD, MessageState.SENDING)


class Notifying(RuleBasedStateMachine):
    """Findings, people, mail servers and crashes in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="notifying"))
        database = Database(f"sqlite:///{self.folder / 'triage.sqlite'}")
        Table.metadata.create_all(database.engine)
        night = [{"start": "22:00", "end": "07:00"}]
        people = [
            {"name": "ada", "email": "ada@hospital.example", "quiet_hours": night},
            {"name": "grace", "email": "grace@hospital.example"},
            {"name": "alan", "email": "alan@hospital.example"},
        ]
        self.ward = Ward(
            database,
            ManualClock(),
            settings_of(recipients=people, maximum_per_hour=LIMIT, digest_after_s=1800),
        )
        self.delivered: set[int] = set()
        self.known = 0

    def teardown(self) -> None:
        """Let everything come to its end, and look whether anything was lost."""
        for _ in range(30):
            self.ward.later(3600)
            while self._carry("ok"):
                pass
        for row in self.ward.all():
            messages = self.ward.messages(row.id)
            assert not row.state.is_open
            assert [m for m in messages if m.state in UNSENT] == []
            is_told = any(m.state is MessageState.SENT for m in messages)
            assert is_told or row.reason, "told nobody, and nobody knows why"
            if row.reason == "nobody acknowledged in time":
                assert {m.step for m in messages if m.state is MessageState.SENT} == {1, 2, 3}
            if row.state is NotificationState.WITHDRAWN:
                self._assert_all_heard_of_it(row.id)
        self._assert_limit_held()
        self.ward.database.close()
        shutil.rmtree(self.folder)

    def _assert_all_heard_of_it(self, number: int) -> None:
        messages = self.ward.messages(number)
        told = {m.recipient for m in messages if m.kind is MessageKind.ALERT and m.sent_at}
        corrected = {m.recipient for m in messages if m.kind is MessageKind.RETRACTION}
        assert told <= corrected

    @rule(priority=st.sampled_from([Priority.HIGH, Priority.HIGH, Priority.STAT]))
    def flag(self, priority: Priority) -> None:
        self.ward.flag(priority)
        self.known += 1

    @rule(minutes=st.integers(1, 600))
    def wait(self, minutes: int) -> None:
        self.ward.clock.advance(60 * minutes)

    @rule()
    def decide(self) -> None:
        self.ward.round()

    @rule(outcome=st.sampled_from(["ok", "fails", "dies", "dies after sending"]))
    def send(self, outcome: str) -> None:
        self._carry(outcome)

    def _carry(self, outcome: str) -> bool:
        now = self.ward.clock()
        with self.ward.database.transaction() as session:
            due = claim_message(session, "mail", lease=LEASE, now=now)
        if due is None:
            return False
        ids = {entry.message_id for entry in due.entries}
        assert not ids & self.delivered, "noted as sent, and sent again"
        with self.ward.database.transaction() as session:
            if outcome == "ok":
                mark_sent(session, due, now=now)
                self.delivered |= ids
            elif outcome == "fails":
                mark_not_sent(session, due, "away", retry_after=timedelta(minutes=1), now=now)
        return True

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(1, self.known))
        try:
            with self.ward.database.transaction() as session:
                acknowledge(session, number, who="ada", via="page", now=self.ward.clock())
        except NotificationError:
            state = self.ward.one(number).state
            assert state in (NotificationState.WITHDRAWN, NotificationState.SUPPRESSED)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(1, self.known))
        self.ward.read(self.ward.one(number).study_id)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        row = self.ward.one(data.draw(st.integers(1, self.known)))
        if row.state is NotificationState.WITHDRAWN:
            return
        reason = WithdrawalReason.WRONG_RESULT
        with self.ward.database.transaction() as session:
            record_withdrawal(
                session, row.run_id, who="reader", reason=reason, now=self.ward.clock()
            )

    @rule(minutes=st.integers(0, 120))
    def snooze(self, minutes: int) -> None:
        now = self.ward.clock()
        with self.ward.database.transaction() as session:
            snooze(session, "grace", until=now + timedelta(minutes=minutes), who="grace", now=now)

    @invariant()
    def each_step_is_told_once_and_not_before_its_time(self) -> None:
        for row in self.ward.all():
            at: dict[int, set[object]] = {}
            begins: dict[int, object] = {}
            for m in self.ward.messages(row.id):
                if m.kind is MessageKind.ALERT:
                    at.setdefault(m.step, set()).add(m.created_at)
                    begins[m.step] = m.created_at
            assert sorted(at) == list(range(1, len(at) + 1))
            assert all(len(moments) == 1 for moments in at.values())
            for step in range(2, len(at) + 1):
                assert begins[step] - begins[step - 1] >= timedelta(seconds=WAITS_S[step - 2])  # type: ignore[operator]

    def _assert_limit_held(self) -> None:
        at_once = {
            (m.recipient, row.id, m.step, m.created_at)
            for row in self.ward.all()
            if row.priority is not Priority.STAT
            for m in self.ward.messages(row.id)
            if m.kind is MessageKind.ALERT and not m.held
        }
        for recipient, _, _, moment in at_once:
            hour = [
                other
                for who, _, _, other in at_once
                if who == recipient and moment - timedelta(hours=1) < other <= moment
            ]
            assert len(hour) <= LIMIT


TestNotifying = Notifying.TestCase
TestNotifying.settings = hypothesis_settings(max_examples=12, stateful_step_count=20, deadline=None)
