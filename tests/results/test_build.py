"""The same analysis is the same objects."""

from __future__ import annotations

import dataclasses
import logging
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest

from tests.results.scenes import (
    build,
    chest_analysis,
    chest_manifest,
    head_manifest,
    study_uid_of,
    write_chest,
)
from triage.core.analysis import Analysis
from triage.results.build import BuiltObject, build_results, store_results
from triage.results.errors import ResultError
from triage.settings import ResultSettings
from triage.store.files import InstanceFiles


def _uids(built: tuple[BuiltObject, ...]) -> list[tuple[str, str, str]]:
    return [
        (e.role, str(e.dataset.SeriesInstanceUID), str(e.dataset.SOPInstanceUID)) for e in built
    ]


def test_objects_come_in_order_of_delivery(head_results: tuple[BuiltObject, ...]) -> None:
    assert [each.role for each in head_results] == ["seg", "sr", "heat-map"]


def test_the_same_analysis_has_the_same_uids_at_another_time(
    head: Analysis, head_results: tuple[BuiltObject, ...]
) -> None:
    again = build_results(
        head,
        head_manifest(),
        study_instance_uid=study_uid_of(head),
        settings=ResultSettings(),
        produced_at=datetime(2031, 5, 6, tzinfo=UTC),
    )
    assert _uids(again) == _uids(head_results)
    assert again[0].dataset.ContentDate.startswith(("2031", "20310505"))
    seg, first = again[0].dataset, head_results[0].dataset
    assert seg.DimensionOrganizationSequence == first.DimensionOrganizationSequence


@pytest.mark.parametrize("change", ["version", "name", "input"])
def test_another_run_has_other_uids(tmp_path: Path, change: str) -> None:
    analysis = chest_analysis(write_chest(tmp_path))
    first = build(analysis, chest_manifest())
    if change == "input":
        other = build(dataclasses.replace(analysis, input_sha256="f" * 64), chest_manifest())
    else:
        changes = {"version": "2.1.1"} if change == "version" else {"name": "chest-ct"}
        other = build(analysis, chest_manifest(**changes))
    assert not {uid for _, *uids in _uids(first) for uid in uids} & {
        uid for _, *uids in _uids(other) for uid in uids
    }


def test_at_the_same_moment_the_same_bytes(tmp_path: Path) -> None:
    analysis = chest_analysis(write_chest(tmp_path / "in"))
    files = InstanceFiles(tmp_path / "data")
    first = store_results(files, build(analysis, chest_manifest()))
    second = store_results(files, build(analysis, chest_manifest()))
    assert [new.file for new in first] == [new.file for new in second]


def test_stored_objects_can_be_indexed(
    head_results: tuple[BuiltObject, ...], tmp_path: Path
) -> None:
    files = InstanceFiles(tmp_path)
    for new, built in zip(store_results(files, head_results), head_results, strict=True):
        read = pydicom.dcmread(files.absolute(new.file.path))
        assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID
        assert read.SOPInstanceUID == new.sop_instance_uid == built.dataset.SOPInstanceUID
        assert read.file_meta.TransferSyntaxUID == new.transfer_syntax_uid
        assert (
            read.Modality == new.modality == {"seg": "SEG", "sr": "SR", "heat-map": "OT"}[new.role]
        )
        assert new.series_number is not None
        assert 9000 < new.series_number < 10000
        assert len(new.series_description) <= 64


def test_only_what_the_manifest_asks_for_is_made(head: Analysis) -> None:
    built = build(head, head_manifest(results={"objects": ["seg"]}))
    assert [each.role for each in built] == ["seg"]


def test_long_names_fit_a_series_description(tmp_path: Path) -> None:
    analysis = chest_analysis(write_chest(tmp_path))
    manifest = chest_manifest(name="a" * 62, version="10.20.30")
    for each in build(analysis, manifest):
        assert each.dataset.SeriesDescription.startswith("AI: Pneumothorax (aaa")
        assert len(each.dataset.SeriesDescription) <= 64


def test_a_finding_that_the_manifest_does_not_know_is_refused(tmp_path: Path) -> None:
    analysis = chest_analysis(write_chest(tmp_path))
    with pytest.raises(ResultError, match="findings pneumothorax are not"):
        build(analysis, head_manifest())


def test_a_source_that_no_result_can_be_made_of_gives_a_reason(tmp_path: Path) -> None:
    file = write_chest(tmp_path, SOPClassUID="1.2.3.4.5")
    with pytest.raises(ResultError, match="no results could be made"):
        build(chest_analysis(file), chest_manifest())


def test_names_of_patients_are_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write_chest(tmp_path, PatientName="ONLYONE")
    with caplog.at_level(logging.DEBUG):
        build(chest_analysis(file), chest_manifest())
    assert "ONLYONE" not in caplog.text
