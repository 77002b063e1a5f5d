"""Deliveries against an archive that refuses, fails, is slow or is away."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from tests.results.archive import ScriptedArchive, scripted_archive
from tests.results.outbox_scenes import (
    claim,
    finish,
    history,
    last_errors,
    receive,
    register,
    states,
)
from tests.results.scenes import (
    build,
    chest_analysis,
    chest_manifest,
    chest_results,
    write_chest,
)
from tests.tools import ManualClock
from triage.core.runs import DeliveryKind, DeliveryState, RunState
from triage.results.build import store_results
from triage.results.delivery.dicom import store
from triage.results.delivery.rounds import deliver_next, retry_after
from triage.results.errors import DeliveryError
from triage.settings import DicomDestination, ReceiverSettings, ResultSettings, Settings
from triage.store.database import Database
from triage.store.delivery_decisions import Decision, resend
from triage.store.files import InstanceFiles
from triage.store.outbox import (
    DueDelivery,
    claim_due_delivery,
    mark_not_delivered,
    withdraw_unsent,
)
from triage.store.tables import AnalysisRunRow, DeliveryRow, ResultObjectRow


@dataclass
class Scene:
    """A chest radiograph whose SR and heat map wait in the outbox for "archive"."""

    database: Database
    files: InstanceFiles
    clock: ManualClock
    uids: list[str]
    run_id: int

    def deliver(self, *destinations: DicomDestination, **results: Any) -> bool:
        """Carry out the delivery that is due, if one is."""
        settings = Settings(
            destinations=destinations,
            results=ResultSettings(**results),
            receiver=ReceiverSettings(ae_title="MYTRIAGE"),
        )
        return deliver_next(self.database, settings, self.files, self.clock, lambda: 0.5)


def _scene(database: Database, tmp_path: Path, clock: ManualClock) -> Scene:
    files = InstanceFiles(tmp_path / "data")
    content, built = chest_results()
    file = tmp_path / "chest.dcm"
    file.write_bytes(content)
    analysis = chest_analysis(file)
    register(database, chest_manifest(), clock)
    receive(database, file, clock)
    run = claim(database, clock)
    finish(database, files, run, analysis, built, clock=clock)
    uids = [str(each.dataset.SOPInstanceUID) for each in built]
    return Scene(database, files, clock, uids, run.run_id)


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path, clock: ManualClock) -> Scene:
    return _scene(sqlite_database, tmp_path, clock)


def test_objects_arrive_once_and_in_order_on_both_databases(
    database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    scene = _scene(database, tmp_path, clock)
    with scripted_archive() as archive:
        assert scene.deliver(archive.settings())
        assert scene.deliver(archive.settings())
        assert not scene.deliver(archive.settings())
    assert archive.received == scene.uids
    assert archive.calling_ae_titles == ["MYTRIAGE", "MYTRIAGE"]
    assert states(database) == [DeliveryState.DELIVERED] * 2
    assert history(database, "delivered") == [
        "SR delivered to archive",
        "HEAT-MAP delivered to archive",
    ]


def test_nothing_due_is_no_delivery(scene: Scene) -> None:
    scene.clock.now -= timedelta(hours=1)
    with scripted_archive() as archive:
        assert not scene.deliver(archive.settings())
    assert archive.received == []


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007, 0x0111])
def test_a_warning_or_a_duplicate_counts_as_delivered(scene: Scene, status: int) -> None:
    with scripted_archive() as archive:
        archive.statuses = [status]
        scene.deliver(archive.settings())
    assert states(scene.database)[0] is DeliveryState.DELIVERED


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0xA700, "0xA700: it is out of resources, saying 'as the test says'"),
        (0x0110, "0x0110: processing failed"),
        (0x0124, "0x0124: this AE title is not authorised"),
        (0x0999, "0x0999: failure"),
    ],
)
def test_a_passing_failure_is_tried_again_and_holds_back_what_comes_after(
    scene: Scene, status: int, words: str
) -> None:
    with scripted_archive() as archive:
        archive.statuses = [status]
        assert scene.deliver(archive.settings())
        assert states(scene.database) == [DeliveryState.WAITING] * 2
        assert words in last_errors(scene.database)[0]
        assert not scene.deliver(archive.settings())  # neither is due: one waits, one comes after
        scene.clock.advance(2)
        assert scene.deliver(archive.settings())
        assert scene.deliver(archive.settings())
    assert archive.received == [scene.uids[0], *scene.uids]
    assert states(scene.database) == [DeliveryState.DELIVERED] * 2


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0xA900, "0xA900: the object does not match its SOP class"),
        (0xC123, "0xC123: it cannot understand the object"),
        (0x0117, "0x0117: the object's UID is invalid"),
        (0x0122, "0x0122: it does not support the SOP class"),
    ],
)
def test_a_lasting_refusal_is_dead_at_once(scene: Scene, status: int, words: str) -> None:
    with scripted_archive() as archive:
        archive.statuses = [status]
        scene.deliver(archive.settings())
        assert states(scene.database) == [DeliveryState.DEAD, DeliveryState.WAITING]
        assert words in last_errors(scene.database)[0]
        [line] = history(scene.database, "undeliverable")
        assert line.startswith("SR was not taken by archive: archive answered")
        assert scene.deliver(archive.settings())  # what comes after no longer waits
    assert states(scene.database) == [DeliveryState.DEAD, DeliveryState.DELIVERED]


def test_a_sop_class_that_is_not_accepted_is_dead_at_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Our receiver sets this for its whole process, in which this archive may be running.
    monkeypatch.setattr("pynetdicom._config.UNRESTRICTED_STORAGE_SERVICE", False)
    with scripted_archive(sop_class_uids=["1.2.840.10008.5.1.4.1.1.2"]) as archive:
        scene.deliver(archive.settings())
    assert states(scene.database)[0] is DeliveryState.DEAD
    assert (
        "does not accept Comprehensive 3D SR Storage as Explicit VR Little Endian"
        in last_errors(scene.database)[0]
    )


@pytest.mark.parametrize(
    ("archive_options", "words"),
    [
        ({"called_ae_title": "OTHER"}, "Called AE title not recognised"),
        ({"required_calling_ae_titles": ["NOBODY"]}, "Calling AE title not recognised"),
    ],
)
def test_a_refused_association_says_why_and_is_tried_again(
    scene: Scene, archive_options: dict[str, Any], words: str
) -> None:
    with scripted_archive(**archive_options) as archive:
        scene.deliver(archive.settings())
    assert states(scene.database)[0] is DeliveryState.WAITING
    error = last_errors(scene.database)[0]
    assert error.startswith("archive (ARCHIVE at 127.0.0.1:")
    assert f"refused the association: {words}" in error


def test_an_archive_that_is_away_is_tried_again(scene: Scene) -> None:
    with scripted_archive() as archive:
        settings = archive.settings()
    scene.deliver(settings)
    assert states(scene.database)[0] is DeliveryState.WAITING
    assert "cannot be reached" in last_errors(scene.database)[0]


def test_an_archive_that_does_not_answer_c_store_is_given_up_after_the_timeout(
    scene: Scene,
) -> None:
    with scripted_archive() as archive:
        archive.delay_s = 1.0
        scene.deliver(archive.settings(timeout_s=0.3))
    assert states(scene.database)[0] is DeliveryState.WAITING
    assert "did not answer C-STORE within 0.3 s" in last_errors(scene.database)[0]


def test_a_port_that_accepts_and_says_nothing_is_given_up_after_the_timeout(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        settings = ScriptedArchive(mute.getsockname()[1]).settings(timeout_s=0.3)
        scene.deliver(settings)
    assert states(scene.database)[0] is DeliveryState.WAITING
    assert "did not answer the association request" in last_errors(scene.database)[0]


def test_after_the_last_attempt_it_is_dead_until_a_person_resends_it(scene: Scene) -> None:
    with scripted_archive() as archive:
        archive.statuses = [0xA700, 0xA700]
        for _ in range(2):
            assert scene.deliver(archive.settings(), maximum_delivery_attempts=2)
            scene.clock.advance(60)
        assert states(scene.database)[0] is DeliveryState.DEAD
        with scene.database.transaction() as session:
            resend(session, 1, Decision("A. Grey", scene.clock()))
        assert scene.deliver(archive.settings(), maximum_delivery_attempts=2)
    assert states(scene.database)[0] is DeliveryState.DELIVERED


def test_a_destination_that_is_no_longer_configured_is_dead(scene: Scene) -> None:
    assert scene.deliver()
    assert states(scene.database)[0] is DeliveryState.DEAD
    assert "no destination named 'archive' is configured any more" in last_errors(scene.database)[0]


def test_a_file_that_is_gone_is_dead(scene: Scene) -> None:
    for file in scene.files.root.rglob("*.dcm"):
        file.unlink()
    with scripted_archive() as archive:
        scene.deliver(archive.settings())
    assert states(scene.database)[0] is DeliveryState.DEAD
    assert last_errors(scene.database)[0] == "its file is no longer in the store"


def test_the_same_run_again_sends_nothing_twice(scene: Scene, tmp_path: Path) -> None:
    with scripted_archive() as archive:
        while scene.deliver(archive.settings()):
            pass
        with scene.database.transaction() as session:
            run = session.get(AnalysisRunRow, scene.run_id)
            assert run is not None
            run.state = RunState.PENDING
        file = tmp_path / "chest.dcm"
        analysis = chest_analysis(file)
        again = claim(scene.database, scene.clock)
        built = build(analysis, chest_manifest())
        finish(scene.database, scene.files, again, analysis, built, clock=scene.clock)
        assert not scene.deliver(archive.settings())
    assert archive.received == scene.uids


def test_what_was_on_its_way_when_its_run_was_superseded_is_kept_back(scene: Scene) -> None:
    with scene.database.transaction() as session:
        due = claim_due_delivery(session, lease=timedelta(seconds=60), now=scene.clock())
        assert due is not None
    with scene.database.transaction() as session:
        run = session.get(AnalysisRunRow, scene.run_id)
        assert run is not None
        run.state = RunState.SUPERSEDED
        withdraw_unsent(session, scene.run_id)
    with scene.database.transaction() as session:
        wait = timedelta(seconds=1)
        mark_not_delivered(session, due, "away", retry_after=wait, now=scene.clock())
    assert states(scene.database) == [DeliveryState.WITHDRAWN] * 2


def test_a_superseded_run_is_not_sent_after_a_restart(scene: Scene) -> None:
    with scene.database.transaction() as session:
        assert claim_due_delivery(session, lease=timedelta(seconds=60), now=scene.clock())
        run = session.get(AnalysisRunRow, scene.run_id)
        assert run is not None
        run.state = RunState.SUPERSEDED
    scene.clock.advance(61)
    with scripted_archive() as archive:
        assert not scene.deliver(archive.settings())
    assert archive.received == []


def test_an_attempt_that_lost_its_lease_does_not_decide_over_the_next(scene: Scene) -> None:
    with scene.database.transaction() as session:
        first = claim_due_delivery(session, lease=timedelta(seconds=60), now=scene.clock())
    scene.clock.advance(61)
    with scene.database.transaction() as session:
        second = claim_due_delivery(session, lease=timedelta(seconds=60), now=scene.clock())
    assert first is not None
    assert second is not None
    assert second.attempt == 2
    with scene.database.transaction() as session:
        mark_not_delivered(session, first, "too late", retry_after=None, now=scene.clock())
        row = session.get(DeliveryRow, second.delivery_id)
        assert row is not None
        assert row.state is DeliveryState.SENDING


def test_exactly_the_object_s_transfer_syntax_is_proposed(tmp_path: Path) -> None:
    file = write_chest(tmp_path / "in")
    files = InstanceFiles(tmp_path / "data")
    [new, _] = store_results(files, build(chest_analysis(file), chest_manifest()))
    due = DueDelivery(
        delivery_id=1,
        kind=DeliveryKind.RESULT,
        subject=f"object:{new.sop_instance_uid}",
        is_object=True,
        destination="archive",
        attempt=1,
        study_id=1,
        run_id=1,
        role="sr",
        path=new.file.path,
        sop_class_uid=new.sop_class_uid,
        sop_instance_uid=new.sop_instance_uid,
    )
    with scripted_archive() as archive:
        store(due, archive.settings(), files, calling_ae_title="MYTRIAGE")
        assert archive.transfer_syntaxes == [new.transfer_syntax_uid]
        archive.statuses = [0xC000]
        with pytest.raises(DeliveryError) as caught:
            store(due, archive.settings(), files, calling_ae_title="MYTRIAGE")
    assert caught.value.is_permanent


@given(attempt=st.integers(1, 10_000), random=st.floats(0, 1, exclude_max=True))
def test_waits_grow_within_their_bounds(attempt: int, random: float) -> None:
    settings = ResultSettings(first_retry_s=2, longest_retry_s=600)
    wait_s = retry_after(attempt, settings, lambda: random).total_seconds()
    longest = min(2 * 2 ** min(attempt - 1, 30), 600)
    assert longest / 2 <= wait_s <= longest


def test_object_whose_file_was_purged_is_a_dead_letter(scene: Scene) -> None:
    with scene.database.transaction() as session:
        session.execute(update(ResultObjectRow).values(path=""))
    with scripted_archive() as archive:
        scene.deliver(archive.settings())
    assert archive.received == []
    assert states(scene.database)[0] is DeliveryState.DEAD
