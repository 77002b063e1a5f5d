"""Simulated non-contrast head CT with known bleeding, in Hounsfield units.

A simulated study is for training, testing and showing the pipeline; it proves nothing about
patients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from triage.simulator.fields import (
    Volume,
    apply_along_axes,
    blur_matrix,
    ct_noise,
    linear_matrix,
    mean_matrix,
    smooth_field,
)
from triage.simulator.head_anatomy import (
    Head,
    HeadVariant,
    Mask,
    Pose,
    build_head,
    smoothstep,
)
from triage.simulator.hemorrhage import HemorrhageKind, LesionSpec, bleed, draw_lesion

__all__ = [
    "HemorrhageKind",
    "Lesion",
    "LesionSpec",
    "SimulatedHeadCT",
    "draw_lesion",
    "simulate_head_ct",
]

_SUBSLICE_MM = 2.6  # a slice is the mean of several thinner ones: partial volume


@dataclass(frozen=True)
class Lesion:
    """A bleeding that is in the volume: type, the volume it really has, mean density, label."""

    kind: HemorrhageKind
    volume_ml: float
    mean_hu: float
    label: int


@dataclass(frozen=True)
class SimulatedHeadCT:
    """A volume (slices, rows, columns), which run to the vertex, to the back and to the left.

    `hu` is int16 in HU. `labels` is uint8: 0 for no bleeding, else the `label` of a lesion.
    `spacing_mm` is (slice distance, row distance, column distance).
    """

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    lesions: tuple[Lesion, ...]
    spacing_mm: tuple[float, float, float]

    @property
    def volume_ml(self) -> float:
        """All bleeding together, in mL."""
        return sum(lesion.volume_ml for lesion in self.lesions)

    @property
    def affine(self) -> NDArray[np.float64]:
        """Return (4, 4): indices (column, row, slice, 1) to patient coordinates (LPS) in mm."""
        dz, dy, dx = self.spacing_mm
        slices, rows, columns = self.hu.shape
        origin = (-dx * (columns - 1) / 2, -dy * (rows - 1) / 2, -dz * (slices - 1) / 2)
        matrix = np.diag([dx, dy, dz, 1.0])
        matrix[:3, 3] = origin
        return matrix


def simulate_head_ct(
    rng: np.random.Generator,
    *,
    shape: tuple[int, int, int] = (32, 256, 256),
    spacing_mm: tuple[float, float, float] = (5.0, 0.94, 0.94),
    lesions: Sequence[LesionSpec] | None = None,
    pose: Pose | None = None,
    working_pixel_mm: float = 1.0,
) -> SimulatedHeadCT:
    """Return a head CT with exactly the bleeding asked for; none makes a negative study.

    Anatomy is made on pixels of `working_pixel_mm` and interpolated from there: CT resolves little
    more in brain. The same generator state gives the same volume. Raises ValueError where
    a bleeding finds no place, for example when the scan ends above the ventricles.
    """
    lesions = tuple(lesions or ())
    pose = pose or Pose.draw(rng)
    variant = _variant_for(rng, lesions)
    groups = max(1, round(spacing_mm[0] / _SUBSLICE_MM))
    coarse = tuple(
        min(n, max(8, round(n * s / working_pixel_mm)))
        for n, s in zip(shape[1:], spacing_mm[1:], strict=True)
    )
    grid = (shape[0] * groups, coarse[0], coarse[1])
    pixel = tuple(n * s / c for n, s, c in zip(shape[1:], spacing_mm[1:], coarse, strict=True))
    grid_mm = (spacing_mm[0] / groups, pixel[0], pixel[1])
    # The scan usually runs from the skull base to the vertex; the margin below varies.
    top_mm = rng.uniform(78, 100)
    centre_slice = grid[0] - 1 - top_mm / grid_mm[0]
    head = build_head(rng, grid, grid_mm, pose=pose, variant=variant, centre_slice=centre_slice)
    masks = [bleed(rng, head, spec) for spec in lesions]
    _add_headrest(head, rng)
    return _scan(
        rng,
        head,
        shape=shape,
        spacing_mm=spacing_mm,
        groups=groups,
        lesions=lesions,
        masks=masks,
    )


def _variant_for(rng: np.random.Generator, lesions: Sequence[LesionSpec]) -> HeadVariant:
    """Return a patient whose midline and ventricles fit the bleeding."""
    variant = HeadVariant.draw(rng)
    shift = max((spec.midline_shift_mm for spec in lesions), default=0.0)
    side = rng.choice([-1, 1])
    variant = replace(variant, midline_shift_mm=float(side * shift * rng.uniform(0.3, 1.0)))
    cast = sum(s.volume_ml for s in lesions if s.kind is HemorrhageKind.INTRAVENTRICULAR)
    if cast > 8:  # blood in the ventricles widens them
        wider = variant.ventricle_growth_mm + 0.12 * cast
        variant = replace(variant, ventricle_growth_mm=min(wider, 6.5))
    return variant


def _add_headrest(head: Head, rng: np.random.Generator) -> None:
    """Paint the head holder, a thin curved shell behind and beside the head."""
    _, rows, columns = head.shape
    _, dy, dx = head.spacing_mm
    y = (np.arange(rows) - rows / 2)[:, None] * dy + rng.uniform(-8, 8)
    x = (np.arange(columns) - columns / 2)[None, :] * dx + rng.uniform(-6, 6)
    width, depth = rng.uniform(92, 125), rng.uniform(100, 118)
    r = np.sqrt((x / width) ** 2 + (np.maximum(y, -30) / depth) ** 2)
    thick = rng.uniform(1.2, 3.0) / depth
    shell = (np.abs(r - 1) < thick) & (y > rng.uniform(-10, 50))
    pad = (r > 1 - rng.uniform(0.03, 0.12)) & (r < 1) & (y > 30)
    air = head.hu < -600
    head.hu[air & pad[None]] = rng.uniform(-960, -850)
    head.hu[air & shell[None]] = rng.uniform(-150, 250)


def _scan(
    rng: np.random.Generator,
    head: Head,
    *,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    groups: int,
    lesions: Sequence[LesionSpec],
    masks: Sequence[Mask],
) -> SimulatedHeadCT:
    """Return what the scanner makes of `head`: blur, partial volume, artefacts and noise."""
    artefact = _bone_artefacts(head, rng, groups)
    sharpness_mm = rng.uniform(0.45, 0.85)
    matrices = [
        mean_matrix(shape[0], groups),
        *(
            linear_matrix(shape[axis], head.shape[axis])
            @ blur_matrix(head.shape[axis], sharpness_mm / head.spacing_mm[axis])
            for axis in (1, 2)
        ),
    ]
    hu = apply_along_axes(head.hu, matrices)
    hu += apply_along_axes(
        artefact, [None, *(linear_matrix(shape[a], head.shape[a]) for a in (1, 2))]
    )
    hu += rng.normal(0, 1.2)
    level = rng.uniform(1.8, 5.0) * np.sqrt(5.0 / spacing_mm[0])
    noise = ct_noise(rng, shape, spacing_mm[1:], rng.uniform(0.45, 0.75))
    noise *= (level * (0.75 + 0.35 * rng.random(shape[0]))).astype(np.float32)[:, None, None]
    hu += noise
    np.clip(hu, -1024, 3071, out=hu)
    labels = np.zeros(shape, np.uint8)
    made = []
    for number, (spec, mask) in enumerate(zip(lesions, masks, strict=True), start=1):
        volume_ml = float(mask.sum() * np.prod(head.spacing_mm) / 1000)
        labels[_to_scan_grid(mask, matrices, spacing_mm, volume_ml)] = number
        made.append(Lesion(spec.kind, volume_ml, spec.mean_hu, number))
    return SimulatedHeadCT(np.rint(hu).astype(np.int16), labels, tuple(made), spacing_mm)


def _to_scan_grid(
    mask: Mask,
    matrices: Sequence[NDArray[np.float32] | None],
    spacing_mm: tuple[float, float, float],
    volume_ml: float,
) -> Mask:
    """Return the voxels of the scan that are mostly lesion, as many as its volume makes."""
    share = apply_along_axes(mask.astype(np.float32), matrices)
    wanted = max(1, round(volume_ml * 1000 / float(np.prod(spacing_mm))))
    some = share[share > 0.02]
    if some.size <= wanted:
        return np.asarray(share > 0.02)
    return np.asarray(share >= np.partition(some, some.size - wanted)[some.size - wanted])


def _bone_artefacts(head: Head, rng: np.random.Generator, groups: int) -> Volume:
    """Return beam hardening in HU, (slices of the scan, rows and columns of the working grid).

    Brain next to bone is brightened (cupping left after correction): measured on a real scan it is
    20 HU at the inner table, falls to nothing over 15 mm, and takes in the whole brain under the
    vertex and in the depth of the posterior fossa, where bone is all around. Bands and streaks lie
    between the dense petrous bones (the interpetrous or Hounsfield bar).
    """
    coarse = slice(groups // 2, None, groups)
    depth, x, y, z = (a[coarse] for a in (head.depth_mm, head.x, head.y, head.z))
    shape = (z.shape[0], z.shape[1], z.shape[2])
    spacing_mm = (head.spacing_mm[0] * groups, *head.spacing_mm[1:])
    uneven = 1 + 0.35 * smooth_field(rng, shape, spacing_mm, 50.0)
    inward = np.maximum(depth, 0)
    cup = rng.uniform(0, 14) * np.exp(-inward / rng.uniform(2, 4))
    cup += rng.uniform(0, 11) * np.exp(-inward / rng.uniform(6, 16))
    vault_mm = head.variant.half_height
    cup += rng.uniform(0, 16) * smoothstep(z, 0.55 * vault_mm, 0.95 * vault_mm)
    cup += rng.uniform(0, 16) * smoothstep(-z, 38, 62)
    low = np.exp(-(((z + 40) / 14) ** 2))
    band = -rng.uniform(2, 16) * np.exp(-(((y - 22 - 0.1 * np.abs(x)) / rng.uniform(4, 9)) ** 2))
    band *= np.exp(-((x / 42) ** 2))
    streaks = np.zeros_like(band)
    for side in (1, -1):
        angle = np.arctan2(y - 22, x - side * 48)
        wave = np.cos(rng.integers(9, 22) * angle + rng.uniform(0, 6))
        streaks += rng.uniform(0, 6) * wave * np.exp(-np.hypot(y - 22, x - side * 48) / 50)
    shading = 1.5 * smooth_field(rng, shape, spacing_mm, 50.0)  # what scatter leaves
    total = np.maximum(uneven, 0) * cup + low * (band + streaks) + shading
    total[depth < -20] = 0
    return np.asarray(total, dtype=np.float32)
