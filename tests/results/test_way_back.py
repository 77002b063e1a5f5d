"""From images to a SEG and an SR: every kind of source, read back by another program."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from tests.models.images import enhanced, item, reconstructed_tomogram, with_patient, written
from tests.models.test_volume import rotation
from tests.models.tiny import slice_dataset, write_all
from tests.results.scenes import HEMORRHAGE, build, finding, head_manifest, run_tool, save
from triage.core.analysis import Analysis
from triage.models.sources import Source
from triage.models.volume import load_volume

BRIGHT = 200
Geometry = tuple[NDArray[np.float64], float, tuple[float, float]]
OBLIQUE: Geometry = (rotation(0.3, -1.2, 0.8), 2.5, (0.5, 0.7))
SAGITTAL: Geometry = (np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]]), 3.0, (0.6, 0.6))
AXIAL: Geometry = (np.eye(3), 2.0, (0.5, 0.25))


def lesion() -> NDArray[np.bool_]:
    """Return a lesion that no flip or shift leaves as it is, on the middle three of five slices."""
    mask = np.zeros((5, 24, 20), np.bool_)
    mask[1:4, 5:9, 4:7] = True
    mask[2, 9, 4] = True
    mask[3, 5, 7:11] = True
    return mask


def places(geometry: Geometry, slices: int) -> NDArray[np.float64]:
    turn, gap_mm, _ = geometry
    return np.array([12.0, -30.0, 200.0]) + gap_mm * np.arange(slices)[:, None] * turn[:, 2]


def single_frames(geometry: Geometry, folder: Path) -> list[Source]:
    turn, _, spacing = geometry
    images = []
    for number, (plane, place) in enumerate(zip(lesion(), places(geometry, 5), strict=True)):
        image = slice_dataset(
            (plane * BRIGHT).astype(np.int16),
            place,
            9 - number,  # numbered against the direction of the normal
            ImageOrientationPatient=[f"{v:.10f}" for v in (*turn[:, 0], *turn[:, 1])],
            PixelSpacing=list(spacing),
            SliceThickness="2",
        )
        images.append(with_patient(image))
    return write_all(images, folder)


def multi_frame(geometry: Geometry, folder: Path) -> list[Source]:
    """Return five places at two times, the later time first; the first time shows the lesion."""
    turn, _, spacing = geometry
    mask = lesion()[::-1]
    pixels = np.concatenate([np.zeros_like(mask), mask]) * np.int16(BRIGHT)
    groups = [{"FrameContentSequence": item(TemporalPositionIndex=t)} for t in (2, 1)]
    where = places(geometry, 5)[::-1].tolist()
    dataset = enhanced(
        pixels.astype(np.int16),
        [*where, *where],
        orientation=[*turn[:, 0], *turn[:, 1]],
        spacing_mm=spacing,
        per_frame=[groups[0]] * 5 + [groups[1]] * 5,
    )
    return written(dataset, folder)


def nuclear(geometry: Geometry, folder: Path) -> list[Source]:
    del geometry  # its detector has one of its own
    dataset = reconstructed_tomogram((lesion()[::-1] * BRIGHT).astype(np.int16), -2.0)
    dataset.SliceThickness = "2"
    return written(dataset, folder)


KINDS: dict[str, tuple[Callable[[Geometry, Path], list[Source]], Geometry]] = {
    "axial, pixels that are not square": (single_frames, AXIAL),
    "oblique": (single_frames, OBLIQUE),
    "sagittal": (single_frames, SAGITTAL),
    "multi-frame, oblique, two times": (multi_frame, OBLIQUE),
    "reconstructed tomogram": (nuclear, AXIAL),
}


def analysed(sources: list[Source]) -> Analysis:
    """Return what a model that marks the bright voxels would have found."""
    volume = load_volume(sources)
    marked = volume.values > BRIGHT / 2
    key = int(marked.sum(axis=(1, 2)).argmax())
    frames = (volume.frame_numbers[key],) if volume.frame_numbers else ()
    return Analysis(
        findings=(
            finding(
                "hemorrhage",
                HEMORRHAGE,
                volume_ml=1.0,
                key_image_uids=(volume.sop_instance_uids[key],),
                key_image_frames=frames,
            ),
        ),
        source_files=tuple(i.path for i in volume.instances),
        source_sop_instance_uids=tuple(i.sop_instance_uid for i in volume.instances),
        input_sha256=volume.input_sha256,
        segmentation=np.where(marked, 3, 0).astype(np.uint8),
        source_frames=volume.frame_numbers,
    )


@pytest.mark.parametrize(("make", "geometry"), KINDS.values(), ids=KINDS)
def test_dcmqi_reads_the_mask_back_where_it_was(
    make: Callable[[Geometry, Path], list[Source]], geometry: Geometry, tmp_path: Path
) -> None:
    analysis = analysed(make(geometry, tmp_path / "source"))
    np.testing.assert_array_equal(analysis.segmentation > 0, lesion())
    saved = save(build(analysis, head_manifest()), tmp_path / "results")
    assert run_tool("dciodvfy", "-new", saved["seg"]).errors() == []
    assert run_tool("dciodvfy", "-new", saved["sr"]).errors() == []
    arguments = ("--inputDICOM", saved["seg"], "--outputDirectory", tmp_path, "-t", "nii")
    assert run_tool("segimage2itkimage", *arguments).errors() == []
    voxels, first = read_nifti(tmp_path / "1.nii.gz")
    assert np.array_equal(voxels != 0, lesion()[1:4])
    if make is not nuclear:
        np.testing.assert_allclose(first, places(geometry, 5)[1], atol=1e-3)


def read_nifti(file: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return voxels (slices, rows, columns), and where in LPS the first of them lies."""
    content = gzip.decompress(file.read_bytes())
    columns, rows, slices = np.frombuffer(content, "<i2", count=3, offset=42)
    datatype = int(np.frombuffer(content, "<i2", count=1, offset=70)[0])
    kind = {2: "u1", 4: "<i2", 8: "<i4", 512: "<u2"}[datatype]
    start = int(np.frombuffer(content, "<f4", count=1, offset=108)[0])
    voxels = np.frombuffer(content, kind, offset=start).reshape(slices, rows, columns)
    ras = np.frombuffer(content, "<f4", count=12, offset=280).reshape(3, 4)[:, 3]
    return voxels.astype(np.int64), ras * [-1.0, -1.0, 1.0]


def references(dataset: Dataset) -> list[int]:
    """Return the Referenced Frame Numbers of a SEG's frames, in the order of its frames."""
    return [
        int(source.ReferencedFrameNumber)
        for frame in dataset.PerFrameFunctionalGroupsSequence
        for derivation in frame.DerivationImageSequence
        for source in derivation.SourceImageSequence
    ]


def test_only_the_frames_that_were_analysed_are_referred_to(tmp_path: Path) -> None:
    analysis = analysed(multi_frame(OBLIQUE, tmp_path / "source"))
    assert analysis.source_frames == (10, 9, 8, 7, 6)
    saved = save(build(analysis, head_manifest()), tmp_path)
    segmentation = pydicom.dcmread(saved["seg"])
    assert sorted(references(segmentation)) == [7, 8, 9]
    picture = pydicom.dcmread(saved["heat-map"])
    assert (
        picture.SourceImageSequence[0].ReferencedFrameNumber
        == analysis.findings[0].key_image_frames[0]
    )


def test_report_refers_to_the_frame_that_shows_a_finding(tmp_path: Path) -> None:
    analysis = analysed(multi_frame(OBLIQUE, tmp_path / "source"))
    manifest = head_manifest(results={"objects": ["sr"]})
    report = pydicom.dcmread(save(build(analysis, manifest), tmp_path)["sr"])
    frames = [
        element.value for element in report.iterall() if element.keyword == "ReferencedFrameNumber"
    ]
    assert frames
    assert set(map(int, frames)) == set(analysis.findings[0].key_image_frames)


def test_legacy_converted_image_is_the_volume_of_its_slices(
    multi_frame_file: Path, head_files: tuple[Path, ...]
) -> None:
    converted = load_volume([("", multi_frame_file)])
    slices = load_volume([("", file) for file in head_files[9:13]])
    np.testing.assert_array_equal(converted.values, slices.values)
    np.testing.assert_allclose(converted.affine, slices.affine)
    assert converted.tilt_degrees == pytest.approx(slices.tilt_degrees)
    assert sorted(converted.frame_numbers) == [1, 2, 3, 4]
