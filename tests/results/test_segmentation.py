"""The SEG: voxel for voxel what the model said."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.seg import segread
from PIL import Image

from tests.results.scenes import (
    FRACTURE,
    HEMORRHAGE,
    NOTICE,
    PRODUCED_AT,
    build,
    finding,
    head_analysis,
    head_manifest,
    head_mask,
    run_tool,
    save,
    study_uid_of,
)
from triage.core.analysis import Analysis
from triage.results.build import BuiltObject, build_results, number_segments
from triage.results.errors import ResultError
from triage.settings import ResultSettings


def _object(built: tuple[BuiltObject, ...], role: str) -> pydicom.Dataset:
    return next(each.dataset for each in built if each.role == role)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_tilted_uneven_slices_read_back_voxel_for_voxel(
    head: Analysis, tmp_path: Path, kind: str
) -> None:
    saved = save(build(head, head_manifest(), segmentation_type=kind), tmp_path)
    segmentation = segread(saved["seg"])
    read_back = segmentation.get_pixels_by_source_instance(
        head.source_sop_instance_uids,
        combine_segments=True,
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    assert head.segmentation is not None
    assert np.array_equal(read_back == 1, head.segmentation == 3)
    numbers = [int(segment.SegmentNumber) for segment in segmentation.SegmentSequence]
    assert numbers == ([1] if kind == "BINARY" else [0, 1])  # label maps describe the background


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_dcmqi_reads_back_voxel_for_voxel(
    straight_head_files: tuple[Path, ...], tmp_path: Path, kind: str
) -> None:
    analysis = head_analysis(straight_head_files)
    saved = save(build(analysis, head_manifest(), segmentation_type=kind), tmp_path)
    said = run_tool(
        "segimage2itkimage",
        "--inputDICOM",
        saved["seg"],
        "--outputDirectory",
        tmp_path,
        "-t",
        "nii",
    )
    assert said.errors() == []
    volume = _read_nifti(tmp_path / "1.nii.gz")
    lesion = np.equal(analysis.segmentation, 3)
    assert np.array_equal(volume != 0, lesion[lesion.any(axis=(1, 2))])
    described = json.loads((tmp_path / "meta.json").read_text())
    [[segment]] = described["segmentAttributes"]
    assert segment["SegmentAlgorithmType"] == "AUTOMATIC"
    assert segment["SegmentedPropertyTypeCodeSequence"]["CodeValue"] == "50960005"
    assert np.allclose(segment["recommendedDisplayRGBValue"], [255, 64, 64], atol=2)


def _read_nifti(file: Path) -> np.ndarray:
    content = gzip.decompress(file.read_bytes())
    columns, rows, slices = np.frombuffer(content, "<i2", count=3, offset=42)
    datatype = int(np.frombuffer(content, "<i2", count=1, offset=70)[0])
    kind = {2: "u1", 4: "<i2", 8: "<i4", 512: "<u2"}[datatype]
    start = int(np.frombuffer(content, "<f4", count=1, offset=108)[0])
    return np.frombuffer(content, kind, offset=start).reshape(slices, rows, columns)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_dciodvfy_finds_no_error(head: Analysis, tmp_path: Path, kind: str) -> None:
    saved = save(build(head, head_manifest(), segmentation_type=kind), tmp_path)
    assert run_tool("dciodvfy", "-new", saved["seg"]).errors() == []


def test_it_says_who_made_it_and_what_for(head_results: tuple[BuiltObject, ...]) -> None:
    segmentation = _object(head_results, "seg")
    [segment] = segmentation.SegmentSequence
    [algorithm] = segment.SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("head-ct-hemorrhage", "1.0.0")
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
    assert (
        segmentation.SeriesDescription == "AI: Intracranial hemorrhage (head-ct-hemorrhage 1.0.0)"
    )
    assert segmentation.ContentDescription == NOTICE
    assert segmentation.ImageComments == NOTICE
    assert segment.TrackingID == "head-ct-hemorrhage: hemorrhage"
    assert segment.AnatomicRegionSequence[0].CodeValue == "12738006"


def test_segments_are_numbered_without_gaps(head: Analysis, head_files: tuple[Path, ...]) -> None:
    assert head.segmentation is not None
    mask = np.where(head.segmentation == 3, 5, 0).astype(np.uint8)
    mask[20:22, 300:310, 300:310] = 3  # voxels of a finding that is absent: below its threshold
    analysis = Analysis(
        findings=(
            finding("hemorrhage", HEMORRHAGE, is_present=False),
            finding("fracture", FRACTURE),
        ),
        source_files=head.source_files,
        source_sop_instance_uids=head.source_sop_instance_uids,
        input_sha256="3" * 64,
        segmentation=mask,
    )
    segmentation = _object(build(analysis, head_manifest()), "seg")
    assert [segment.SegmentNumber for segment in segmentation.SegmentSequence] == [1]
    assert segmentation.SegmentSequence[0].SegmentLabel == "Fracture of bone"
    numbered = number_segments(analysis, head_manifest()).findings
    assert [each.segment_number for each in numbered] == [None, 1]
    assert int(segmentation.NumberOfFrames) == 4


def test_two_present_findings_are_two_segments(head: Analysis) -> None:
    assert head.segmentation is not None
    mask = head.segmentation.copy()
    mask[5, 100:120, 100:120] = 5
    analysis = Analysis(
        findings=(
            finding("hemorrhage", HEMORRHAGE, volume_ml=1.0),
            finding("fracture", FRACTURE, volume_ml=2.0),
        ),
        source_files=head.source_files,
        source_sop_instance_uids=head.source_sop_instance_uids,
        input_sha256="4" * 64,
        segmentation=mask,
    )
    built = build(analysis, head_manifest())
    labels = [s.SegmentLabel for s in _object(built, "seg").SegmentSequence]
    assert labels == ["Intracranial hemorrhage", "Fracture of bone"]
    measurements = next(
        item for item in _object(built, "sr").ContentSequence if item.ValueType == "CONTAINER"
    )
    numbers = [
        item.ReferencedSOPSequence[0].ReferencedSegmentNumber
        for group in measurements.ContentSequence
        for item in group.ContentSequence
        if item.ValueType == "IMAGE"
    ]
    assert numbers == [1, 2]


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_an_absent_finding_leaves_a_segmentation_without_a_voxel(
    head_files: tuple[Path, ...], tmp_path: Path, kind: str
) -> None:
    analysis = head_analysis(head_files, is_present=False)
    saved = save(build(analysis, head_manifest(), segmentation_type=kind), tmp_path)
    segmentation = segread(saved["seg"])
    assert set(saved) == {"seg", "sr"}
    assert not segmentation.pixel_array.any()
    assert HEMORRHAGE.meaning in {segment.SegmentLabel for segment in segmentation.SegmentSequence}
    assert run_tool("dciodvfy", "-new", saved["seg"]).errors() == []


def test_an_empty_segmentation_can_be_left_out(head_files: tuple[Path, ...]) -> None:
    analysis = head_analysis(head_files, is_present=False)
    built = build(analysis, head_manifest(), empty_segmentations=False)
    assert [each.role for each in built] == ["sr"]


def test_an_enhanced_multi_frame_image_is_segmented(multi_frame_file: Path, tmp_path: Path) -> None:
    header = pydicom.dcmread(multi_frame_file, stop_before_pixels=True)
    shape = (int(header.NumberOfFrames), int(header.Rows), int(header.Columns))
    mask = np.zeros(shape, dtype=np.uint8)
    mask[1:3, 220:260, 200:250] = 3
    analysis = Analysis(
        findings=(finding("hemorrhage", HEMORRHAGE, volume_ml=3.0),),
        source_files=(multi_frame_file,),
        source_sop_instance_uids=(str(header.SOPInstanceUID),),
        input_sha256="5" * 64,
        segmentation=mask,
    )
    saved = save(build(analysis, head_manifest()), tmp_path)
    assert set(saved) == {"seg", "sr", "heat-map"}
    for file in saved.values():
        assert run_tool("dciodvfy", "-new", file).errors() == []
    read_back = segread(saved["seg"]).get_pixels_by_source_frame(
        str(header.SOPInstanceUID),
        list(range(1, shape[0] + 1)),
        combine_segments=True,
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    assert np.array_equal(read_back == 1, mask == 3)
    picture = pydicom.dcmread(saved["heat-map"])
    assert picture.SourceImageSequence[0].ReferencedFrameNumber in (2, 3)
    Image.fromarray(picture.pixel_array)


def test_a_mask_of_another_shape_is_refused(head_files: tuple[Path, ...]) -> None:
    analysis = head_analysis(head_files, mask=head_mask((28, 512, 500)))
    with pytest.raises(ResultError, match="shape"):
        build_results(
            analysis,
            head_manifest(),
            study_instance_uid=study_uid_of(analysis),
            settings=ResultSettings(),
            produced_at=PRODUCED_AT,
        )
