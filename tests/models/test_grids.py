"""The grid that a model wants, and the way back onto exactly the source voxels."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.models.images import enhanced, written
from tests.models.test_volume import ANGLES, rotation
from tests.models.tiny import axial_series, make_segmentation, slice_dataset, write_all
from triage.core.analysis import InputRefusedError
from triage.core.manifest import VolumeInput
from triage.models.engine import analyse
from triage.models.grids import Prepared, prepare
from triage.models.host import ModelHosts
from triage.models.sources import Source
from triage.models.tensors import ModelOutput
from triage.models.volume import Volume, load_volume

BRIGHT = 200
THRESHOLD = 100.0


@dataclass(frozen=True)
class Scanned:
    """A mask in the patient, scanned: where each slice lies and which of its voxels are marked.

    Attributes:
        mask: (slices, rows, columns).
        turn: columns are the directions of a row, of a column, and their normal.
        positions: (slices, 3), of the first pixel of each slice.
        spacing_mm: between rows and between columns.
    """

    mask: NDArray[np.bool_]
    turn: NDArray[np.float64]
    positions: NDArray[np.float64]
    spacing_mm: tuple[float, float]

    def write(self, folder: Path, order: list[int], *, is_multi_frame: bool) -> list[Source]:
        """Write the slices in an `order` that is not theirs."""
        orientation = [*self.turn[:, 0], *self.turn[:, 1]]
        pixels = (self.mask * BRIGHT).astype(np.int16)
        if is_multi_frame:
            dataset = enhanced(
                pixels[order],
                self.positions[order].tolist(),
                orientation=orientation,
                spacing_mm=self.spacing_mm,
            )
            return written(dataset, folder)
        series = [
            slice_dataset(
                pixels[index],
                self.positions[index],
                number,
                ImageOrientationPatient=[f"{v:.10f}" for v in orientation],
                PixelSpacing=[f"{v:.8g}" for v in self.spacing_mm],
            )
            for number, index in enumerate(order, start=1)
        ]
        return write_all(series, folder)

    def marked_places(self) -> NDArray[np.float64]:
        """Return where in the patient the marked voxels lie, (voxels, 3) in LPS."""
        slices, rows, columns = np.nonzero(self.mask)
        along_row = columns[:, None] * self.spacing_mm[1] * self.turn[:, 0]
        along_column = rows[:, None] * self.spacing_mm[0] * self.turn[:, 1]
        return self.positions[slices] + along_row + along_column


@st.composite
def scans(draw: st.DrawFn) -> Scanned:
    """Draw a geometry: any direction, spacing, tilt and number of slices, even or uneven."""
    turn = rotation(*draw(st.tuples(ANGLES, ANGLES, ANGLES)))
    slices, rows, columns = draw(st.tuples(st.integers(2, 7), st.integers(3, 8), st.integers(3, 8)))
    gap = draw(st.floats(0.8, 6.0))
    gaps = np.full(slices - 1, gap)
    is_even = draw(st.booleans())
    if not is_even:
        gaps = gaps * draw(st.lists(st.floats(0.8, 1.15), min_size=slices - 1, max_size=slices - 1))
    depths = np.concatenate([[0.0], np.cumsum(gaps)])
    tilt = draw(st.sampled_from([0.0, 0.0, -0.4, 0.3]))
    along = turn @ np.array([0.0, np.tan(tilt), 1.0])
    shape = (slices, rows, columns)
    bits = draw(st.integers(1, 2 ** (rows * columns) - 1))
    plane = np.array([bits >> n & 1 for n in range(rows * columns)], np.bool_)
    # A slice between two others shows what both show, so uneven slices are all alike here.
    mask = np.broadcast_to(plane.reshape(rows, columns), shape).copy()
    if is_even:
        mask[draw(st.integers(0, slices - 1)) :: 2] = False
        mask[draw(st.integers(0, slices - 1)), rows // 2, columns // 2] = True
    origin = np.array([12.0, -30.0, 200.0])
    spacing = draw(st.tuples(st.floats(0.3, 2.0), st.floats(0.3, 2.0)))
    return Scanned(mask, turn, origin + depths[:, None] * along, spacing)


def marked(prepared: Prepared) -> NDArray[np.bool_]:
    """Return what the tiniest of all models marks."""
    return prepared.model_input.values > THRESHOLD


def brought_back(volume: Volume, prepared: Prepared) -> None:
    """Fail unless labels and probabilities come back on the marked voxels of the source."""
    found = marked(prepared)
    back = prepared.on_source(
        ModelOutput(labels=found.astype(np.uint8), probabilities=found[None].astype(np.float32))
    )
    assert back.labels is not None
    assert back.probabilities is not None
    np.testing.assert_array_equal(back.labels > 0, volume.values > THRESHOLD)
    np.testing.assert_array_equal(back.probabilities[0] >= 0.5, volume.values > THRESHOLD)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    scanned=scans(),
    is_multi_frame=st.booleans(),
    orientation=st.sampled_from([None, "RAS", "LPS", "SPR", "IAL"]),
    tilted_gantry=st.sampled_from(["state", "shear-correct"]),
    data=st.data(),
)
def test_mask_lands_on_exactly_the_source_voxels(
    scanned: Scanned,
    is_multi_frame: bool,
    orientation: str | None,
    tilted_gantry: str,
    data: st.DataObject,
) -> None:
    wanted = VolumeInput(orientation=orientation, tilted_gantry=tilted_gantry)
    order = data.draw(st.permutations(range(len(scanned.mask))))
    with tempfile.TemporaryDirectory() as folder:
        sources = scanned.write(Path(folder), order, is_multi_frame=is_multi_frame)
        volume = load_volume(sources, wanted)
    np.testing.assert_array_equal(volume.values > THRESHOLD, scanned.mask)
    prepared = prepare(volume, wanted)
    brought_back(volume, prepared)
    check_places(scanned, volume, prepared, may_shift=tilted_gantry == "shear-correct")


def check_places(scanned: Scanned, volume: Volume, prepared: Prepared, *, may_shift: bool) -> None:
    """Fail unless what the model marks lies where it was in the patient, by its affine."""
    indices = np.argwhere(marked(prepared))[:, ::-1]
    affine = prepared.model_input.affine
    assert affine is not None
    found = indices @ affine[:3, :3].T + affine[:3, 3]
    wanted = scanned.marked_places()
    if not volume.is_even:
        # Other slices, of the same extent: the middles of both agree, but for half a slice.
        found, wanted = found.mean(axis=0), wanted.mean(axis=0)
        assert np.abs(found - wanted).max() < volume.spacing_mm[0] + np.hypot(*scanned.spacing_mm)
        return
    away = np.linalg.norm(found[:, None] - wanted[None], axis=2).min(axis=0).max()
    rounding = 0.01 + 0.05 * volume.spacing_mm[0] * len(scanned.mask)  # what passes for even
    assert away < rounding + (0.51 * np.hypot(*scanned.spacing_mm) if may_shift else 0.0)


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "SAR"])
def test_axes_point_where_the_manifest_says(tmp_path: Path, orientation: str) -> None:
    values = np.zeros((3, 4, 5), np.int16)
    volume = load_volume(write_all(axial_series(values), tmp_path))
    prepared = prepare(volume, VolumeInput(orientation=orientation))
    affine = prepared.model_input.affine
    assert affine is not None
    sizes = {"R": 5, "L": 5, "A": 4, "P": 4, "S": 3, "I": 3}
    assert prepared.model_input.values.shape == tuple(sizes[letter] for letter in orientation)
    for axis, letter in enumerate(orientation):
        step = affine[:3, 2 - axis]
        lps = int(np.abs(step).argmax())
        assert "LPS"[lps] == letter if step[lps] > 0 else "RAI"[lps] == letter


def test_straightened_slices_lie_above_one_another(tmp_path: Path) -> None:
    tilt_mm = 2.0  # four pixels a slice
    series = axial_series(np.full((4, 6, 6), BRIGHT, np.int16))
    for number, ds in enumerate(series):
        ds.ImagePositionPatient = [-10, -20 + tilt_mm * number, 5 * number]
    wanted = VolumeInput(tilted_gantry="shear-correct")
    volume = load_volume(write_all(series, tmp_path), wanted)
    assert volume.remarks == ("gantry tilted by 21.8 degrees, straightened",)
    prepared = prepare(volume, wanted)
    affine = prepared.model_input.affine
    assert affine is not None
    np.testing.assert_allclose(affine[:3, 2], [0, 0, 5])
    assert prepared.model_input.values.shape == (4, 18, 6)
    assert prepared.model_input.values.min() == -1000  # around the slices is air
    assert (marked(prepared).sum(axis=(1, 2)) == 36).all()
    refusing = VolumeInput(tilted_gantry="refuse")
    with pytest.raises(InputRefusedError, match=r"the gantry is tilted by 21\.8 degrees"):
        load_volume(write_all(series, tmp_path), refusing)


def test_gap_is_filled_for_the_model_where_the_manifest_asks(tmp_path: Path) -> None:
    values = np.full((6, 4, 4), BRIGHT, np.int16)
    series = axial_series(values)
    sources = write_all([*series[:2], *series[4:]], tmp_path)
    wanted = VolumeInput(missing_slices="interpolate")
    volume = load_volume(sources, wanted)
    assert volume.remarks[0].endswith("where the usual distance is 5 mm; interpolated")
    prepared = prepare(volume, wanted)
    assert prepared.model_input.values.shape == (6, 4, 4)
    brought_back(volume, prepared)
    hole = axial_series(values[:5], depths_mm=[0.0, 5, 10, 35, 40])
    with pytest.raises(InputRefusedError, match="slices are missing: a gap of 25 mm"):
        load_volume(write_all(hole, tmp_path / "hole"), wanted)
    uneven = axial_series(values[:4], depths_mm=[0.0, 5, 10, 17])
    with pytest.raises(InputRefusedError, match="uneven distances, 5 to 7 mm"):
        load_volume(write_all(uneven, tmp_path / "uneven"), VolumeInput(uneven_slices="refuse"))


@pytest.mark.parametrize("letters", ["RAR", "XYZ", "RA", "ras"])
def test_orientation_names_each_axis_once(letters: str) -> None:
    with pytest.raises(ValueError, match="one letter each of R or L, A or P, S or I"):
        VolumeInput(orientation=letters)


async def test_real_model_marks_the_source_voxels_of_an_oblique_multi_frame_image(
    hosts: ModelHosts, tmp_path: Path
) -> None:
    package = make_segmentation(
        tmp_path / "package",
        runner_input={"kind": "volume", "orientation": "RAS", "tilted_gantry": "shear-correct"},
    )
    turn = rotation(0.3, -1.2, 0.8)
    mask = np.zeros((6, 24, 20), np.bool_)
    mask[2:4, 5:9, 4:7] = True
    mask[3, 9, 4] = True
    depths = 5.0 * np.arange(6)[:, None]
    along = turn @ np.array([0.0, np.tan(0.3), 1.0])
    scanned = Scanned(mask, turn, depths * along, (0.5, 0.7))
    order = [3, 0, 5, 1, 4, 2]
    sources = scanned.write(tmp_path / "series", order, is_multi_frame=True)
    analysis = await analyse(hosts, package, sources)
    np.testing.assert_array_equal(analysis.segmentation, mask)
    assert analysis.source_frames == tuple(order.index(n) + 1 for n in range(6))
    (finding,) = analysis.findings
    assert finding.key_image_frames == (order.index(3) + 1, order.index(2) + 1)
