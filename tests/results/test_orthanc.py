"""Deliveries into a real archive."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom

from tests.orthanc import Orthanc
from tests.results.modalities import ALL_KINDS, SOURCES, analysis_of, manifest_of_all_kinds
from tests.results.outbox_scenes import claim, finish, receive, register, states
from tests.results.scenes import (
    PRODUCED_AT,
    build,
    head_analysis,
    head_manifest,
    study_uid_of,
)
from tests.tools import ManualClock
from triage.core.runs import DeliveryState
from triage.core.segmentation import SegmentationForm
from triage.results.build import BuiltObject, build_results
from triage.results.delivery.rounds import deliver_next
from triage.settings import DicomDestination, ResultSettings, Settings
from triage.store.database import Database
from triage.store.files import InstanceFiles


def _settings(orthanc: Orthanc) -> Settings:
    archive = DicomDestination(
        name="archive", ae_title=orthanc.ae_title, host="127.0.0.1", port=orthanc.dicom_port
    )
    return Settings(destinations=(archive,))


def _put_in_outbox(
    database: Database,
    files: InstanceFiles,
    clock: ManualClock,
    head_files: tuple[Path, ...],
    **settings: str,
) -> tuple[BuiltObject, ...]:
    manifest, analysis = head_manifest(), head_analysis(head_files)
    register(database, manifest, clock)
    receive(database, head_files[0], clock)
    built = build(analysis, manifest, **settings)
    finish(database, files, claim(database, clock), analysis, built, clock=clock)
    return built


def _uids(built: tuple[BuiltObject, ...]) -> list[str]:
    return [str(each.dataset.SOPInstanceUID) for each in built]


def test_results_wait_for_an_archive_that_is_down_and_arrive_once_and_in_order(
    orthanc: Orthanc,
    sqlite_database: Database,
    files: InstanceFiles,
    clock: ManualClock,
    head_files: tuple[Path, ...],
) -> None:
    built = _put_in_outbox(sqlite_database, files, clock, head_files)
    settings = _settings(orthanc)

    def deliver() -> bool:
        return deliver_next(sqlite_database, settings, files, clock, lambda: 0.5)

    for _ in range(3):  # the SEG is tried in vain; the SR does not overtake it
        assert deliver()
        assert not deliver()
        clock.advance(60)
    orthanc.start()
    while deliver():
        pass
    assert states(sqlite_database) == [DeliveryState.DELIVERED] * 3
    assert orthanc.sop_instance_uids() == _uids(built)


def test_delivered_results_are_found_by_qido_as_they_were_sent(
    running_orthanc: Orthanc,
    sqlite_database: Database,
    files: InstanceFiles,
    clock: ManualClock,
    head_files: tuple[Path, ...],
) -> None:
    built = _put_in_outbox(sqlite_database, files, clock, head_files)
    while deliver_next(sqlite_database, _settings(running_orthanc), files, clock, lambda: 0.5):
        pass
    study = str(built[0].dataset.StudyInstanceUID)
    series = running_orthanc.get(f"/dicom-web/studies/{study}/series")
    found = {each["00080060"]["Value"][0]: each["0008103E"]["Value"][0] for each in series}
    description = "AI: Intracranial hemorrhage (head-ct-hemorrhage 1.0.0)"
    assert found == dict.fromkeys(("SEG", "SR", "OT"), description)
    for each in built:
        content = running_orthanc.file_of(str(each.dataset.SOPInstanceUID))
        stored = pydicom.dcmread(BytesIO(content))
        assert stored.file_meta.TransferSyntaxUID == each.dataset.file_meta.TransferSyntaxUID
        if "PixelData" in each.dataset:
            assert np.array_equal(stored.pixel_array, each.dataset.pixel_array)


def test_a_compressed_label_map_is_stored_as_sent(
    orthanc: Orthanc,
    sqlite_database: Database,
    files: InstanceFiles,
    clock: ManualClock,
    head_files: tuple[Path, ...],
) -> None:
    built = _put_in_outbox(sqlite_database, files, clock, head_files, segmentation_type="LABELMAP")
    orthanc.start()
    while deliver_next(sqlite_database, _settings(orthanc), files, clock, lambda: 0.5):
        pass
    assert states(sqlite_database) == [DeliveryState.DELIVERED] * 3
    stored = pydicom.dcmread(BytesIO(orthanc.file_of(_uids(built)[0])))
    assert stored.SegmentationType == "LABELMAP"
    assert np.array_equal(stored.pixel_array, built[0].dataset.pixel_array)


def test_every_kind_of_object_is_taken_as_it_is_encoded(
    running_orthanc: Orthanc,
    sqlite_database: Database,
    files: InstanceFiles,
    clock: ManualClock,
    tmp_path: Path,
) -> None:
    images = SOURCES["CT, oblique series"](tmp_path / "source")
    manifest, analysis = manifest_of_all_kinds(), analysis_of(images)
    register(sqlite_database, manifest, clock)
    receive(sqlite_database, images.files[0], clock)
    built = build_results(
        analysis,
        manifest,
        study_instance_uid=study_uid_of(analysis),
        settings=ResultSettings(compressed=True),
        produced_at=PRODUCED_AT,
        variants=[SegmentationForm("FRACTIONAL", compressed=True)],
    )
    (usual,) = _settings(running_orthanc).destinations
    asked = {"name": "other", "segmentation_type": "FRACTIONAL", "compressed": True}
    to = (usual, usual.model_copy(update=asked))
    run = claim(sqlite_database, clock)
    finish(sqlite_database, files, run, analysis, built, clock=clock, to=to)
    settings = Settings(destinations=to)
    for each in built:  # other tests send it the same objects in another encoding
        running_orthanc.forget(str(each.dataset.SOPInstanceUID))
    while deliver_next(sqlite_database, settings, files, clock, lambda: 0.5):
        pass
    assert set(states(sqlite_database)) == {DeliveryState.DELIVERED}
    assert {each.role for each in built} == set(ALL_KINDS)
    for each in built:
        sent = BytesIO()
        each.dataset.save_as(sent, enforce_file_format=True)
        stored = pydicom.dcmread(BytesIO(running_orthanc.file_of(str(each.dataset.SOPInstanceUID))))
        assert stored.file_meta.TransferSyntaxUID == each.dataset.file_meta.TransferSyntaxUID
        assert stored == pydicom.dcmread(BytesIO(sent.getvalue()))
