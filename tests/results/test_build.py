"""The same analysis is the same objects."""

from __future__ import annotations

import dataclasses
import logging
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest

from tests.results.scenes import (
    PRODUCED_AT,
    build,
    chest_analysis,
    chest_manifest,
    head_manifest,
    study_uid_of,
    write_chest,
)
from triage.core.analysis import Analysis
from triage.core.segmentation import SegmentationForm
from triage.results.build import (
    BuiltObject,
    build_results,
    needs_probabilities,
    store_results,
)
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


def test_a_site_words_the_descriptions_and_counts_the_series(tmp_path: Path) -> None:
    analysis = chest_analysis(write_chest(tmp_path))
    worded = build(
        analysis,
        chest_manifest(),
        series_description="KI {kind}: {finding}, {model}",
        first_series_number=500,
    )
    assert [each.dataset.SeriesDescription for each in worded] == [
        "KI sr: Pneumothorax, chest-xray",
        "KI heat map: Pneumothorax, chest-xray",
    ]
    plain = build(analysis, chest_manifest())
    numbers = [int(each.dataset.SeriesNumber) for each in worded]
    assert numbers == [int(each.dataset.SeriesNumber) - 8500 for each in plain]


def test_words_that_are_not_ascii_are_written_in_utf_8(tmp_path: Path) -> None:
    analysis = chest_analysis(write_chest(tmp_path, SpecificCharacterSet="ISO_IR 100"))
    [report, _] = build(analysis, chest_manifest(), series_description="КИ {finding}")
    assert report.dataset.SpecificCharacterSet == "ISO_IR 192"
    assert report.dataset.SeriesDescription == "КИ Pneumothorax"


def _in_forms(analysis: Analysis, *forms: SegmentationForm) -> dict[str, list[BuiltObject]]:
    """Return what is built in further forms, by variant."""
    built = build_results(
        analysis,
        head_manifest(),
        study_instance_uid=study_uid_of(analysis),
        settings=ResultSettings(),
        produced_at=PRODUCED_AT,
        variants=forms,
    )
    by_variant: dict[str, list[BuiltObject]] = {}
    for each in built:
        by_variant.setdefault(each.variant, []).append(each)
    return by_variant


def test_another_form_of_a_segmentation_has_a_report_that_points_to_it(head: Analysis) -> None:
    built = _in_forms(head, SegmentationForm("LABELMAP", True), SegmentationForm("FRACTIONAL"))
    assert {variant: [e.role for e in each] for variant, each in built.items()} == {
        "": ["seg", "sr", "heat-map"],
        "labelmap-compressed": ["seg", "sr"],
        "fractional": ["seg", "sr"],
    }
    for segmentation, report, *_ in built.values():
        named = {str(e.value) for e in report.dataset.iterall() if "InstanceUID" in e.keyword}
        assert str(segmentation.dataset.SOPInstanceUID) in named
        others = {str(each[0].dataset.SOPInstanceUID) for each in built.values()}
        assert named & others == {str(segmentation.dataset.SOPInstanceUID)}


def test_the_lesion_is_the_same_in_every_form(head: Analysis) -> None:
    built = _in_forms(head, SegmentationForm("FRACTIONAL"))
    tracking = {
        str(segment.TrackingUID)
        for each in built.values()
        for segment in each[0].dataset.SegmentSequence
    }
    assert len(tracking) == 1


def test_the_usual_form_is_not_made_twice(head: Analysis) -> None:
    usual = ResultSettings().segmentation_form
    assert set(_in_forms(head, usual)) == {""}
    labelmap = SegmentationForm("LABELMAP")
    assert [e.role for e in _in_forms(head, labelmap, labelmap)["labelmap"]] == ["seg", "sr"]


def test_variants_are_stored_under_their_names(head: Analysis, tmp_path: Path) -> None:
    built = _in_forms(head, SegmentationForm("LABELMAP", True))
    stored = store_results(InstanceFiles(tmp_path), built["labelmap-compressed"])
    assert [(new.role, new.variant) for new in stored] == [
        ("seg", "labelmap-compressed"),
        ("sr", "labelmap-compressed"),
    ]


@pytest.mark.parametrize(
    ("objects", "form", "is_needed"),
    [
        (("seg", "sr"), SegmentationForm("BINARY"), False),
        (("seg", "sr"), SegmentationForm("FRACTIONAL"), True),
        (("sr",), SegmentationForm("FRACTIONAL"), False),
        (("parametric-map",), SegmentationForm("BINARY"), True),
    ],
)
def test_probabilities_are_asked_for_only_where_an_object_shows_them(
    objects: tuple[str, ...], form: SegmentationForm, is_needed: bool
) -> None:
    manifest = head_manifest(results={"objects": list(objects)})
    assert needs_probabilities(manifest, ResultSettings(), [form]) is is_needed


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
