"""Destinations outside the trust boundary: what arrives there does not say who the patient is."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from tests.orthanc import Orthanc
from tests.results.archive import scripted_archive
from tests.results.detections import detection, detector_manifest
from tests.results.fhir import notices
from tests.results.fhir.server import fhir_server
from tests.results.outbox_scenes import (
    claim,
    finish,
    history,
    last_errors,
    receive,
    register,
    states,
)
from tests.results.scenes import build, chest_analysis, chest_manifest, run_tool, write_chest
from tests.tools import ManualClock
from triage.core.runs import DeliveryState
from triage.core.withdrawals import WithdrawalReason
from triage.deidentification.pseudonyms import Pseudonyms, site_key
from triage.results.build import BuiltObject
from triage.results.delivery.rounds import deliver_next
from triage.results.delivery.ways import send_notice
from triage.results.withdrawal import withdraw_next
from triage.settings import (
    Destination,
    DicomDestination,
    FolderDestination,
    Settings,
    SettingsError,
    load_settings,
)
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.withdrawals import record_withdrawal

ALL = ["sr", "secondary-capture", "presentation-state", "pdf", "key-objects"]


def outside(port: int, **changes: object) -> DicomDestination:
    """An archive of a research project."""
    values = {"name": "research", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}
    return DicomDestination.model_validate(values | {"deidentify": "basic"} | changes)


class Scene:
    """A chest radiograph whose results wait for their destinations."""

    def __init__(
        self,
        database: Database,
        files: InstanceFiles,
        clock: ManualClock,
        folder: Path,
        *to: Destination,
    ) -> None:
        self.file = write_chest(folder / "in")
        self.database, self.files, self.clock = database, files, clock
        self.settings = Settings(data_directory=folder / "data", destinations=to)
        manifest, analysis = chest_manifest(), chest_analysis(self.file)
        register(database, manifest, clock)
        receive(database, self.file, clock)
        self.built: tuple[BuiltObject, ...] = build(analysis, manifest)
        self.run = claim(database, clock)
        finish(database, files, self.run, analysis, self.built, clock=clock, to=to)

    def deliver_all(self) -> None:
        """Carry out all that is due."""
        while deliver_next(self.database, self.settings, self.files, self.clock, lambda: 0.5):
            pass


def test_an_archive_outside_gets_reports_without_identity_and_one_inside_all(
    running_orthanc: Orthanc,
    sqlite_database: Database,
    files: InstanceFiles,
    clock: ManualClock,
    tmp_path: Path,
) -> None:
    with scripted_archive() as inside:
        scene = Scene(
            sqlite_database,
            files,
            clock,
            tmp_path,
            outside(running_orthanc.dicom_port),
            inside.settings(),
        )
        scene.deliver_all()
    report, picture = (each.dataset for each in scene.built)
    assert inside.received == [report.SOPInstanceUID, picture.SOPInstanceUID]
    pseudonyms = Pseudonyms(site_key(tmp_path / "data"), "research")
    content = running_orthanc.file_of(pseudonyms.uid(report.SOPInstanceUID))
    stored = pydicom.dcmread(BytesIO(content))
    assert stored.PatientIdentityRemoved == "YES"
    assert stored.StudyInstanceUID == pseudonyms.uid(report.StudyInstanceUID)
    for identity in (
        report.StudyInstanceUID,
        report.SeriesInstanceUID,
        report.SOPInstanceUID,
        scene.file.stem,
        "Muster",
        "Anna",
        "P-17",
        "A-99",
        "Haus",
        "19500201",
        "20260301",
        "Chest PA",
    ):
        assert str(identity).encode() not in content, identity
    assert b"Pneumothorax" in content
    assert history(sqlite_database, "withheld") == [
        "HEAT-MAP not for research, which gets nothing that says who the patient is: text may be "
        "burnt into it"
    ]
    assert states(sqlite_database) == [DeliveryState.DELIVERED] * 3


def test_a_picture_that_was_queued_before_is_refused_with_the_reason(
    sqlite_database: Database, files: InstanceFiles, clock: ManualClock, tmp_path: Path
) -> None:
    with scripted_archive() as archive:
        scene = Scene(
            sqlite_database,
            files,
            clock,
            tmp_path,
            outside(archive.port, deidentify="none"),
        )
        scene.settings = Settings(
            data_directory=tmp_path / "data", destinations=(outside(archive.port),)
        )
        scene.deliver_all()
    assert len(archive.received) == 1
    assert states(sqlite_database) == [DeliveryState.DELIVERED, DeliveryState.DEAD]
    assert last_errors(sqlite_database)[1] == (
        "not sent to research, which gets nothing that says who the patient is: its pixels have "
        "text burnt in (0028,0301), which may say who the patient is"
    )


def test_a_withdrawal_leaves_without_the_words_of_the_person(
    sqlite_database: Database, files: InstanceFiles, clock: ManualClock, tmp_path: Path
) -> None:
    there = tmp_path / "outside"
    there.mkdir()
    folder = FolderDestination(name="research", kind="folder", path=there, deidentify="basic")
    scene = Scene(sqlite_database, files, clock, tmp_path, folder)
    scene.deliver_all()
    with sqlite_database.transaction() as session:
        record_withdrawal(
            session,
            scene.run.run_id,
            who="Xi",
            reason=WithdrawalReason.OTHER,
            text="belongs to Anna Muster",
            now=clock(),
        )
    assert withdraw_next(sqlite_database, scene.settings, files, clock)
    scene.deliver_all()
    assert set(states(sqlite_database)) == {DeliveryState.DELIVERED}
    arrived = [pydicom.dcmread(file) for file in there.rglob("*.dcm")]
    notes = {str(d.SOPClassUID.name): d for d in arrived}
    assert len(arrived) == 3
    said = "".join(map(str, arrived))
    for identity in ("Xi", "belongs", "Anna", "Muster", "P-17", scene.file.stem):
        assert identity not in said, identity
    note = notes["Key Object Selection Document Storage"]
    rejected = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in note.ContentSequence
        if "ReferencedSOPSequence" in item
    ]
    report = scene.built[0].dataset.SOPInstanceUID
    pseudonyms = Pseudonyms(site_key(tmp_path / "data"), "research")
    assert pseudonyms.uid(report) in rejected
    assert pseudonyms.uid(report) in {d.SOPInstanceUID for d in arrived}


def test_key_objects_that_leave_name_no_picture_that_stays(
    sqlite_database: Database, files: InstanceFiles, clock: ManualClock, tmp_path: Path
) -> None:
    there = tmp_path / "outside"
    there.mkdir()
    folder = FolderDestination(name="research", kind="folder", path=there, deidentify="basic")
    source = write_chest(tmp_path / "in")
    manifest, analysis = detector_manifest(results={"objects": ALL}), detection(source)
    register(sqlite_database, manifest, clock)
    receive(sqlite_database, source, clock)
    built = build(analysis, manifest)
    run = claim(sqlite_database, clock)
    finish(sqlite_database, files, run, analysis, built, clock=clock, to=(folder,))
    settings = Settings(data_directory=tmp_path / "data", destinations=(folder,))
    while deliver_next(sqlite_database, settings, files, clock, lambda: 0.5):
        pass
    arrived = {str(d.Modality): d for d in map(pydicom.dcmread, there.rglob("*.dcm"))}
    assert set(arrived) == {"SR", "PR", "KO"}
    pseudonyms = Pseudonyms(site_key(tmp_path / "data"), "research")
    uids = {each.role: pseudonyms.uid(each.dataset.SOPInstanceUID) for each in built}
    image = pseudonyms.uid(analysis.source_sop_instance_uids[0])
    selection = arrived["KO"]
    named = [str(e.value) for e in selection.iterall() if e.keyword == "ReferencedSOPInstanceUID"]
    assert {image, uids["presentation-state"]} == set(named)
    assert uids["secondary-capture"] not in named
    file = next(f for f in there.rglob("*.dcm") if pydicom.dcmread(f).Modality == "KO")
    assert run_tool("dciodvfy", "-new", file).errors() == []
    assert run_tool("dsrdump", file).errors() == []


def test_notices_to_the_outside_name_nobody(tmp_path: Path) -> None:
    settings = Settings(data_directory=tmp_path)
    with fhir_server() as server:
        there = notices.destination(server.url, deidentify="basic")
        for notice in (notices.result(), notices.change_by_person(), notices.withdrawal()):
            send_notice(notice, there, settings)
        said = str(server.stored)
    # The digits of a pseudonym are as good as random: a year may be among them.
    in_words = re.sub(r"2\.25\.\d+", "", said)
    pseudonyms = Pseudonyms(site_key(tmp_path), "record")
    assert pseudonyms.patient_id("P-17", "") in said
    assert pseudonyms.uid(notices.STUDY.study_instance_uid) in said
    assert "entered-in-error" in said
    for identity in (
        "P-17",
        "Muster",
        "Anna",
        "1950",
        "A-99",
        "2026",
        "dr.haus",
        "another patient",
        "known hemorrhage",
        "without contrast",
    ):
        assert identity not in in_words, identity
    for uid in (
        notices.STUDY.study_instance_uid,
        notices.RUN.source_series_uid,
        "2.25.10'",
        "2.25.21'",
    ):
        assert uid not in said, uid


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('retain = ["uids"]', "retain is for deidentify = 'basic'"),
        ('deidentify = "basic"\nstorage_commitment = true', "has other UIDs there"),
        ('deidentify = "full"', "deidentify"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toml: str, words: str
) -> None:
    file = tmp_path / "triage.toml"
    file.write_text(
        '[[destinations]]\nname = "research"\nae_title = "A"\nhost = "h"\nport = 104\n' + toml
    )
    monkeypatch.setenv("TRIAGE_CONFIG", str(file))
    with pytest.raises(SettingsError, match=words):
        load_settings()
