"""What another policy would have done to the last week."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from tests.web.hospital import Hospital, hemorrhage
from triage.core.priority import Priority
from triage.core.priority_policy import SHIPPED_POLICY, parse_policy
from triage.store.tables import StudyRow
from triage.worklist.policy_preview import PolicyPreview, preview_policy
from triage.worklist.reading import mark_as_read

CALM = {"findings": [{"finding": "hemorrhage", "priority": "routine"}]}
EMERGENCY = {"locations": [{"name": "Emergency", "patient_classes": ["E"], "at_least": "high"}]}


def arrive(hospital: Hospital, **said: str) -> str:
    """Let a study come, and ten minutes pass."""
    uid = hospital.receive(*hospital.head_ct(slices=1))
    with hospital.database.transaction() as session:
        if said:
            session.execute(
                update(StudyRow).where(StudyRow.study_instance_uid == uid).values(**said)
            )
    hospital.clock.advance(600)
    return uid


def read(hospital: Hospital, uid: str) -> None:
    """Let a study be read, and ten minutes pass."""
    with hospital.database.transaction() as session:
        mark_as_read(session, uid, now=hospital.clock())
    hospital.clock.advance(600)


def preview(hospital: Hospital, policy: dict[str, object]) -> PolicyPreview:
    """Return what the policy would have done."""
    with hospital.database.reading() as session:
        return preview_policy(session, parse_policy(policy), hospital.clock())


@pytest.fixture
def week(hospital: Hospital) -> tuple[str, str, str]:
    """Three studies: routine, an emergency, one that was flagged; two were read, flagged first."""
    hospital.register_model()
    routine = arrive(hospital)
    emergency = arrive(hospital, patient_class="E")
    flagged = arrive(hospital)
    hospital.complete(flagged)
    hospital.finish(hospital.claim(), hemorrhage())
    hospital.clock.advance(600)
    read(hospital, flagged)
    read(hospital, routine)
    return routine, emergency, flagged


def test_the_policy_that_holds_changes_nothing(
    hospital: Hospital, week: tuple[str, str, str]
) -> None:
    with hospital.database.reading() as session:
        found = preview_policy(session, SHIPPED_POLICY, hospital.clock())
    assert (found.studies, found.readings) == (3, 2)
    assert (found.higher, found.lower, found.shorter, found.longer) == (0, 0, 0, 0)
    assert found.most_affected == ()


def test_flag_that_no_longer_raises_waits_longer(
    hospital: Hospital, week: tuple[str, str, str]
) -> None:
    *_, flagged = week
    found = preview(hospital, CALM)
    assert (found.higher, found.lower) == (0, 1)
    assert [(c.before, c.after, c.studies) for c in found.classes] == [
        (Priority.STAT, Priority.ROUTINE, 1)
    ]
    longest = found.most_affected[0]
    assert longest.study_instance_uid == flagged
    assert longest.wait_after > longest.wait_before
    assert (longest.before, longest.after) == (Priority.STAT, Priority.ROUTINE)
    assert found.longer == 1


def test_emergency_that_is_raised_waits_less(
    hospital: Hospital, week: tuple[str, str, str]
) -> None:
    _, emergency, _ = week
    found = preview(hospital, EMERGENCY)
    assert found.higher == 1
    changed = {one.study_instance_uid: one for one in found.most_affected}
    assert changed[emergency].after is Priority.HIGH
    assert changed[emergency].in_words == "order routine; Emergency: High"


def test_what_was_read_before_the_week_is_left_out(
    hospital: Hospital, week: tuple[str, str, str]
) -> None:
    hospital.clock.advance(8 * 24 * 3600)
    found = preview(hospital, CALM)
    assert (found.studies, found.readings) == (1, 0)  # the emergency still waits
