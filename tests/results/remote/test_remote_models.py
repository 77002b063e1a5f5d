"""A model of others: images go to it without identity, and its results come back with it.

DCMTK's storescp takes the images and dcmsend sends the results; between them our own builder
stands for the other's model, which knows nothing but what it was sent.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from fastapi.testclient import TestClient
from pydicom.dataset import Dataset
from sqlalchemy import select

from tests.receiver.conftest import port_of, receiver_settings, send
from tests.results.archive import scripted_archive
from tests.results.outbox_scenes import history
from tests.results.scenes import build, by_position, head_analysis, head_manifest, run_tool, save
from tests.results.web_server import web_server
from tests.tools import ManualClock, find_free_port, require_tool, wait_until
from triage.core.priority import Priority
from triage.core.remote import RemoteState, ReturnedState
from triage.core.runs import StudyState
from triage.receiver import Receiver
from triage.results.delivery.rounds import deliver_next
from triage.results.remote.returning import take_back_next
from triage.results.remote.sending import send_next
from triage.settings import RemoteModelSettings, Settings, SettingsError
from triage.store.clock import system_clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.tables import (
    InstanceRow,
    PatientRow,
    PriorityEventRow,
    RemoteAnalysisRow,
    ReturnedObjectRow,
    SeriesRow,
    StudyRow,
)
from triage.web.app import create_app

IDENTITY = {
    "PatientName": "Muster^Anna",
    "PatientID": "P-4711-X",
    "PatientBirthDate": "19500201",
    "PatientSex": "F",
    "AccessionNumber": "ACC-0815-Y",
    "StudyID": "STUDY-42",
    "StudyDate": "20260301",
    "ReferringPhysicianName": "Haus^Gregor",
    "StudyDescription": "CT head of Anna",
}
ROLES = ("seg", "sr")


class Vendor:
    """What runs somewhere else: a storescp that writes what it gets, and a dcmsend."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.port = find_free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Listen."""
        arguments = ["-aet", "VENDOR", "-od", str(self.folder), str(self.port)]
        self._process = subprocess.Popen([require_tool("storescp"), *arguments])
        wait_until(self._answers, "storescp answers")

    def _answers(self) -> bool:
        echo = [require_tool("echoscu"), "-aec", "VENDOR", "127.0.0.1", str(self.port)]
        return subprocess.run(echo, check=False, capture_output=True).returncode == 0

    def stop(self) -> None:
        """End."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def images(self) -> tuple[Path, ...]:
        """Return what it got, from the feet to the head."""
        return by_position(sorted(self.folder.iterdir()))

    def send(self, receiver: Receiver, *files: Path) -> None:
        """Send its results."""
        address = ["127.0.0.1", str(port_of(receiver))]
        run = [require_tool("dcmsend"), "-aet", "VENDOR-RES", "-aec", "TRIAGE", *address]
        subprocess.run([*run, *map(str, files)], check=True)


class Hospital:
    """A receiver, what it has stored, and the rounds that a worker makes."""

    def __init__(self, database: Database, files: InstanceFiles, settings: Settings) -> None:
        self.database, self.files, self.settings = database, files, settings
        self.clock: Any = system_clock
        self.receiver = Receiver(settings, database, files)
        self.receiver.start()

    @property
    def model(self) -> RemoteModelSettings:
        """The remote model."""
        return self.settings.remote_models[0]

    def take_in(self, datasets: Sequence[Dataset]) -> None:
        """Receive a study and wait until it is complete."""
        assert {int(s.Status) for s in send(self.receiver, *datasets, calling="CT1")} == {0}
        wait_until(lambda: self.study_state() is StudyState.COMPLETE, "the study is complete")

    def study_state(self) -> StudyState:
        """Return the state of the only study."""
        with self.database.reading() as session:
            return session.scalars(select(StudyRow.state)).one()

    def ask(self) -> bool:
        """Route, and send what waits."""
        return send_next(self.database, self.settings, self.files, self.clock, self.model)

    def take_back(self) -> None:
        """Take in what came back."""
        while take_back_next(self.database, self.settings, self.files, self.clock):
            pass

    def deliver(self) -> None:
        """Send results to the archives."""
        while deliver_next(self.database, self.settings, self.files, self.clock, lambda: 0.5):
            pass

    def analysis(self) -> RemoteAnalysisRow:
        """Return what the remote model was asked."""
        with self.database.reading() as session:
            return session.scalars(select(RemoteAnalysisRow)).one()

    def returned(self) -> list[tuple[ReturnedState, str]]:
        """Return what became of what came back."""
        with self.database.reading() as session:
            rows = session.scalars(select(ReturnedObjectRow).order_by(ReturnedObjectRow.id))
            return [(row.state, row.said) for row in rows]

    def results(self) -> dict[str, Dataset]:
        """Return the result objects of the study, by modality."""
        with self.database.reading() as session:
            rows = session.execute(
                select(SeriesRow.modality, InstanceRow.path)
                .join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
                .where(SeriesRow.is_result)
            )
            return {m: pydicom.dcmread(self.files.absolute(path)) for m, path in rows}


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[Vendor]:
    vendor = Vendor(tmp_path / "vendor")
    yield vendor
    vendor.stop()


@pytest.fixture
def archive() -> Iterator[Any]:
    with scripted_archive() as archive:
        yield archive


HEMORRHAGE = {"value": "1386000", "scheme": "SCT", "meaning": "Intracranial hemorrhage"}
FINDINGS = ({"key": "hemorrhage", "code": HEMORRHAGE, "priority": "stat"},)


@pytest.fixture
def hospital(
    request: pytest.FixtureRequest,
    sqlite_database: Database,
    files: InstanceFiles,
    tmp_path: Path,
    vendor: Vendor,
) -> Iterator[Hospital]:
    """A hospital with a remote model; the fixture's parameter is what is else said of it."""
    archive = request.getfixturevalue("archive")
    remote = {"name": "vendor", "ae_title": "VENDOR", "host": "127.0.0.1", "port": vendor.port}
    model = {
        "name": "bleed-finder",
        "remote": "vendor",
        "accepts": {"modalities": ["CT"], "images": {"minimum": 3}},
        "results_from": "VENDOR-RES",
        "retain": ["modified-dates"],
        "results": len(ROLES),
        **getattr(request, "param", {}),
    }
    settings = receiver_settings(
        tmp_path / "data",
        remotes=[remote | {"timeout_s": 10}],
        sections={"remote_models": (model,), "destinations": (archive.settings(),)},
    )
    hospital = Hospital(sqlite_database, files, settings)
    yield hospital
    hospital.receiver.stop()


@pytest.fixture
def head(head_files: tuple[Path, ...], tmp_path: Path) -> tuple[Path, ...]:
    """Fourteen slices of a head CT of somebody."""
    folder = tmp_path / "head"
    folder.mkdir()
    for file in head_files[:14]:
        dataset = pydicom.dcmread(file)
        for keyword, value in IDENTITY.items():
            setattr(dataset, keyword, value)
        dataset.save_as(folder / file.name)
    return by_position(sorted(folder.iterdir()))


def datasets(files: Sequence[Path]) -> list[Dataset]:
    return [pydicom.dcmread(file) for file in files]


def referenced(dataset: Dataset) -> set[str]:
    """Return all instance UIDs that `dataset` refers to, and its frame of reference."""
    keywords = ("ReferencedSOPInstanceUID", "FrameOfReferenceUID", "StudyInstanceUID")
    return {str(e.value) for e in dataset.iterall() if e.keyword in keywords}


def test_results_come_back_as_if_the_images_had_never_been_without_identity(
    hospital: Hospital, vendor: Vendor, archive: Any, head: tuple[Path, ...], tmp_path: Path
) -> None:
    vendor.start()
    hospital.take_in(datasets(head))
    assert hospital.ask()
    assert not hospital.ask()
    assert hospital.analysis().state is RemoteState.SENT

    originals = datasets(head)
    identifying = {v for v in IDENTITY.values() if v != "F"} | {"Muster", "Anna", "Haus"}
    for original in originals:
        identifying |= {original.SOPInstanceUID, original.FrameOfReferenceUID}
    identifying |= {originals[0].StudyInstanceUID, originals[0].SeriesInstanceUID}
    for file in vendor.images():
        content = file.read_bytes()
        for value in identifying:
            assert str(value).encode() not in content, value

    theirs = [b for b in build(head_analysis(vendor.images()), head_manifest()) if b.role in ROLES]
    vendor.send(hospital.receiver, *save(theirs, tmp_path / "theirs").values())
    assert hospital.returned() == [(ReturnedState.WAITING, "")] * 2
    hospital.take_back()
    assert hospital.returned() == [(ReturnedState.TAKEN, "")] * 2
    assert hospital.analysis().state is RemoteState.ANSWERED

    ours = {b.role: b.dataset for b in build(head_analysis(head), head_manifest())}
    found = hospital.results()
    for modality, role in (("SEG", "seg"), ("SR", "sr")):
        for keyword in IDENTITY:
            assert found[modality].get(keyword) == ours[role].get(keyword), keyword
        own = {str(each.dataset.SOPInstanceUID) for each in theirs}
        expected = {str(each.SOPInstanceUID) for each in ours.values()}
        assert referenced(found[modality]) - own == referenced(ours[role]) - expected
        assert "PatientIdentityRemoved" not in found[modality]
        assert b"ANON-" not in found[modality].to_json().encode()
    assert found["SEG"].PixelData == ours["seg"].PixelData
    assert not run_tool("dciodvfy", "-new", _saved(found["SEG"], tmp_path)).errors()

    hospital.deliver()
    assert sorted(archive.received) == sorted(str(e.dataset.SOPInstanceUID) for e in theirs)
    assert history(hospital.database, "remote") == [
        "14 images sent to bleed-finder, without identity",
        "SEG came from bleed-finder",
        "SR came from bleed-finder",
    ]
    with hospital.database.reading() as session:
        assert session.scalars(select(StudyRow.study_instance_uid)).all() == [
            originals[0].StudyInstanceUID
        ]
        assert session.scalars(select(PatientRow.patient_id)).all() == ["P-4711-X"]


def _saved(dataset: Dataset, folder: Path) -> Path:
    file = folder / "saved.dcm"
    dataset.save_as(file, enforce_file_format=True)
    return file


def test_what_comes_back_under_an_unknown_pseudonym_is_quarantined(
    hospital: Hospital, vendor: Vendor, head: tuple[Path, ...], tmp_path: Path
) -> None:
    vendor.start()
    hospital.take_in(datasets(head))
    hospital.ask()
    theirs = build(head_analysis(vendor.images()), head_manifest())[:2]
    files = save(theirs, tmp_path / "theirs")
    for role, keyword, value in (
        ("seg", "StudyInstanceUID", "2.25.1"),
        ("sr", "PatientID", "ANON-OTHER"),
    ):
        changed = pydicom.dcmread(files[role])
        setattr(changed, keyword, value)
        changed.save_as(files[role])
    echoed = vendor.images()[0]
    vendor.send(hospital.receiver, *files.values(), echoed)
    hospital.take_back()
    assert {said for state, said in hospital.returned()} == {
        "its Study Instance UID is no pseudonym that bleed-finder was given",
        "its Patient ID is 'ANON-OTHER', which is not the pseudonym of the study's patient",
        "its SOP Instance UID is that of an image that was sent",
    }
    assert {state for state, _ in hospital.returned()} == {ReturnedState.QUARANTINED}
    assert hospital.results() == {}
    assert hospital.analysis().state is RemoteState.SENT
    with hospital.database.reading() as session:
        assert len(session.scalars(select(StudyRow.id)).all()) == 1


def test_results_of_images_that_retention_took_meanwhile_still_find_their_patient(
    hospital: Hospital, vendor: Vendor, head: tuple[Path, ...], tmp_path: Path
) -> None:
    vendor.start()
    hospital.take_in(datasets(head))
    hospital.ask()
    theirs = build(head_analysis(vendor.images()), head_manifest())[:1]
    with hospital.database.transaction() as session:
        for row in session.scalars(select(InstanceRow)):
            row.path = ""
    vendor.send(hospital.receiver, *save(theirs, tmp_path / "theirs").values())
    hospital.take_back()
    assert hospital.returned() == [(ReturnedState.TAKEN, "")]
    found = hospital.results()["SEG"]
    kept = set(IDENTITY) - {"StudyID", "ReferringPhysicianName"}
    assert {keyword: str(found[keyword].value) for keyword in kept} == {
        keyword: IDENTITY[keyword] for keyword in kept
    }
    assert found.StudyInstanceUID == pydicom.dcmread(head[0]).StudyInstanceUID
    assert hospital.analysis().state is RemoteState.SENT  # one of two objects


def test_a_remote_that_is_away_or_silent_shows_and_delays_nothing(
    hospital: Hospital, vendor: Vendor, head: tuple[Path, ...]
) -> None:
    hospital.take_in(datasets(head))
    clock = ManualClock()
    clock.now = system_clock()
    hospital.clock = clock
    assert hospital.ask()
    assert hospital.analysis().state is RemoteState.WAITING
    assert "vendor" in hospital.analysis().said
    assert hospital.study_state() is StudyState.COMPLETE
    vendor.start()
    clock.advance(10)
    assert hospital.ask()
    assert hospital.analysis().state is RemoteState.SENT
    clock.advance(3601)
    assert not hospital.ask()
    assert hospital.analysis().state is RemoteState.UNANSWERED
    assert history(hospital.database, "remote")[-1].startswith("bleed-finder: no answer since")


def test_a_study_that_it_does_not_accept_is_not_sent(
    hospital: Hospital, vendor: Vendor, head: tuple[Path, ...]
) -> None:
    hospital.take_in(datasets(head[:2]))
    assert not hospital.ask()
    assert hospital.analysis().state is RemoteState.REFUSED
    assert history(hospital.database, "remote")[0].startswith("not for bleed-finder: series")
    assert list(vendor.folder.iterdir()) == []


def test_images_with_text_burnt_in_stay_here(
    hospital: Hospital, vendor: Vendor, head: tuple[Path, ...]
) -> None:
    vendor.start()
    images = datasets(head)
    images[-1].BurnedInAnnotation = "YES"
    hospital.take_in(images)
    hospital.ask()
    assert hospital.analysis().state is RemoteState.FAILED
    assert "text burnt in" in hospital.analysis().said


def answer(
    hospital: Hospital, vendor: Vendor, head: tuple[Path, ...], folder: Path, **changes: Any
) -> None:
    """Let the remote model find hemorrhage and take its report, with `changes`, back."""
    vendor.start()
    hospital.take_in(datasets(head))
    hospital.ask()
    built = build(head_analysis(vendor.images()), head_manifest())
    report = next(each.dataset for each in built if each.role == "sr")
    for keyword, value in changes.items():
        setattr(report, keyword, value)
    report.save_as(folder / "theirs.dcm", enforce_file_format=True)
    vendor.send(hospital.receiver, folder / "theirs.dcm")
    hospital.take_back()
    assert hospital.returned() == [(ReturnedState.TAKEN, "")]


def priority(hospital: Hospital) -> tuple[Priority, str]:
    """Return how urgent the only study is, and why."""
    with hospital.database.reading() as session:
        study = session.scalars(select(StudyRow)).one()
        return study.priority, study.ai_reason


@pytest.mark.parametrize("hospital", [{"stage": "production", "findings": FINDINGS}], indirect=True)
def test_what_a_remote_model_in_production_finds_raises_the_study(
    hospital: Hospital, vendor: Vendor, head: tuple[Path, ...], tmp_path: Path
) -> None:
    answer(hospital, vendor, head, tmp_path)
    said = "Intracranial hemorrhage, confidence 0.97"
    assert priority(hospital) == (Priority.STAT, f"{said}, bleed-finder")
    assert f"bleed-finder: {said}" in history(hospital.database, "remote")
    assert history(hospital.database, "flagged") == [f"{said}, bleed-finder"]
    with hospital.database.reading() as session:
        event = session.scalars(
            select(PriorityEventRow).order_by(PriorityEventRow.id.desc()).limit(1)
        ).one()
    assert (event.source, event.before, event.after) == ("ai", Priority.ROUTINE, Priority.STAT)


@pytest.mark.parametrize("hospital", [{"findings": FINDINGS}], indirect=True)
def test_what_a_remote_model_in_shadow_finds_moves_nothing(
    hospital: Hospital, vendor: Vendor, head: tuple[Path, ...], tmp_path: Path
) -> None:
    answer(hospital, vendor, head, tmp_path)
    assert priority(hospital) == (Priority.ROUTINE, "")
    assert "SR" in hospital.results()


@pytest.mark.parametrize("hospital", [{"stage": "production", "findings": FINDINGS}], indirect=True)
def test_a_report_that_cannot_be_read_moves_nothing_and_says_why(
    hospital: Hospital, vendor: Vendor, head: tuple[Path, ...], tmp_path: Path
) -> None:
    answer(hospital, vendor, head, tmp_path, CompletionFlag="PARTIAL")
    assert priority(hospital) == (Priority.ROUTINE, "")
    assert history(hospital.database, "remote")[-1] == (
        "the findings in the report of bleed-finder are not read: its Completion Flag (0040,A491) "
        "is 'PARTIAL', not COMPLETE"
    )
    assert "SR" in hospital.results()


def test_a_remote_model_is_asked_and_answers_by_stow_rs(
    sqlite_database: Database,
    files: InstanceFiles,
    tmp_path: Path,
    head: tuple[Path, ...],
) -> None:
    with web_server() as server:
        model = {
            "name": "bleed-finder",
            "stow": {"url": f"{server.url}/dicom-web", "authorization": "Bearer out"},
            "accepts": {"modalities": ["CT"], "images": {"minimum": 3}},
            "results_from": "VENDOR-RES",
            "results_authorization": "Bearer back",
        }
        settings = receiver_settings(
            tmp_path / "data",
            sections={"remote_models": (model,), "stow": {"authorization": "Bearer hospital"}},
        )
        hospital = Hospital(sqlite_database, files, settings)
        hospital.take_in(datasets(head))
        assert hospital.ask()
        hospital.receiver.stop()
    assert hospital.analysis().state is RemoteState.SENT
    assert len(server.requests) == len(head)
    assert {r.headers["authorization"] for r in server.requests} == {"Bearer out"}
    folder = tmp_path / "vendor-got"
    folder.mkdir()
    for number, request in enumerate(server.requests):
        assert b"Muster" not in request.body
        part = request.body.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]
        (folder / f"{number}.dcm").write_bytes(part)
    images = by_position(sorted(folder.iterdir()))
    built = build(head_analysis(images), head_manifest())
    [theirs] = [each.dataset for each in built if each.role == "seg"]
    content = BytesIO()
    theirs.save_as(content, enforce_file_format=True)
    body = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + content.getvalue() + b"\r\n--x--"
    kind = 'multipart/related; type="application/dicom"; boundary=x'
    app = create_app(settings, sqlite_database, files, system_clock)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        for token, status in (("Bearer wrong", 401), ("Bearer back", 200)):
            headers = {"Authorization": token, "Content-Type": kind}
            answer = client.post("/dicom-web/studies", content=body, headers=headers)
            assert answer.status_code == status, answer.text
        reading = client.get("/dicom-web/studies", headers={"Authorization": "Bearer back"})
        assert reading.status_code == 401  # it may bring results, and see nothing
    hospital.take_back()
    assert hospital.returned() == [(ReturnedState.TAKEN, "")]
    assert hospital.results()["SEG"].PatientID == "P-4711-X"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stow": {"url": "https://h"}}, "set one of the two"),
        ({"stage": "production"}, "needs findings"),
        ({"findings": FINDINGS * 2}, "needs its own key"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    model = {"name": "m", "remote": "v", "accepts": {"modalities": ["CT"]}, "results_from": "V"}
    remote = {"name": "v", "ae_title": "V", "host": "h", "port": 104}
    with pytest.raises(SettingsError, match=words):
        receiver_settings(
            tmp_path, remotes=[remote], sections={"remote_models": (model | changes,)}
        )


def test_a_remote_model_needs_a_remote(tmp_path: Path) -> None:
    model = {"name": "m", "remote": "nobody", "accepts": {"modalities": ["CT"]}}
    with pytest.raises(SettingsError, match="there is no 'nobody' in \\[\\[remotes\\]\\]"):
        receiver_settings(
            tmp_path, sections={"remote_models": (model | {"results_from": "VENDOR"},)}
        )
