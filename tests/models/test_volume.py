"""Slices to a volume: every geometry is stated as it is, or refused with a reason."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.pixels import compress
from pydicom.uid import JPEGLSLossless, RLELossless

from tests.models.tiny import axial_series, head_with_lesion, slice_dataset, write_all
from triage.core.analysis import InputRefusedError
from triage.models.sources import decode, read_instance
from triage.models.volume import EvenGrid, Volume, load_volume

ANGLES = st.floats(-3.0, 3.0)


def rotation(x: float, y: float, z: float) -> NDArray[np.float64]:
    """Return a rotation about the three axes in turn."""
    (cx, cy, cz), (sx, sy, sz) = np.cos([x, y, z]), np.sin([x, y, z])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


@settings(max_examples=40, deadline=None)
@given(
    angles=st.tuples(ANGLES, ANGLES, ANGLES),
    spacing=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3)),
    gaps=st.lists(st.floats(2.0, 2.8), min_size=1, max_size=6),
    tilt=st.floats(-0.5, 0.5),
    data=st.data(),
)
def test_affine_and_positions_say_where_each_voxel_is(
    angles: tuple[float, float, float],
    spacing: tuple[float, float],
    gaps: list[float],
    tilt: float,
    data: st.DataObject,
) -> None:
    turn = rotation(*angles)
    depths = np.concatenate([[0.0], np.cumsum(gaps)])
    along = turn @ np.array([0.0, np.tan(tilt), 1.0])  # slices follow one another askew
    origin = np.array([12.0, -30.0, 200.0])
    series = [
        slice_dataset(
            np.full((4, 3), index, np.int16),
            origin + depth * along,
            index + 1,
            ImageOrientationPatient=[f"{v:.10f}" for v in (*turn[:, 0], *turn[:, 1])],
            PixelSpacing=[f"{v:.8g}" for v in spacing],
        )
        for index, depth in enumerate(depths)
    ]
    with tempfile.TemporaryDirectory() as folder:
        volume = load_volume(write_all(data.draw(st.permutations(series)), Path(folder)))
    assert volume.sop_instance_uids == tuple(ds.SOPInstanceUID for ds in series)
    np.testing.assert_array_equal(volume.values[:, 0, 0], np.arange(len(series)))
    np.testing.assert_allclose(np.diff(volume.slice_positions_mm), gaps, atol=1e-4)
    assert volume.tilt_degrees == pytest.approx(np.degrees(abs(tilt)), abs=0.01)
    for index in (0, len(series) - 1):
        there = volume.affine @ [2, 3, index, 1]
        in_plane = turn[:, 0] * 2 * spacing[1] + turn[:, 1] * 3 * spacing[0]
        expected = origin + depths[index] * along + in_plane
        np.testing.assert_allclose(there[:3], expected, atol=1e-3)
    voxel = spacing[0] * spacing[1] / 1000
    inner = sum((a + b) / 2 for a, b in pairwise(gaps)) + gaps[0] + gaps[-1]
    assert volume.voxel_volumes_ml.sum() == pytest.approx(inner * voxel, rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    gaps=st.lists(st.floats(1.0, 7.0), min_size=2, max_size=8),
    chosen=st.integers(0, 8),
)
def test_what_is_found_on_the_even_grid_comes_back_to_its_slices(
    gaps: list[float], chosen: int
) -> None:
    depths = np.concatenate([[0.0], np.cumsum(gaps)])
    chosen = min(chosen, len(depths) - 1)
    usual = float(np.median(gaps))
    count = max(2, round(depths[-1] / usual) + 1)
    grid = EvenGrid(np.linspace(0, depths[-1], count), depths)
    # A ramp survives interpolation both ways, at its own depth.
    ramp = depths.astype(np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32)
    even = grid.values(ramp)
    np.testing.assert_allclose(even[:, 0, 0], grid.positions_mm, atol=1e-4)
    back = grid.probabilities_on_source(even[None])[0]
    np.testing.assert_allclose(back, ramp, atol=1e-4)
    # A label comes from a place at most half a step of the even grid away.
    labels = np.arange(count, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    nearest = grid.labels_on_source(labels)[chosen, 0, 0]
    step = depths[-1] / (count - 1)
    assert abs(grid.positions_mm[nearest] - depths[chosen]) <= step / 2 + 1e-9


def test_real_head_ct_with_tilted_gantry_and_uneven_slices(shared_data: Path) -> None:
    sources = [(p.name, p) for p in (shared_data / "dicom" / "head-ct-ge").iterdir()]
    volume = load_volume(sources)
    assert volume.values.shape == (28, 512, 512)
    assert [p.name for p in (i.path for i in volume.instances)] == [
        f"{n:02d}.dcm" for n in range(1, 29)
    ]
    assert volume.tilt_degrees == pytest.approx(18.5, abs=0.01)
    gaps = np.diff(volume.slice_positions_mm)
    assert (gaps.min(), gaps.max()) == (pytest.approx(1.081, 0.001), pytest.approx(6.999, 0.001))
    assert not volume.is_even
    assert volume.remarks == (
        "gantry tilted by 18.5 degrees",
        "slices at uneven distances, 1.08 to 7 mm",
    )
    assert volume.values.min() == -1023  # padding of -1500 became air
    # Half of a head's soft tissue is brain, and brain is near 30 HU.
    soft = volume.values[(volume.values > -20) & (volume.values < 100)]
    assert 20 < np.median(soft) < 40


def test_series_with_stray_objects_is_the_volume_of_its_slices(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "head-phantom-multiseries" / "S2010"
    scout = shared_data / "dicom" / "head-phantom-multiseries" / "S1000" / "I10"
    sources = [(p.name, p) for p in [*folder.iterdir(), scout]]
    volume = load_volume(sources)
    assert len(volume.values) == 28
    assert volume.is_even
    assert volume.spacing_mm[0] == pytest.approx(5.0)


def test_every_transfer_syntax_decodes(shared_data: Path) -> None:
    paths = sorted((shared_data / "dicom" / "transfer-syntaxes").glob("*.dcm"))
    assert paths
    by_image: dict[str, list[NDArray[np.int64]]] = {}
    for path in paths:
        instance = read_instance((path.stem, path))
        if instance.dataset.SamplesPerPixel == 1:
            image, _, syntax = path.stem.partition("_")
            pixels = decode(instance).astype(np.int64)
            assert pixels.shape == (instance.dataset.Rows, instance.dataset.Columns)
            if syntax in {"RLE", "JPLL", "JLSL", "J2KR"}:
                by_image.setdefault(image, []).append(pixels)
    for same in by_image.values():
        for other in same[1:]:  # lossless is lossless, whichever way
            np.testing.assert_array_equal(other, same[0])


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_slices_have_the_same_values(tmp_path: Path, syntax: str) -> None:
    values, _ = head_with_lesion()
    plain = load_volume(write_all(axial_series(values), tmp_path / "plain"))
    series = axial_series(values)
    for ds in series:
        compress(ds, syntax)
    packed = load_volume(write_all(series, tmp_path / "packed"))
    np.testing.assert_array_equal(packed.values, plain.values)


def test_each_slice_has_its_own_rescale_and_padding_becomes_air(tmp_path: Path) -> None:
    series = axial_series(np.full((2, 4, 4), 10, np.int16))
    series[1].RescaleSlope, series[1].RescaleIntercept = "2", "-5"
    pixels = np.full((4, 4), 10, np.int16)
    pixels[0, 0] = -2000
    series[0].PixelData = pixels.tobytes()
    series[0].add_new("PixelPaddingValue", "US", 65536 - 2000)  # the wrong sign, as is common
    volume = load_volume(write_all(series, tmp_path))
    assert volume.values[0, 0, 0] == -1000
    assert volume.values[0, 1, 1] == 10
    assert volume.values[1, 1, 1] == 15


def refused(tmp_path: Path, series: list[object]) -> str:
    with pytest.raises(InputRefusedError) as refusal:
        load_volume(write_all(series, tmp_path))  # type: ignore[arg-type]
    return str(refusal.value)


def six_slices(**changes: object) -> list[object]:
    series = axial_series(head_with_lesion()[0])
    for keyword, value in changes.items():
        setattr(series[2], keyword, value)
    return list(series)


def test_missing_slice_is_refused(tmp_path: Path) -> None:
    series = six_slices()
    del series[3]
    message = refused(tmp_path, series)
    assert message == (
        "slices are missing: a gap of 10 mm after slice 3 of 5, where the usual distance is 5 mm"
    )


def test_mixed_series_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, six_slices(ImageOrientationPatient=[0, 1, 0, 0, 0, -1]))
    assert message.startswith("the series is mixed: 1 of 6 images have another orientation")


def test_slice_beside_the_stack_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, six_slices(ImagePositionPatient=[-10, -26, 10]))
    assert "not one stack" in message


@pytest.mark.parametrize("left", [0, 7])
def test_broken_pixel_data_names_the_instance(tmp_path: Path, left: int) -> None:
    series = axial_series(head_with_lesion()[0])
    series[2].PixelData = series[2].PixelData[: 2 * left]
    message = refused(tmp_path, list(series))
    uid = series[2].SOPInstanceUID
    assert message.startswith(f"pixel data of instance {uid} cannot be decoded: ")


def test_file_that_is_no_dicom_names_the_instance(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"no DICOM")
    with pytest.raises(InputRefusedError, match=r"the file of instance 1\.2\.9 cannot be read"):
        load_volume([("1.2.9", path), ("1.2.10", tmp_path / "absent")])


def test_frames_that_do_not_say_where_they_are_are_refused(tmp_path: Path) -> None:
    series = axial_series(np.zeros((4, 4, 4), np.int16))
    for ds in series:
        ds.NumberOfFrames = 2
        ds.PixelData *= 2
    assert "no image states its position" in refused(tmp_path, list(series))


def test_colour_images_are_refused(tmp_path: Path) -> None:
    series = axial_series(np.zeros((4, 4, 4), np.int16))
    for ds in series:
        ds.PhotometricInterpretation = "PALETTE COLOR"
    assert "is not grayscale: its Photometric Interpretation is PALETTE" in refused(
        tmp_path, list(series)
    )


def test_images_without_a_position_are_refused(tmp_path: Path) -> None:
    series = axial_series(np.zeros((4, 4, 4), np.int16))
    for ds in series:
        del ds.ImagePositionPatient
    assert "no image states its position" in refused(tmp_path, list(series))


def test_of_two_images_at_one_place_the_first_stays(tmp_path: Path) -> None:
    values, _ = head_with_lesion()
    again = axial_series(values + 7)
    for number, ds in enumerate(again, start=100):
        ds.InstanceNumber = number
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.4.{number}"
    volume: Volume = load_volume(write_all([*again, *axial_series(values)], tmp_path))
    np.testing.assert_array_equal(volume.values, values)
    assert volume.remarks == ("6 images at the place of another left out",)


def test_localizer_in_the_series_is_left_out(tmp_path: Path) -> None:
    values, _ = head_with_lesion()
    series = axial_series(values)
    scout = axial_series(values[:1])[0]
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.SOPInstanceUID = scout.file_meta.MediaStorageSOPInstanceUID = "1.2.5"
    volume = load_volume(write_all([scout, *series], tmp_path))
    assert "1.2.5" not in volume.sop_instance_uids


def test_input_digest_tells_files_apart_but_not_their_order(tmp_path: Path) -> None:
    sources = write_all(axial_series(head_with_lesion()[0]), tmp_path)
    before = load_volume(sources).input_sha256
    assert load_volume(sources[::-1]).input_sha256 == before
    ds = dcmread(sources[0][1])
    ds.SliceThickness = "5"
    ds.save_as(sources[0][1])
    assert load_volume(sources).input_sha256 != before
