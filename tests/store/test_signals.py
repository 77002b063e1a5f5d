"""What is announced of a study, and what becomes of the study by it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.store.rows import received
from tests.tools import ManualClock
from triage.core.completeness import Bounds, QuietPeriods
from triage.core.runs import StudyState
from triage.store.arrivals import awaited_images
from triage.store.counts import claim_question, has_question, record_count, record_no_count
from triage.store.database import Database
from triage.store.signals import (
    DuplicateSignalError,
    FinalStepError,
    Reference,
    SignalState,
    UnknownSignalError,
    create_step,
    forget_signals_before,
    record_availability,
    update_step,
)
from triage.store.studies import (
    complete_quiet_studies,
    find_study,
    has_quiet_studies,
    hold_open,
    record_instance,
)
from triage.store.tables import StudyRow

QUIET = QuietPeriods(30.0, {"CT": 5.0})
BOUNDS = Bounds(expected_wait_s=60, maximum_age_s=600)
PAUSE = timedelta(seconds=1)
LEASE = timedelta(seconds=20)


def record(database: Database, clock: ManualClock, *numbers: int, **values: Any) -> int:
    """Record the instances of these numbers and return the id of their study."""
    with database.transaction() as session:
        for number in numbers:
            recorded = record_instance(session, received(clock(), number=number, **values))
    return recorded.study_id


def complete(database: Database, clock: ManualClock) -> str | None:
    """Complete what is due and return the reason of the one study, None if it is not complete."""
    with database.reading() as session:
        is_worthwhile = has_quiet_studies(session, QUIET, clock(), BOUNDS)
    with database.transaction() as session:
        completed = complete_quiet_studies(session, QUIET, clock(), BOUNDS)
    assert is_worthwhile == bool(completed)
    found = study(database)
    return found.completion_reason if found.state is StudyState.COMPLETE else None


def study(database: Database) -> StudyRow:
    """Return the study."""
    with database.reading() as session:
        found = find_study(session, "1.2.3")
    assert found is not None
    return found


def awaited(database: Database) -> str:
    """Return what the study waits for."""
    one = study(database)
    with database.reading() as session:
        return awaited_images(session, [one]).get(one.id, "")


def images(*numbers: int, series: str = "1.2.3.1") -> list[Reference]:
    """Return references to the instances that `record` makes of these numbers."""
    return [Reference(series, f"1.2.3.1.{number}") for number in numbers]


def step(
    database: Database,
    clock: ManualClock,
    references: list[Reference],
    state: SignalState = SignalState.COMPLETED,
    uid: str = "9.1",
) -> None:
    """Announce a step of the study, and end it."""
    with database.transaction() as session:
        create_step(session, uid, ["1.2.3"], [], calling_ae_title="CT1", now=clock())
    with database.transaction() as session:
        update_step(session, uid, state=state, references=references, now=clock())


def test_step_announced_before_any_image_completes_the_study_with_its_last_image(
    database: Database, clock: ManualClock
) -> None:
    step(database, clock, images(1, 2, 3))
    study_id = record(database, clock, 1, 2)
    with database.transaction() as session:
        hold_open(session, study_id, association="a", receiver="r", now=clock())
    assert complete(database, clock) is None
    assert awaited(database) == "waiting for 1 of 3 images (MPPS)"
    record(database, clock, 3)
    assert awaited(database) == ""
    assert complete(database, clock) == "all 3 images are here (MPPS)"


def test_late_images_of_an_announced_series_complete_the_study_once_and_not_one_by_one(
    database: Database, clock: ManualClock
) -> None:
    step(database, clock, images(1, 2))
    record(database, clock, 1, 2)
    assert complete(database, clock) == "all 2 images are here (MPPS)"
    for number in (3, 4, 5):
        clock.advance(1)
        record(database, clock, number)
        assert complete(database, clock) is None
    clock.advance(5)
    assert complete(database, clock) == "association released and no image for 5 s"
    assert study(database).generation == 2


def test_conflicting_and_duplicate_instances_do_not_count_twice(
    database: Database, clock: ManualClock
) -> None:
    step(database, clock, images(1, 2))
    record(database, clock, 1)
    record(database, clock, 1)
    record(database, clock, 1, content="other")
    assert complete(database, clock) is None
    assert awaited(database) == "waiting for 1 of 2 images (MPPS)"


def test_images_that_never_come_are_waited_for_and_named_in_the_reason(
    database: Database, clock: ManualClock
) -> None:
    step(database, clock, images(1, 2, 3))
    record(database, clock, 1)
    clock.advance(59)
    assert complete(database, clock) is None
    clock.advance(1)
    reason = "association released and no image for 60 s; 1 of 3 images came (MPPS)"
    assert complete(database, clock) == reason


@pytest.mark.parametrize("state", [SignalState.DISCONTINUED, SignalState.IN_PROGRESS])
def test_step_that_is_not_completed_leaves_it_to_the_quiet_period(
    database: Database, clock: ManualClock, state: SignalState
) -> None:
    step(database, clock, images(1), state)
    record(database, clock, 1)
    assert complete(database, clock) is None
    clock.advance(5)
    assert complete(database, clock) == "association released and no image for 5 s"


def test_a_step_has_one_life(database: Database, clock: ManualClock) -> None:
    step(database, clock, images(1))
    with database.transaction() as session, pytest.raises(DuplicateSignalError):
        create_step(session, "9.1", ["1.2.3"], [], calling_ae_title="CT1", now=clock())
    with database.transaction() as session, pytest.raises(FinalStepError):
        update_step(session, "9.1", state=SignalState.COMPLETED, references=None, now=clock())
    with database.transaction() as session, pytest.raises(UnknownSignalError):
        update_step(session, "9.2", state=SignalState.COMPLETED, references=None, now=clock())


def test_step_for_two_studies_completes_both(database: Database, clock: ManualClock) -> None:
    both = ["1.2.3", "1.2.4"]
    named = [*images(1), Reference("1.2.4.1", "1.2.4.1.1")]
    with database.transaction() as session:
        create_step(session, "9.1", both, named, calling_ae_title="CT1", now=clock())
        update_step(session, "9.1", state=SignalState.COMPLETED, references=None, now=clock())
    record(database, clock, 1)
    assert complete(database, clock) is None
    record(database, clock, 1, study="1.2.4")
    with database.transaction() as session:
        assert len(complete_quiet_studies(session, QUIET, clock(), BOUNDS)) == 2


def test_instances_that_are_available_complete_the_study(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock, 1)
    assert complete(database, clock) is None
    notify(database, clock, "8.1", images(1))
    assert complete(database, clock) == "its one image is here (Instance Availability Notification)"


def notify(database: Database, clock: ManualClock, uid: str, references: list[Reference]) -> None:
    """Announce available instances of the study."""
    with database.transaction() as session:
        record_availability(
            session, uid, "1.2.3", references=references, calling_ae_title="PACS", now=clock()
        )


def test_of_one_instance_the_newest_notification_counts(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock, 1)
    away = [Reference("1.2.3.1", "1.2.3.1.2", is_available=False)]
    notify(database, clock, "8.1", [*images(1), *away])
    assert complete(database, clock) is None
    assert awaited(database) == ""
    notify(database, clock, "8.2", images(2))
    assert awaited(database) == "waiting for 1 of 1 image (Instance Availability Notification)"
    record(database, clock, 2)
    assert complete(database, clock) == (
        "all 2 images are here (Instance Availability Notification)"
    )


def stated(count: int, acquisition: int = 1) -> dict[str, Any]:
    """Return what `received` needs for a slice that states its acquisition."""
    return {
        "headers": {
            "Rows": 1,
            "AcquisitionNumber": acquisition,
            "ImagesInAcquisition": count,
        }
    }


def test_acquisition_spread_over_two_series_is_whole_when_all_of_it_is_there(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock, 1, **stated(3))
    record(database, clock, 2, series_instance_uid="1.2.3.2", **stated(3))
    assert awaited(database) == "waiting for 4 of 6 images (Images in Acquisition)"
    record(database, clock, 3, series_instance_uid="1.2.3.2", **stated(3))
    assert awaited(database) == ""


def test_acquisitions_of_one_series_add_up(database: Database, clock: ManualClock) -> None:
    record(database, clock, 1, 2, **stated(2))
    record(database, clock, 3, **stated(2, acquisition=2))
    assert awaited(database) == "waiting for 1 of 4 images (Images in Acquisition)"


def ask(database: Database, clock: ManualClock, instances: int, **series: int) -> bool:
    """Let the archive answer if it is asked now, and return whether it was."""
    with database.reading() as session:
        expected = has_question(session, pause=PAUSE, now=clock())
    with database.transaction() as session:
        question = claim_question(session, pause=PAUSE, lease=LEASE, now=clock())
        assert (question is not None) == expected
        if question is None:
            return False
        record_count(
            session,
            question.study_id,
            instances=instances,
            series={uid.replace("_", "."): count for uid, count in series.items()},
            pause=PAUSE,
            asked_at=clock(),
        )
    return True


def test_count_that_is_the_same_twice_completes_the_study(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock, 1, 2)
    assert not ask(database, clock, 2)
    clock.advance(1)
    assert ask(database, clock, 2)
    assert complete(database, clock) is None
    assert not ask(database, clock, 2)
    clock.advance(1)
    assert ask(database, clock, 2)
    assert complete(database, clock) == "all 2 images are here (archive's count)"


def test_count_that_was_taken_before_the_last_image_is_not_relied_on(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock, 1, 2)
    clock.advance(1)
    assert ask(database, clock, 3)
    record(database, clock, 3)
    clock.advance(1)
    assert ask(database, clock, 3)
    assert complete(database, clock) is None  # one answer since the last image
    clock.advance(1)
    assert ask(database, clock, 3)
    assert complete(database, clock) == "all 3 images are here (archive's count)"


def test_archive_that_has_more_of_a_series_is_waited_for(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock, 1, 2)
    clock.advance(1)
    assert ask(database, clock, 12, **{"1_2_3_1": 4, "1_2_3_9": 8})
    assert awaited(database) == "waiting for 2 of 4 images (archive's count)"
    clock.advance(58)
    assert complete(database, clock) is None
    clock.advance(1)
    assert complete(database, clock) == (
        "association released and no image for 60 s; 2 of 12 images came (archive's count)"
    )


def test_archive_that_is_away_delays_nothing(database: Database, clock: ManualClock) -> None:
    record(database, clock, 1)
    clock.advance(1)
    with database.transaction() as session:
        question = claim_question(session, pause=PAUSE, lease=LEASE, now=clock())
        assert question is not None
        record_no_count(session, question.study_id, "away", pause=PAUSE, asked_at=clock())
    clock.advance(4)
    assert complete(database, clock) == "association released and no image for 5 s"


def test_a_study_is_asked_for_by_one_receiver_at_a_time(
    database: Database, clock: ManualClock
) -> None:
    record(database, clock, 1)
    clock.advance(1)
    with database.transaction() as session:
        assert claim_question(session, pause=PAUSE, lease=LEASE, now=clock()) is not None
    clock.advance(10)
    with database.transaction() as session:
        assert claim_question(session, pause=PAUSE, lease=LEASE, now=clock()) is None
    clock.advance(10)  # whoever asked has died
    with database.transaction() as session:
        assert claim_question(session, pause=PAUSE, lease=LEASE, now=clock()) is not None


def test_study_that_never_ends_is_complete_at_its_maximum_age_and_again_after_more(
    database: Database, clock: ManualClock
) -> None:
    reason = "still arriving after 600 s, the maximum age of a study"
    completed = []
    for number in range(1, 43):
        study_id = record(database, clock, number)
        with database.transaction() as session:
            hold_open(session, study_id, association=f"a{number}", receiver="r", now=clock())
        if complete(database, clock) == reason:
            completed.append(number)
        clock.advance(30)
    assert completed == [21, 42]  # 600 s after the first image, and after the one that reopened


def test_old_signals_are_forgotten(database: Database, clock: ManualClock) -> None:
    step(database, clock, images(1, 2, 3))
    clock.advance(10)
    step(database, clock, images(1, 2), uid="9.2")
    with database.transaction() as session:
        forget_signals_before(session, clock() - timedelta(seconds=5))
    record(database, clock, 1, 2)
    assert complete(database, clock) == "all 2 images are here (MPPS)"
