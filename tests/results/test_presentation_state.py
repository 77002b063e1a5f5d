"""Presentation states: what a viewer draws over the key images, and how it shows them."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from pydicom.dataset import Dataset
from pydicom.uid import ColorSoftcopyPresentationStateStorage
from pydicom.valuerep import DSfloat

from tests.results.detections import detection, detector_manifest, image_file, saved_detection
from tests.results.scenes import (
    build,
    head_analysis,
    head_manifest,
    multi_frame_analysis,
    run_tool,
    write_chest,
)
from triage.core.analysis import Analysis
from triage.core.manifest import ModelManifest

ONLY = {"objects": ["presentation-state"]}


def _state(analysis: Analysis, manifest: ModelManifest) -> Dataset:
    (built,) = build(analysis, manifest)
    return built.dataset


def _lines(item: Dataset) -> list[NDArray[np.float64]]:
    return [np.array(g.GraphicData).reshape(-1, 2) for g in item.GraphicObjectSequence]


def _texts(item: Dataset) -> list[str]:
    return [text.UnformattedTextValue for text in item.TextObjectSequence]


def _uncompressed(source: Path, folder: Path) -> Path:
    dataset = pydicom.dcmread(source)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.decompress(generate_instance_uid=False)
    dataset.save_as(folder / "uncompressed.dcm")
    return folder / "uncompressed.dcm"


def test_the_outline_is_that_of_the_mask(head_files: tuple[Path, ...]) -> None:
    analysis = head_analysis(head_files)
    state = _state(analysis, head_manifest(results=ONLY))
    keys = analysis.findings[0].key_image_uids
    drawn = state.GraphicAnnotationSequence
    assert [a.ReferencedImageSequence[0].ReferencedSOPInstanceUID for a in drawn] == list(keys)
    assert analysis.segmentation is not None
    for annotation, index in zip(drawn, (11, 12), strict=True):
        (line,) = _lines(annotation)
        assert (line[0] == line[-1]).all()
        rows, columns = np.nonzero(analysis.segmentation[index] == 3)
        # A line goes between the middles of the pixels inside and outside, so at their edges.
        assert line.min(axis=0).tolist() == [columns.min(), rows.min()]
        assert line.max(axis=0).tolist() == [columns.max() + 1, rows.max() + 1]
        assert "Intracranial hemorrhage, 12.3 mL, confidence 0.97" in _texts(annotation)
        assert any("not for primary diagnosis" in text for text in _texts(annotation))


def test_outlines_are_tracked_as_in_seg_and_sr(head_files: tuple[Path, ...]) -> None:
    manifest = head_manifest(results={"objects": ["seg", "presentation-state"]})
    seg, state = (each.dataset for each in build(head_analysis(head_files), manifest))
    graphic = state.GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    assert graphic.TrackingUID == seg.SegmentSequence[0].TrackingUID


def test_a_box_is_a_rectangle_and_a_score_alone_a_line_of_text(
    shared_data: Path, tmp_path: Path
) -> None:
    analysis = detection(image_file("CT", shared_data))
    state = _state(analysis, detector_manifest(results=ONLY))
    (annotation,) = state.GraphicAnnotationSequence
    (line,) = _lines(annotation)
    box = analysis.findings[0].boxes[0]
    assert line.min(axis=0).tolist() == [box.left, box.top]
    assert line.max(axis=0).tolist() == [box.right, box.bottom]
    units = {
        t.UnformattedTextValue: t.BoundingBoxAnnotationUnits for t in annotation.TextObjectSequence
    }
    assert units["Fracture of bone, confidence 0.97"] == "PIXEL"
    assert units["Pneumothorax, confidence 0.97"] == "DISPLAY"


@pytest.mark.parametrize("name", ["CR of MONOCHROME1", "MR", "MR compressed", "CT"])
def test_dcmtk_shows_the_image_as_a_reader_sees_it_first(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    source = _uncompressed(image_file(name, shared_data), tmp_path)
    state = saved_detection(source, tmp_path, results=ONLY)["presentation-state"]
    said = run_tool("dcmp2pgm", "-p", state, source, tmp_path / "shown.pgm")
    assert said.errors() == []
    with Image.open(tmp_path / "shown.pgm") as picture:
        shown = np.asarray(picture, dtype=np.float64)
    dataset = pydicom.dcmread(source)
    values = dataset.pixel_array * float(dataset.get("RescaleSlope", 1))
    values = values + float(dataset.get("RescaleIntercept", 0))
    center, width = _window(pydicom.dcmread(state))
    expected = np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        expected = 1 - expected
    # DCMTK rounds where the width is not a whole number, and clips 10 bits at their own range.
    assert np.abs(shown - 255 * expected).mean() < 6
    assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.999


def _window(state: Dataset) -> tuple[float, float]:
    (item,) = state.SoftcopyVOILUTSequence
    values = (item.WindowCenter, item.WindowWidth)
    center, width = (float(v if isinstance(v, DSfloat) else str(v)) for v in values)
    return center, width


def test_the_first_window_of_the_image_is_taken(tmp_path: Path) -> None:
    file = write_chest(tmp_path, WindowCenter=[2000, 100], WindowWidth=[4000, 50])
    state = _state(detection(file), detector_manifest(results=ONLY))
    assert _window(state) == (2000, 4000)


def test_an_image_without_a_window_gets_one_that_shows_it(tmp_path: Path) -> None:
    file = write_chest(tmp_path, WindowCenter=None, WindowWidth=None)
    center, width = _window(_state(detection(file), detector_manifest(results=ONLY)))
    assert center == pytest.approx(2000, abs=5)
    assert width == pytest.approx(0.98 * 4000, abs=5)


def test_lookup_tables_of_the_image_are_kept(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [4, 0, 10]
    table.LUTData = np.array([0, 300, 700, 1023], dtype="<u2").tobytes()
    modality = Dataset()
    modality.LUTDescriptor = [4, 0, 16]
    modality.LUTData = np.array([0, 1, 2, 3], dtype="<u2").tobytes()
    modality.ModalityLUTType = "US"
    file = write_chest(
        tmp_path,
        WindowCenter=None,
        WindowWidth=None,
        RescaleSlope=None,
        RescaleIntercept=None,
        RescaleType=None,
        VOILUTSequence=[table],
        ModalityLUTSequence=[modality],
    )
    state = _state(detection(file), detector_manifest(results=ONLY))
    assert state.SoftcopyVOILUTSequence[0].VOILUTSequence[0].LUTDescriptor == [4, 0, 10]
    assert "WindowCenter" not in state.SoftcopyVOILUTSequence[0]
    assert state.ModalityLUTSequence[0].LUTDescriptor == [4, 0, 16]
    assert "RescaleSlope" not in state


def test_only_the_key_frames_of_a_multi_frame_image_are_drawn_on(multi_frame_file: Path) -> None:
    state = _state(multi_frame_analysis(multi_frame_file), head_manifest(results=ONLY))
    (image,) = state.ReferencedSeriesSequence[0].ReferencedImageSequence
    assert image.ReferencedFrameNumber == [2, 3]
    frames = [
        a.ReferencedImageSequence[0].ReferencedFrameNumber for a in state.GraphicAnnotationSequence
    ]
    assert frames == [3, 2]


@pytest.mark.parametrize("name", ["US in color", "US in a palette"])
def test_color_images_are_shown_in_their_colors(name: str, shared_data: Path) -> None:
    analysis = detection(image_file(name, shared_data))
    state = _state(analysis, detector_manifest(results=ONLY))
    assert state.SOPClassUID == ColorSoftcopyPresentationStateStorage
    assert state.ColorSpace == "SRGB"
    profile = ImageCms.ImageCmsProfile(BytesIO(state.ICCProfile))
    assert profile.profile.device_class == "scnr"
    # Taken by this profile, colors of sRGB stay what they are.
    colors = Image.new("RGB", (1, 1), (200, 60, 20))
    same = ImageCms.profileToProfile(colors, profile, ImageCms.createProfile("sRGB"))
    assert same is not None
    assert np.abs(np.subtract(same.getpixel((0, 0)), (200, 60, 20))).max() <= 1
    assert "SoftcopyVOILUTSequence" not in state
    (annotation,) = state.GraphicAnnotationSequence
    assert len(_lines(annotation)) == 1


def test_the_profile_of_the_images_is_kept(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(image_file("US in color", tmp_path))
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    dataset.ICCProfile = own[:12] + b"spac" + own[16:]
    dataset.save_as(tmp_path / "own.dcm")
    state = _state(detection(tmp_path / "own.dcm"), detector_manifest(results=ONLY))
    assert state.ICCProfile == dataset.ICCProfile
    assert "ColorSpace" not in state


def test_images_of_another_rescale_are_left_out(tmp_path: Path) -> None:
    """A PET series has a slope for each image; a presentation state has one for all."""
    shared: dict[str, Any] = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}
    slopes = (1, 2, 1)
    files = tuple(write_chest(tmp_path, RescaleSlope=slope, **shared) for slope in slopes)
    each = [detection(file) for file in files]
    uids = tuple(a.source_sop_instance_uids[0] for a in each)
    found = each[0].findings[1].model_copy(update={"key_image_uids": uids})
    analysis = replace(
        each[0], source_files=files, source_sop_instance_uids=uids, findings=(found,)
    )
    state = _state(analysis, detector_manifest(results=ONLY))
    images = state.ReferencedSeriesSequence[0].ReferencedImageSequence
    assert [i.ReferencedSOPInstanceUID for i in images] == [uids[0], uids[2]]


def test_pixels_that_are_not_square_are_shown_as_they_are(tmp_path: Path) -> None:
    file = write_chest(tmp_path, ImagerPixelSpacing=[0.2, 0.4])
    state = _state(detection(file), detector_manifest(results=ONLY))
    (area,) = state.DisplayedAreaSelectionSequence
    assert area.PresentationPixelSpacing == [0.2, 0.4]
    file = write_chest(tmp_path, ImagerPixelSpacing=None, PixelAspectRatio=["1", "2"])
    state = _state(detection(file), detector_manifest(results=ONLY))
    assert state.DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio == [1, 2]
