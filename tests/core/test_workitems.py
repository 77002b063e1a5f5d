"""The rules of unified procedure steps: states and lock, requirements, matching."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from triage.core.dicom_json import element, items_of, text_of
from triage.core.priority import Priority
from triage.core.query import QueryError
from triage.core.workitem_attributes import (
    CANCELLATION_TIME,
    PERFORMED,
    PRIORITY,
    PROGRESS,
    STATE,
    StudyToRead,
    in_state,
    missing_for_final_state,
    reading_workitem,
    refreshed,
)
from triage.core.workitem_matching import check_keys, matches
from triage.core.workitems import (
    StepPriority,
    StepState,
    UpsStatus,
    status_of_cancel_request,
    status_of_change,
    status_of_update,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
UIDS = st.sampled_from(["", "1.1", "1.2", "1.3"])


class Lifecycle(RuleBasedStateMachine):
    """Whatever clients ask for, in whatever order, the lock and the final states hold."""

    def __init__(self) -> None:
        super().__init__()
        self.state = StepState.SCHEDULED
        self.lock = ""
        self.seen = [StepState.SCHEDULED]

    @rule(wanted=st.sampled_from(StepState), uid=UIDS)
    def change(self, wanted: StepState, uid: str) -> None:
        before = self.state
        status = status_of_change(self.state, self.lock, wanted, uid)
        if status is not UpsStatus.SUCCESS:
            return
        if wanted is StepState.IN_PROGRESS:
            assert not self.lock, "somebody else's claim was taken over"
            self.lock = uid
        assert uid == self.lock, "changed without the lock"
        assert before in (StepState.SCHEDULED, StepState.IN_PROGRESS)
        self.state = wanted
        self.seen.append(wanted)

    @rule(uid=UIDS)
    def update(self, uid: str) -> None:
        status = status_of_update(self.state, self.lock, uid)
        if status is UpsStatus.SUCCESS:
            assert not self.state.is_final
            assert uid == self.lock

    @rule(may_be_told=st.booleans())
    def ask_to_cancel(self, may_be_told: bool) -> None:
        status = status_of_cancel_request(self.state, may_be_told=may_be_told)
        if self.state is StepState.SCHEDULED:
            assert status is UpsStatus.SUCCESS
            self.lock = "1.0"
            self.state = StepState.CANCELED
            self.seen += [StepState.IN_PROGRESS, StepState.CANCELED]
        if self.state is StepState.IN_PROGRESS:
            assert status.is_failure is not may_be_told

    @invariant()
    def went_the_standards_way(self) -> None:
        """SCHEDULED, then IN PROGRESS, then one final state, and none twice (figure CC.1.1-1)."""
        way = [StepState.SCHEDULED, StepState.IN_PROGRESS]
        assert self.seen[:2] == way[: len(self.seen)]
        assert len(self.seen) <= 3
        assert all(state.is_final for state in self.seen[2:])
        assert bool(self.lock) is (self.state is not StepState.SCHEDULED)


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)


@pytest.mark.parametrize(
    ("wanted", "with_lock", "statuses"),
    [
        ("IN PROGRESS", True, (0x0000, 0xC302, 0xC300, 0xC300)),
        ("IN PROGRESS", False, (0xC301, 0xC301, 0xC301, 0xC301)),
        ("SCHEDULED", True, (0xC303, 0xC303, 0xC303, 0xC303)),
        ("COMPLETED", True, (0xC310, 0x0000, 0xB306, 0xC300)),
        ("COMPLETED", False, (0xC301, 0xC301, 0xC301, 0xC301)),
        ("CANCELED", True, (0xC310, 0x0000, 0xC300, 0xB304)),
        ("CANCELED", False, (0xC301, 0xC301, 0xC301, 0xC301)),
    ],
)
def test_state_transition_table(
    wanted: str,
    with_lock: bool,
    statuses: tuple[int, ...],
) -> None:
    """DICOM PS3.4 table CC.1.1-2, row by row; the columns are the states."""
    for state, expected in zip(StepState, statuses, strict=True):
        lock = "" if state is StepState.SCHEDULED else "1.1"
        status = status_of_change(state, lock, StepState(wanted), "1.1" if with_lock else "")
        assert status == expected, state


def study(**changes: Any) -> StudyToRead:
    values: dict[str, Any] = {
        "study_instance_uid": "1.2.3",
        "accession_number": "A1",
        "description": "CT head",
        "modalities": "CT",
        "patient_id": "P1",
        "issuer_of_patient_id": "",
        "patient_name": "Doe^Jane",
        "patient_birth_date": "19700101",
        "patient_sex": "F",
        "priority": Priority.ROUTINE,
        "reason": "as ordered",
        "is_complete": True,
        "arrived_at": NOW,
    }
    return StudyToRead(**{**values, **changes})


@given(st.sampled_from(Priority), st.none() | st.sampled_from(StepPriority))
def test_priority_is_never_below_the_studys(priority: Priority, asked: StepPriority | None) -> None:
    workitem = reading_workitem("1.5", study(), NOW)
    after = refreshed(workitem, study(priority=priority), NOW, asked)
    shown = StepPriority(text_of(after, PRIORITY))
    assert shown.rank >= StepPriority.of(priority).rank
    if asked is not None:
        assert shown.rank >= asked.rank


def test_cancelled_workitem_says_when_and_why_even_if_nobody_did() -> None:
    workitem = in_state(reading_workitem("1.5", study(), NOW), StepState.CANCELED, NOW)
    (progress,) = items_of(workitem, PROGRESS)
    assert text_of(progress, CANCELLATION_TIME) == "20260301120000.000000+0000"
    assert text_of(items_of(progress, "0074100E")[0], "00080100") == "110513"
    assert missing_for_final_state(workitem, StepState.CANCELED) == ""


def test_completed_workitem_lacks_the_first_thing_that_was_not_said() -> None:
    workitem = reading_workitem("1.5", study(), NOW)
    assert "(0074,1216)" in missing_for_final_state(workitem, StepState.COMPLETED)
    workitem[PERFORMED] = element("SQ", {"00404028": element("SQ", {"x": element("SH", "y")})})
    assert "(0040,4050)" in missing_for_final_state(workitem, StepState.COMPLETED)


@pytest.mark.parametrize(
    ("tag", "key", "is_match"),
    [
        (STATE, element("CS", "SCHEDULED"), True),
        (STATE, element("CS", "scheduled"), False),
        (STATE, element("CS", "COMPLETED", "SCHEDULED"), True),
        (STATE, element("CS"), True),
        ("00741204", element("LO", "Read*"), True),
        ("00741204", element("LO", "R?ad CT *d"), True),
        ("00741204", element("LO", "Read"), False),
        ("00100010", element("PN", "doe*"), True),
        ("00100010", element("PN", "JANE"), False),
        ("00100030", element("DA", "19690101-19701231"), True),
        ("00100030", element("DA", "-19691231"), False),
        ("00404005", element("DT", "20260301120000+0000"), True),
        ("00404005", element("DT", "20260301+0000"), True),
        ("00404005", element("DT", "2026+0000"), True),
        ("00404005", element("DT", "20260301130000+0100"), True),
        ("00404005", element("DT", "20260301120001+0000-"), False),
        ("00404005", element("DT", "20260301100000+0000-20260301130000+0000"), True),
        ("00404005", element("DT", "-20260228"), False),
        ("0020000D", element("UI", "1.2.4", "1.2.3"), True),
        ("00404018", element("SQ", {"00080100": element("SH", "110005")}), True),
        ("00404018", element("SQ", {"00080100": element("SH", "110001")}), False),
        ("00404018", element("SQ", {"00080100": element("SH")}), True),
        ("00404025", element("SQ", {"00080100": element("SH", "WS1")}), False),
        ("00404025", element("SQ"), True),
        ("00741004", element("DS", "50"), False),
    ],
)
def test_attribute_matching(tag: str, key: dict[str, Any], is_match: bool) -> None:
    keys = {tag: key}
    check_keys(keys)
    assert matches(reading_workitem("1.5", study(), NOW), keys) is is_match


@pytest.mark.parametrize(
    "key",
    [
        {"00404005": element("DT", "yesterday")},
        {"00100030": element("DA", "1.1.70")},
        {"00741004": element("DS", "half")},
        {"00404018": element("SQ", {"00404005": element("DT", "20261399")})},
    ],
)
def test_wrong_key_is_refused_whether_or_not_anything_is_compared(key: dict[str, Any]) -> None:
    with pytest.raises(QueryError):
        check_keys(key)


@given(st.text(alphabet="ab*?", max_size=12), st.text(alphabet="ab", max_size=12))
def test_wildcards_match_as_in_a_regular_expression(pattern: str, text: str) -> None:
    wanted = "".join({"*": ".*", "?": "."}.get(c, c) for c in pattern)
    expected = pattern.strip() in ("", "*") or (bool(text) and bool(re.fullmatch(wanted, text)))
    workitem = {"00741204": element("LO", text)}
    assert matches(workitem, {"00741204": element("LO", pattern)}) is bool(expected)


def test_hostile_pattern_takes_no_time() -> None:
    workitem = {"00400400": element("LT", "a" * 1024)}
    assert not matches(workitem, {"00400400": element("LT", "*a" * 500 + "b")})
