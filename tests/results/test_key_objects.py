"""Key object selections: which images a person should open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from tests.results.scenes import (
    PRODUCED_AT,
    build,
    finding,
    head_analysis,
    head_manifest,
    multi_frame_analysis,
    run_tool,
    save,
    study_uid_of,
)
from triage.core.findings import Finding
from triage.core.segmentation import SegmentationForm
from triage.results.build import build_results
from triage.settings import ResultSettings

ALL = {"objects": ["seg", "heat-map", "presentation-state", "key-objects"]}


def _references(selection: Dataset) -> list[str]:
    return [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in selection.ContentSequence
        if "ReferencedSOPSequence" in item
    ]


def test_it_names_the_key_images_and_what_was_made_of_them(
    head_files: tuple[Path, ...], tmp_path: Path
) -> None:
    analysis = head_analysis(head_files)
    made = {each.role: each.dataset for each in build(analysis, head_manifest(results=ALL))}
    selection = made["key-objects"]
    others = [made[role].SOPInstanceUID for role in ("seg", "heat-map")]
    assert _references(selection) == [*analysis.findings[0].key_image_uids, *others]
    state = selection.ContentSequence[-4].ReferencedSOPSequence[0].ReferencedSOPSequence[0]
    assert state.ReferencedSOPInstanceUID == made["presentation-state"].SOPInstanceUID
    evidence = {
        image.ReferencedSOPInstanceUID
        for series in selection.CurrentRequestedProcedureEvidenceSequence[
            0
        ].ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    }
    assert evidence == {*_references(selection), made["presentation-state"].SOPInstanceUID}
    (file,) = save(build(analysis, head_manifest(results=ALL))[-1:], tmp_path).values()
    tree = "\n".join(run_tool("dsrdump", "+Pc", file).lines)
    assert '(113000,DCM,"Of Interest")' in tree
    assert '(121007,DCM,"Device")' in tree


def test_of_another_form_they_name_its_segmentation_and_the_usual_pictures(
    head_files: tuple[Path, ...],
) -> None:
    analysis = head_analysis(head_files)
    built = build_results(
        analysis,
        head_manifest(results=ALL),
        study_instance_uid=study_uid_of(analysis),
        settings=ResultSettings(),
        produced_at=PRODUCED_AT,
        variants=[SegmentationForm("FRACTIONAL")],
    )
    made = {(each.role, each.variant): each.dataset for each in built}
    assert list(made)[-2:] == [("seg", "fractional"), ("key-objects", "fractional")]
    usual, other = made["key-objects", ""], made["key-objects", "fractional"]
    assert usual.SOPInstanceUID != other.SOPInstanceUID
    assert usual.SeriesInstanceUID != other.SeriesInstanceUID
    named = [made[key].SOPInstanceUID for key in (("seg", "fractional"), ("heat-map", ""))]
    assert _references(other)[-2:] == named
    assert _references(other)[:-2] == _references(usual)[:-2]


def test_frames_are_named(multi_frame_file: Path) -> None:
    built = build(multi_frame_analysis(multi_frame_file), head_manifest(results=ALL))
    selection = built[-1].dataset
    images = [i for i in selection.ContentSequence if i.ValueType == "IMAGE"]
    assert images[0].ReferencedSOPSequence[0].ReferencedFrameNumber == [2, 3]


def _without_key_images(found: Finding) -> Finding:
    return found.model_copy(update={"key_image_uids": ()})


def test_without_key_images_the_image_with_most_of_the_outline_is_taken(
    head_files: tuple[Path, ...],
) -> None:
    analysis = head_analysis(head_files)
    analysis = replace(analysis, findings=tuple(map(_without_key_images, analysis.findings)))
    (selection,) = build(analysis, head_manifest(results={"objects": ["key-objects"]}))
    mask = analysis.segmentation
    assert mask is not None
    largest = int((mask == 3).sum(axis=(1, 2)).argmax())
    assert _references(selection.dataset) == [analysis.source_sop_instance_uids[largest]]


@pytest.mark.parametrize("is_present", [True, False])
def test_there_is_none_where_nothing_is_shown(
    head_files: tuple[Path, ...], *, is_present: bool
) -> None:
    analysis = head_analysis(head_files, is_present=is_present)
    said = tuple(
        finding(f.key, f.code, is_present=f.present and is_present) for f in analysis.findings
    )
    analysis = replace(analysis, findings=said, segmentation=None)
    assert build(analysis, head_manifest(results={"objects": ["key-objects"]})) == ()
