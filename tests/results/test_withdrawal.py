"""Rejection notes and the reports that say so: built, judged by outside programs, and delivered."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select, update

from tests.orthanc import Orthanc
from tests.results.archive import scripted_archive
from tests.results.outbox_scenes import claim, finish, history, receive, register
from tests.results.scenes import (
    build,
    chest_analysis,
    chest_manifest,
    run_tool,
    write_chest,
)
from tests.tools import ManualClock, find_free_port, require_tool, wait_until
from triage.core.runs import DeliveryState
from triage.core.withdrawals import PERSONAL_REASONS, WithdrawalReason, rejection_for
from triage.results.build import build_results
from triage.results.delivery.rounds import deliver_next
from triage.results.withdrawal import withdraw_next
from triage.settings import DicomDestination, ResultSettings, Settings
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.runs import ClaimedRun
from triage.store.tables import DeliveryRow, InstanceRow, ResultObjectRow
from triage.store.withdrawals import predecessor_reports, record_withdrawal

WHO = "Dr. Müller"


@dataclass
class Scene:
    """A chest radiograph with a finding whose SR and heat map were made for "archive"."""

    database: Database
    files: InstanceFiles
    clock: ManualClock
    image: Path
    run: ClaimedRun
    uids: list[str]

    def deliver(self, *destinations: DicomDestination) -> None:
        """Send what is due."""
        settings = Settings(destinations=destinations)
        while deliver_next(self.database, settings, self.files, self.clock, lambda: 0.5):
            pass

    def withdraw(self, reason: WithdrawalReason = WithdrawalReason.WRONG_RESULT) -> None:
        """Take back the result, as a person does."""
        with self.database.transaction() as session:
            record_withdrawal(
                session,
                self.run.run_id,
                who=WHO,
                reason=reason,
                text="skin fold",
                now=self.clock(),
            )

    def build(self, *destinations: DicomDestination) -> bool:
        """Build what archives are told, as the worker does."""
        return withdraw_next(
            self.database, Settings(destinations=destinations), self.files, self.clock
        )

    def objects(self) -> dict[str, Path]:
        """Return the files of the newest objects by role."""
        with self.database.reading() as session:
            rows = session.scalars(select(ResultObjectRow).order_by(ResultObjectRow.id)).all()
            return {row.role: self.files.absolute(row.path) for row in rows}

    def deliveries(self) -> list[tuple[str, str]]:
        """Return the role and state of every delivery, in order of the outbox."""
        with self.database.reading() as session:
            rows = session.execute(
                select(ResultObjectRow.role, DeliveryRow.state)
                .join(DeliveryRow, DeliveryRow.result_object_id == ResultObjectRow.id)
                .order_by(DeliveryRow.id)
            )
            return [(role, state.value) for role, state in rows.all()]


def _scene(database: Database, tmp_path: Path, clock: ManualClock, *destinations: str) -> Scene:
    files = InstanceFiles(tmp_path / "data")
    image = write_chest(tmp_path / "in")
    register(database, chest_manifest(), clock)
    receive(database, image, clock)
    run = claim(database, clock)
    built = build(chest_analysis(image), chest_manifest())
    finish(
        database,
        files,
        run,
        chest_analysis(image),
        built,
        clock=clock,
        destinations=destinations,
    )
    uids = [str(each.dataset.SOPInstanceUID) for each in built]
    return Scene(database, files, clock, image, run, uids)


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path, clock: ManualClock) -> Scene:
    return _scene(sqlite_database, tmp_path, clock, "archive")


def _tree(file: Path) -> str:
    return "\n".join(run_tool("dsrdump", "+Pc", "+Pl", file).lines)


def _rejected(note: Dataset) -> list[str]:
    return [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in note.ContentSequence
        if "ReferencedSOPSequence" in item
    ]


def test_an_archive_is_told_what_is_withdrawn_by_whom_and_why_on_both_databases(
    database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    scene = _scene(database, tmp_path, clock, "archive")
    with scripted_archive() as archive:
        scene.deliver(archive.settings())
        scene.withdraw()
        assert scene.build(archive.settings())
        assert not scene.build(archive.settings())
        scene.deliver(archive.settings())
    made = {role: pydicom.dcmread(file) for role, file in scene.objects().items()}
    report, note = made["withdrawal-sr"], made["rejection-note"]
    # The report first: an archive is never without one.
    assert archive.received == [*scene.uids, report.SOPInstanceUID, note.SOPInstanceUID]
    assert _rejected(note) == scene.uids
    predecessor = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert predecessor.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == scene.uids[0]
    source = pydicom.dcmread(scene.image)
    for dataset in (report, note):
        assert dataset.StudyInstanceUID == source.StudyInstanceUID
        assert dataset.PatientName == source.PatientName
    (said,) = history(database, "withdrawn")
    assert said.endswith(f"withdrawn by {WHO}, because the result is wrong: skin fold")
    assert history(database, "rejected") == ["chest-xray 2.1.0: its rejection note goes to archive"]


@pytest.mark.parametrize("reason", [*PERSONAL_REASONS, WithdrawalReason.SUPERSEDED])
def test_the_note_has_the_title_and_the_reason_of_the_standard(
    reason: WithdrawalReason, scene: Scene
) -> None:
    scene.withdraw(reason)
    assert scene.build()
    made = scene.objects()
    rejection = rejection_for(reason)
    tree = _tree(made["rejection-note"])
    assert f'({rejection.title.value},DCM,"{rejection.title.meaning}")' in tree
    modifier = '(113011,DCM,"Document Title Modifier")'
    assert (modifier in tree) is (rejection.quality is not None)
    if rejection.quality is not None:
        assert f'({rejection.quality.value},DCM,"{rejection.quality.meaning}")' in tree
    for role in ("rejection-note", "withdrawal-sr"):
        assert run_tool("dciodvfy", "-new", made[role]).errors() == []
    assert f"withdrawn by {WHO}, because {rejection.words}: skin fold" in _tree(
        made["withdrawal-sr"]
    )


def test_only_archives_that_may_have_the_objects_are_told(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    scene = _scene(sqlite_database, tmp_path, clock, "archive", "other")
    with scripted_archive() as archive:
        reached = archive.settings()
        away = reached.model_copy(update={"name": "other", "port": find_free_port()})
        with sqlite_database.transaction() as session:
            session.execute(
                update(DeliveryRow)
                .where(DeliveryRow.destination == "other")
                .values(next_attempt_at=clock.now.replace(year=2027))
            )
        scene.deliver(reached, away)
        scene.withdraw()
        scene.build(reached, away)
        scene.deliver(reached, away)
    assert scene.deliveries() == [
        ("sr", "delivered"),
        ("sr", "withdrawn"),
        ("heat-map", "delivered"),
        ("heat-map", "withdrawn"),
        ("withdrawal-sr", "delivered"),
        ("rejection-note", "delivered"),
    ]


def test_without_an_archive_the_note_is_kept_here(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    scene = _scene(sqlite_database, tmp_path, clock)
    scene.withdraw()
    assert scene.build()
    assert scene.deliveries() == []
    with sqlite_database.reading() as session:
        kept = set(session.scalars(select(InstanceRow.sop_instance_uid)))
    note = pydicom.dcmread(scene.objects()["rejection-note"])
    assert {note.SOPInstanceUID, *scene.uids} <= kept
    assert history(sqlite_database, "rejected")[0].endswith("its rejection note is kept here")


def test_a_full_disk_loses_no_withdrawal(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.withdraw()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(InstanceFiles, "write", full)
        assert scene.build()
    assert not scene.build()
    scene.clock.advance(10)
    assert scene.build()
    assert "rejection-note" in scene.objects()


def test_results_whose_files_were_purged_are_rejected_too(scene: Scene) -> None:
    for file in scene.objects().values():
        file.unlink()
    with scene.database.transaction() as session:
        session.execute(update(ResultObjectRow).values(path=""))
    scene.withdraw()
    assert scene.build()
    made = scene.objects()
    note = pydicom.dcmread(made["rejection-note"])
    assert _rejected(note) == scene.uids
    assert note.PatientID == pydicom.dcmread(scene.image).PatientID
    for role in ("rejection-note", "withdrawal-sr"):
        assert run_tool("dciodvfy", "-new", made[role]).errors() == []


def test_a_report_in_plain_comprehensive_sr_is_followed_by_another(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    files = InstanceFiles(tmp_path / "data")
    image = write_chest(tmp_path / "in")
    register(sqlite_database, chest_manifest(), clock)
    receive(sqlite_database, image, clock)
    run = claim(sqlite_database, clock)
    analysis = chest_analysis(image)
    built = build(analysis, chest_manifest(), report_type="comprehensive")
    assert built[0].dataset.SOPClassUID.name == "Comprehensive SR Storage"
    finish(sqlite_database, files, run, analysis, built, clock=clock, destinations=())
    scene = Scene(sqlite_database, files, clock, image, run, [])
    assert run_tool("dciodvfy", "-new", scene.objects()["sr"]).errors() == []
    scene.withdraw()
    assert scene.build()
    report = pydicom.dcmread(scene.objects()["withdrawal-sr"])
    assert report.SOPClassUID == built[0].dataset.SOPClassUID


def test_a_late_image_s_result_takes_the_place_of_the_earlier(scene: Scene, tmp_path: Path) -> None:
    source = pydicom.dcmread(scene.image)
    same = {k: source[k].value for k in ("StudyInstanceUID", "SeriesInstanceUID", "PatientID")}
    late = write_chest(tmp_path / "late", InstanceNumber=2, **same)
    with scripted_archive() as archive:
        scene.deliver(archive.settings())
        receive(scene.database, late, scene.clock)
        assert not scene.build(archive.settings())  # the newer one has not answered yet
        run = claim(scene.database, scene.clock)
        with scene.database.reading() as session:
            predecessors = predecessor_reports(session, run.run_id)
        analysis = replace(chest_analysis(late), input_sha256="9" * 64)
        built = build_results(
            analysis,
            chest_manifest(),
            study_instance_uid=str(source.StudyInstanceUID),
            settings=ResultSettings(),
            produced_at=scene.clock(),
            predecessors=predecessors,
        )
        finish(scene.database, scene.files, run, analysis, built, clock=scene.clock)
        assert scene.build(archive.settings())
        scene.deliver(archive.settings())
    report = next(each.dataset for each in built if each.role == "sr")
    named = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == scene.uids[0]
    made = scene.objects()
    assert run_tool("dciodvfy", "-new", made["sr"]).errors() == []
    assert "withdrawal-sr" not in made  # the newer report says it
    note = pydicom.dcmread(made["rejection-note"])
    assert _rejected(note) == scene.uids
    assert archive.received[-1] == note.SOPInstanceUID
    assert "Person" not in _tree(made["rejection-note"])


def test_orthanc_and_dcmtk_take_the_note(
    running_orthanc: Orthanc, scene: Scene, tmp_path: Path
) -> None:
    orthanc = DicomDestination(
        name="archive",
        ae_title=running_orthanc.ae_title,
        host="127.0.0.1",
        port=running_orthanc.dicom_port,
    )
    scene.deliver(orthanc)
    scene.withdraw()
    scene.build(orthanc)
    scene.deliver(orthanc)
    assert {state for _, state in scene.deliveries()} == {DeliveryState.DELIVERED.value}
    note = pydicom.dcmread(scene.objects()["rejection-note"])
    assert note.SOPInstanceUID in running_orthanc.sop_instance_uids()
    _store_at_dcmtk(scene.objects()["rejection-note"], tmp_path / "dcmtk")


def _store_at_dcmtk(file: Path, folder: Path) -> None:
    folder.mkdir()
    port = find_free_port()
    server = subprocess.Popen([require_tool("storescp"), "-od", folder, str(port)])
    try:
        echo = [require_tool("echoscu"), "127.0.0.1", str(port)]
        wait_until(
            lambda: subprocess.run(echo, check=False, capture_output=True).returncode == 0,
            "storescp answers",
        )
        subprocess.run([require_tool("dcmsend"), "127.0.0.1", str(port), file], check=True)
        assert len(list(folder.iterdir())) == 1
    finally:
        server.terminate()
        server.wait(timeout=20)
