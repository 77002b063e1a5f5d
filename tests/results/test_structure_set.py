"""The RT Structure Set: contours that are the mask again, where it lies in the patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from tests.results.modalities import SOURCES, Images, analysis_of, manifest_of_all_kinds
from tests.results.scenes import build, head_manifest, run_tool, save
from tests.results.test_contours import filled
from triage.core.analysis import Analysis
from triage.core.manifest import ModelManifest, ResultSpec
from triage.decoding.multi_frame import frame_value


def _structure_set(analysis: Analysis, manifest: ModelManifest, folder: Path) -> Dataset:
    only = manifest.model_copy(update={"results": ResultSpec(objects=("rtstruct",))})
    file = save(build(analysis, only), folder)["rtstruct"]
    assert run_tool("dciodvfy", "-new", file).errors() == []
    return pydicom.dcmread(file)


def _planes(images: Images) -> list[tuple[str, int | None, list[NDArray[np.float64]]]]:
    """Return UID, frame, and position, orientation and spacing of each analysed slice."""
    headers = [pydicom.dcmread(f, stop_before_pixels=True) for f in images.files]
    keywords = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    slices = [(headers[0], f) for f in images.frames] or [(h, None) for h in headers]
    return [
        (
            str(header.SOPInstanceUID),
            frame,
            [np.array(frame_value(header, (frame or 1) - 1, k), np.float64) for k in keywords],
        )
        for header, frame in slices
    ]


def _filled_again(structure_set: Dataset, images: Images) -> NDArray[np.bool_]:
    """Return the first ROI as a planning system would see it, on the voxels of the source."""
    header = images.header
    shape = (int(header.Rows), int(header.Columns))
    planes = _planes(images)
    volume = np.zeros((len(planes), *shape), np.bool_)
    for contour in structure_set.ROIContourSequence[0].ContourSequence:
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        points = np.array(contour.ContourData, np.float64).reshape(-1, 3)
        assert len(points) == contour.NumberOfContourPoints
        [image] = contour.ContourImageSequence
        named = (str(image.ReferencedSOPInstanceUID), image.get("ReferencedFrameNumber"))
        place = [plane[:2] for plane in planes].index(named)
        position, orientation, spacing = planes[place][2]
        row, column = orientation[:3], orientation[3:]
        away = (points - position) @ np.cross(row, column)
        assert np.abs(away).max() < 1e-3  # on the plane of its own image
        in_plane = (points - position) @ np.stack([row / spacing[1], column / spacing[0]], axis=1)
        volume[place] ^= filled(in_plane, shape)
    return volume


@pytest.mark.parametrize("name", ["CT, oblique series", "MR, enhanced multi-frame", "NM", "MR"])
def test_contours_filled_again_are_the_mask(name: str, tmp_path: Path) -> None:
    images = SOURCES[name](tmp_path / "source")
    analysis = analysis_of(images)
    structure_set = _structure_set(analysis, manifest_of_all_kinds(), tmp_path)
    assert analysis.segmentation is not None
    np.testing.assert_array_equal(
        _filled_again(structure_set, images), np.equal(analysis.segmentation, 3)
    )
    assert structure_set.FrameOfReferenceUID == images.header.FrameOfReferenceUID


def test_so_it_is_on_real_slices_of_a_tilted_gantry(head: Analysis, tmp_path: Path) -> None:
    structure_set = _structure_set(head, head_manifest(), tmp_path)
    again = _filled_again(structure_set, Images(head.source_files))
    np.testing.assert_array_equal(again, np.equal(head.segmentation, 3))
    [series] = (
        structure_set.ReferencedFrameOfReferenceSequence[0]
        .RTReferencedStudySequence[0]
        .RTReferencedSeriesSequence
    )
    named = [str(image.ReferencedSOPInstanceUID) for image in series.ContourImageSequence]
    assert named == list(head.source_sop_instance_uids)


def test_it_says_what_was_found_and_that_nobody_has_seen_it(head: Analysis, tmp_path: Path) -> None:
    structure_set = _structure_set(head, head_manifest(), tmp_path)
    [roi] = structure_set.StructureSetROISequence
    assert roi.ROIName == "AI Intracranial hemorrhage"
    assert roi.ROIGenerationAlgorithm == "AUTOMATIC"
    assert roi.ROIDescription == "Intracranial hemorrhage, 12.3 mL, confidence 0.97"
    [observation] = structure_set.RTROIObservationsSequence
    assert observation.RTROIIdentificationCodeSequence[0].CodeValue == "50960005"
    assert structure_set.ApprovalStatus == "UNAPPROVED"
    assert structure_set.ROIContourSequence[0].ROIDisplayColor == [255, 64, 64]


@pytest.mark.parametrize("name", ["DX", "US", "XA, multi-frame"])
def test_an_image_without_a_place_in_the_patient_has_none(name: str, tmp_path: Path) -> None:
    analysis = analysis_of(SOURCES[name](tmp_path))
    built = build(analysis, manifest_of_all_kinds())
    assert "rtstruct" not in {each.role for each in built}
