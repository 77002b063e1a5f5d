"""Fractional segmentations: how probable each voxel is, and what other forms of a SEG are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.seg import segread
from numpy.typing import NDArray
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from tests.results.modalities import SOURCES, Images, analysis_of, manifest_of_all_kinds
from tests.results.scenes import (
    build,
    chest_analysis,
    chest_manifest,
    run_tool,
    save,
    write_chest,
)
from tests.results.test_way_back import read_nifti
from triage.core.analysis import Analysis
from triage.core.manifest import ResultSpec
from triage.results.maps import FAINTEST

SEG_ONLY = manifest_of_all_kinds().model_copy(update={"results": ResultSpec(objects=("seg",))})


@pytest.fixture
def oblique(tmp_path: Path) -> tuple[Images, Analysis]:
    """A series in which the lesion is outlined on the middle three of five slices."""
    images = SOURCES["CT, oblique series"](tmp_path / "source")
    return images, analysis_of(images)


def _fractions(file: Path, analysis: Analysis) -> NDArray[np.float32]:
    read = segread(file).get_pixels_by_source_instance(
        analysis.source_sop_instance_uids,
        assert_missing_frames_are_empty=True,
        rescale_fractional=True,
    )
    return np.asarray(read[..., 0], np.float32)


@pytest.mark.parametrize("compressed", [False, True])
def test_probabilities_are_read_back_voxel_for_voxel(
    oblique: tuple[Images, Analysis], compressed: bool, tmp_path: Path
) -> None:
    _, analysis = oblique
    built = build(analysis, SEG_ONLY, segmentation_type="FRACTIONAL", compressed=compressed)
    file = save(built, tmp_path)["seg"]
    dataset = pydicom.dcmread(file)
    assert dataset.SegmentationFractionalType == "PROBABILITY"
    syntax = RLELossless if compressed else ExplicitVRLittleEndian
    assert dataset.file_meta.TransferSyntaxUID == syntax
    said = analysis.probabilities["hemorrhage"]
    expected = np.where(said >= FAINTEST, said, 0)
    again = _fractions(file, analysis)
    np.testing.assert_allclose(again, expected, atol=0.5 / 255 + 1e-6)
    np.testing.assert_array_equal(again > 0.5, np.equal(analysis.segmentation, 3))


def test_dcmqi_reads_the_same_bytes(oblique: tuple[Images, Analysis], tmp_path: Path) -> None:
    _, analysis = oblique
    file = save(build(analysis, SEG_ONLY, segmentation_type="FRACTIONAL"), tmp_path)["seg"]
    arguments = ("--inputDICOM", file, "--outputDirectory", tmp_path, "-t", "nii")
    assert run_tool("segimage2itkimage", *arguments).errors() == []
    voxels, _ = read_nifti(tmp_path / "1.nii.gz")
    said = analysis.probabilities["hemorrhage"]
    assert voxels.shape == said.shape
    assert np.array_equal(voxels != 0, said >= FAINTEST)  # it reads any fraction as the segment


def test_a_model_that_gives_labels_alone_says_what_is_taken(
    oblique: tuple[Images, Analysis], tmp_path: Path
) -> None:
    analysis = replace(oblique[1], probabilities={})
    file = save(build(analysis, SEG_ONLY, segmentation_type="FRACTIONAL"), tmp_path)["seg"]
    assert pydicom.dcmread(file).SegmentationFractionalType == "OCCUPANCY"
    again = _fractions(file, analysis)
    np.testing.assert_array_equal(again, np.equal(analysis.segmentation, 3))


@pytest.mark.parametrize("is_present", [True, False])
def test_a_heat_map_becomes_a_segment_where_a_model_outlines_nothing(
    tmp_path: Path, is_present: bool
) -> None:
    analysis = chest_analysis(write_chest(tmp_path), is_present=is_present)
    manifest = chest_manifest(results={"objects": ["seg", "sr"]})
    saved = save(build(analysis, manifest, segmentation_type="FRACTIONAL"), tmp_path)
    if not is_present:
        assert set(saved) == {"sr"}
        return
    dataset = segread(saved["seg"])
    [segment] = dataset.SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Pneumothorax"
    shown = np.asarray(dataset.pixel_array).reshape(120, 100) / 255
    np.testing.assert_allclose(shown, analysis.heat_maps["pneumothorax"])
    assert run_tool("dciodvfy", "-new", saved["seg"]).errors() == []
    assert "seg" not in save(build(analysis, manifest), tmp_path / "binary")


def test_nothing_found_is_a_fractional_segmentation_without_a_voxel(
    oblique: tuple[Images, Analysis], tmp_path: Path
) -> None:
    absent = tuple(f.model_copy(update={"present": False}) for f in oblique[1].findings)
    analysis = replace(oblique[1], findings=absent, probabilities={})
    file = save(build(analysis, SEG_ONLY, segmentation_type="FRACTIONAL"), tmp_path)["seg"]
    dataset = pydicom.dcmread(file)
    assert dataset.NumberOfFrames == 1
    assert not dataset.pixel_array.any()
    assert run_tool("dciodvfy", "-new", file).errors() == []


def test_a_deflated_segmentation_is_smaller_and_the_same(
    oblique: tuple[Images, Analysis], tmp_path: Path
) -> None:
    _, analysis = oblique
    plain = save(build(analysis, SEG_ONLY), tmp_path / "plain")["seg"]
    deflated = save(build(analysis, SEG_ONLY, compressed=True), tmp_path / "deflated")["seg"]
    assert deflated.stat().st_size < plain.stat().st_size / 2
    first, second = pydicom.dcmread(plain), pydicom.dcmread(deflated)
    assert second.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    assert first == second
    arguments = ("--inputDICOM", deflated, "--outputDirectory", tmp_path, "-t", "nii")
    assert run_tool("segimage2itkimage", *arguments).errors() == []
    voxels, _ = read_nifti(tmp_path / "1.nii.gz")
    assert np.array_equal(voxels != 0, np.equal(analysis.segmentation, 3)[1:4])
