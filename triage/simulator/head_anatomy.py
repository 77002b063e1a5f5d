"""The anatomy of a simulated head: where each tissue lies and how many Hounsfield units it has.

The head's own frame is in mm: x to the patient's left, y to the back, z to the vertex, origin in
the midline near the interventricular foramen. Shapes are ellipsoids, capsules and one height map
for the skull base, all bent by smooth random displacements, so that no two heads are alike. Sizes
and densities are those of radiological anatomy texts, checked by eye against real head CT.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from triage.simulator.fields import Volume, smooth_field

Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Pose:
    """How the head lies in the scanner: rotations in degrees, shift in mm, size as a factor."""

    pitch_deg: float
    roll_deg: float
    yaw_deg: float
    shift_mm: Point
    size: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Pose":
        return cls(
            pitch_deg=float(rng.normal(0, 9)),
            roll_deg=float(rng.normal(0, 3)),
            yaw_deg=float(rng.normal(0, 6)),
            shift_mm=(float(rng.normal(0, 5)), float(rng.normal(0, 6)), float(rng.normal(0, 4))),
            size=float(rng.uniform(0.92, 1.07)),
        )

    def rotation(self) -> NDArray[np.float64]:
        """Return the matrix (3, 3) from scanner to head coordinates, without size and shift."""
        a, b, c = np.deg2rad([self.pitch_deg, self.roll_deg, self.yaw_deg])
        about_x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
        about_y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
        about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
        return np.asarray(np.array(about_x) @ np.array(about_y) @ np.array(about_z))


@dataclass(frozen=True)
class HeadVariant:
    """What differs between patients. Lengths in mm, densities in HU."""

    half_width: float
    half_length: float
    half_height: float
    skull_mm: float
    scalp_mm: float
    csf_layer_mm: float  # subarachnoid space over the convexity: widens with age
    sulcus_width: float
    ventricle_growth_mm: float
    third_ventricle_mm: float
    midline_shift_mm: float
    grey_hu: float
    white_hu: float
    csf_hu: float
    blood_pool_hu: float  # venous sinuses and arteries: follows the haematocrit
    muscle_hu: float
    bone_hu: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "HeadVariant":
        atrophy = rng.beta(1.5, 2.5)
        white = rng.uniform(24, 31)
        return cls(
            half_width=rng.uniform(61, 70),
            half_length=rng.uniform(77, 88),
            half_height=rng.uniform(66, 76),
            skull_mm=rng.uniform(4.5, 9.5),
            scalp_mm=rng.uniform(3.0, 9.0),
            csf_layer_mm=0.3 + 2.6 * atrophy * rng.uniform(0.5, 1.2),
            sulcus_width=0.05 + 0.4 * atrophy * rng.uniform(0.6, 1.3),
            ventricle_growth_mm=-1.5 + 6.0 * atrophy * rng.uniform(0.4, 1.2),
            third_ventricle_mm=0.8 + 3.5 * atrophy,
            midline_shift_mm=0.0,
            grey_hu=white + rng.uniform(5, 10),
            white_hu=white,
            csf_hu=rng.uniform(3, 13),
            blood_pool_hu=rng.uniform(40, 66),
            muscle_hu=rng.uniform(48, 68),
            bone_hu=rng.uniform(900, 1400),
        )


@dataclass(frozen=True)
class Tissue:
    """Random fields of variance 1 on the grid, and draws that hold for the whole head."""

    texture: Volume  # over 6 mm
    mottle: Volume  # over 12 mm
    coarse: Volume  # over 30 mm
    blobs: Volume  # over 11 mm
    fold: Volume  # gyri: zero in the sulci
    skin_hu: float
    diploe: float
    contrast_hu: float

    @classmethod
    def draw(cls, rng: np.random.Generator, head: "Head") -> "Tissue":
        def over(scale_mm: float) -> Volume:
            return smooth_field(rng, head.shape, head.spacing_mm, scale_mm)

        return cls(
            texture=over(6.0),
            mottle=over(12.0),
            coarse=over(30.0),
            blobs=over(11.0),
            fold=np.abs(over(rng.uniform(7.0, 9.5))),
            skin_hu=rng.uniform(10, 60),
            diploe=rng.uniform(0.25, 0.6),
            contrast_hu=rng.uniform(0.5, 2.5),
        )

    def part(self, part: slice) -> "Tissue":
        fields = ("texture", "mottle", "coarse", "blobs", "fold")
        return replace(self, **{name: getattr(self, name)[part] for name in fields})


@dataclass
class Head:
    """A head on a working grid (slices, rows, columns); x, y, z are head coordinates in mm."""

    x: Volume
    y: Volume
    z: Volume
    spacing_mm: tuple[float, float, float]
    centre: NDArray[np.float64]  # grid index of the head's origin
    to_grid: NDArray[np.float64]  # (3, 3), head mm to grid index
    variant: HeadVariant
    hu: Volume = field(init=False)
    outer_mm: Volume = field(
        init=False
    )  # depth below the inner table's ellipsoid; negative outside
    depth_mm: Volume = field(init=False)  # depth inside the cranial cavity; negative outside it
    sulcus: Volume = field(init=False)  # distance-like field, negative in sulci and cisterns
    ventricle_mm: Volume = field(
        init=False
    )  # distance to the ventricles, negative inside; 99 far off

    def __post_init__(self) -> None:
        self.hu = np.empty(self.shape, np.float32)
        self.outer_mm = np.empty(self.shape, np.float32)
        self.depth_mm = np.empty(self.shape, np.float32)
        self.sulcus = np.empty(self.shape, np.float32)

    @property
    def shape(self) -> tuple[int, int, int]:
        slices, rows, columns = self.x.shape
        return slices, rows, columns

    def slabs(self, thickness: int = 6) -> Iterator[tuple[slice, "Head"]]:
        """Yield views of the head, a few slices each: temporaries stay in the processor's cache."""
        for start in range(0, self.shape[0], thickness):
            part = slice(start, start + thickness)
            centre = self.centre - (start, 0, 0)
            slab = Head.__new__(Head)
            slab.__dict__.update(self.__dict__)
            slab.centre = centre
            for name in ("x", "y", "z", "hu", "outer_mm", "depth_mm", "sulcus"):
                setattr(slab, name, getattr(self, name)[part])
            yield part, slab

    def box(self, low: Point, high: Point, margin_mm: float = 7.0) -> Box:
        """Return the part of the grid that holds the box from `low` to `high` in head mm."""
        corners = np.array(
            [[(low, high)[i >> axis & 1][axis] for axis in range(3)] for i in range(8)], dtype=float
        )
        at = corners @ self.to_grid.T + self.centre
        margin = margin_mm / np.array(self.spacing_mm)
        first = np.clip(np.floor(at.min(axis=0) - margin), 0, self.shape).astype(int)
        last = np.clip(np.ceil(at.max(axis=0) + margin) + 1, 0, self.shape).astype(int)
        parts = [slice(int(a), int(b)) for a, b in zip(first, last, strict=True)]
        return parts[0], parts[1], parts[2]

    def around(self, point: Point, reach_mm: float | Point) -> Box:
        reach = (reach_mm,) * 3 if isinstance(reach_mm, float | int) else reach_mm
        (a, b, c), (u, v, w) = point, reach
        return self.box((a - u, b - v, c - w), (a + u, b + v, c + w))

    def ellipsoid(self, box: Box, at: Point, half: Point) -> Volume:
        """Return the normalised radius about `at` within `box`: 1 on the surface."""
        u = (self.x[box] - at[0]) / half[0]
        v = (self.y[box] - at[1]) / half[1]
        w = (self.z[box] - at[2]) / half[2]
        return np.asarray(np.sqrt(u * u + v * v + w * w), dtype=np.float32)

    def paint(self, at: Point, half: Point, hu: float, where: Volume | None = None) -> None:
        """Fill an ellipsoid with `hu`, only where the map `where` is positive, if given."""
        box = self.around(at, half)
        inside = self.ellipsoid(box, at, half) < 1
        if where is not None:
            inside &= where[box] > 0
        self.hu[box][inside] = hu


def smoothstep(value: NDArray[Any], low: float, high: float) -> Volume:
    """Return 0 below `low`, 1 above `high` and a smooth rise between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def _floor_height(x: Volume, y: Volume) -> Volume:
    """Return the skull base's height z in mm over head coordinates x, y in mm."""
    ax = np.abs(x)
    anterior = -27 + 12 * np.exp(-(((ax - 30) / 14) ** 2)) - 0.05 * np.maximum(0, -60 - y)
    middle = np.where(ax < 14, -27 - 3 * np.exp(-(((y + 8) / 6) ** 2)), -44 + 0.0 * ax)
    bowl = np.hypot(ax / 48, (y - 38) / 42)
    posterior = -70 + 34 * np.clip(bowl, 0, 1.3) ** 3
    clivus = -27 - 1.7 * (y - 0)
    posterior = np.maximum(posterior, np.where(ax < 22, clivus, -99))
    wing = smoothstep(y, -36, -26)
    behind = smoothstep(y - 0.62 * (ax - 12), 2, 12)
    height = anterior * (1 - wing) + wing * (middle * (1 - behind) + posterior * behind)
    along = np.clip(((ax - 12) * 46 + (y - 8) * 30) / (46**2 + 30**2), 0, 1.15)
    off = np.hypot(ax - 12 - 46 * along, y - 8 - 30 * along)
    petrous = -25 - 3 * along - (off / 7.5) ** 2 * 9
    height = np.maximum(height, np.where(along > 0, petrous, -99))
    height = np.where(np.hypot(x / 15, (y - 27) / 17) < 1, -140, height)  # foramen magnum
    return np.asarray(ndimage.gaussian_filter(height, 1.8), dtype=np.float32)


@lru_cache(maxsize=1)
def _floor_table() -> Volume:
    """Return the skull base's height at whole mm: row y + 150, column x + 120."""
    y, x = np.mgrid[-150:151, -120:121].astype(np.float32)
    return _floor_height(x, y)


def _floor_at(head: Head) -> Volume:
    row = np.clip(head.y + 150.5, 0, 300).astype(np.int16)
    column = np.clip(head.x + 120.5, 0, 240).astype(np.int16)
    height: Volume = _floor_table()[row, column]
    return height


def build_head(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    *,
    pose: Pose,
    variant: HeadVariant,
    centre_slice: float,
) -> Head:
    """Return a head with its tissues painted on a grid of `shape` (slices, rows, columns).

    `centre_slice` is the slice index, fractional, at which the head's origin lies.
    """
    middle = np.array([centre_slice, (shape[1] - 1) / 2, (shape[2] - 1) / 2])
    step = np.array(spacing_mm)
    # Grid axes (slice, row, column) are scanner z, y, x.
    shift = np.array([pose.shift_mm[2], pose.shift_mm[1], pose.shift_mm[0]])
    centre = middle + shift / step
    turn = pose.rotation()[:, ::-1] / pose.size
    index = [(np.arange(n) - c) * s for n, c, s in zip(shape, centre, step, strict=True)]
    axes = [i.astype(np.float32) for i in index]
    coordinates = []
    for row in turn.astype(np.float32):
        plane = row[1] * axes[1][:, None] + row[2] * axes[2][None, :]
        bend = smooth_field(rng, shape, spacing_mm, 45.0)
        bend *= 1.8
        bend += plane[None]
        bend += (row[0] * axes[0])[:, None, None]
        coordinates.append(bend)
    to_grid = np.linalg.inv(turn) / step[:, None]
    x, y, z = coordinates
    head = Head(x, y, z, spacing_mm, centre, to_grid, variant)
    _shift_midline(head)
    tissue = Tissue.draw(rng, head)
    for part, slab in head.slabs():
        _paint_outside(slab, tissue.part(part))
        _paint_brain(slab, tissue.part(part))
    _paint_deep(head, rng)
    _paint_dura_and_vessels(head, rng)
    _paint_face(head, rng)
    return head


def _shift_midline(head: Head) -> None:
    shift = head.variant.midline_shift_mm
    if shift:
        box = head.around((0, 0, 10), (50.0, 75.0, 60.0))
        fall = np.maximum(0, 1 - head.ellipsoid(box, (0, 0, 10), (50.0, 75.0, 60.0)))
        head.x[box] -= 1.6 * shift * fall


def _paint_outside(head: Head, tissue: Tissue) -> None:
    """Paint air, scalp, the skull, its base, and the soft tissue of face and neck."""
    v = head.variant
    below = np.minimum(head.z + 22, 0)
    z = np.maximum(head.z, -22)
    z += 0.22 * below
    z /= v.half_height
    u = head.x / v.half_width
    u *= u
    w = head.y / v.half_length
    w *= w
    z2 = z * z
    # The cross terms square the shape off: heads are boxier than ellipsoids.
    r2 = u + w - 0.3 * u * w + z2 - 0.22 * (u + w) * z2
    radius = np.sqrt(head.x**2 + head.y**2 + z2 * v.half_height**2, dtype=np.float32)
    head.outer_mm[:] = radius / np.sqrt(np.maximum(r2, 1e-6)) - radius
    above_floor = head.z - _floor_at(head)
    np.minimum(head.outer_mm, 0.8 * above_floor, out=head.depth_mm)
    texture, coarse = tissue.texture, tissue.coarse
    out = -head.outer_mm

    skull = v.skull_mm * (1 + 0.22 * coarse)
    skull += 1.5 * smoothstep(np.abs(head.y), 55, 80)
    base = 9 + 5 * coarse + 2 * texture
    scalp = v.scalp_mm * (1 + 0.15 * coarse)
    belly = smoothstep(28 - head.z, 0, 25) * smoothstep(1 - np.abs(head.y + 22) / 40, 0, 0.5)
    belly *= smoothstep(np.abs(head.x) / v.half_width, 0.6, 0.8)
    temporalis = (belly > 0.15) & (head.z > -60)
    scalp += 6.0 * belly
    scalp += np.where(head.y < -45, 10 * smoothstep(-head.z, 24, 40), 0)  # cheeks and nose
    scalp += np.where(head.y > 40, 9 * smoothstep(-head.z, 10, 50), 0)  # nape
    skin = skull + scalp

    hu = head.hu
    hu.fill(-1000)
    soft = out < skin
    fat = -95 + 12 * texture
    hu[soft] = fat[soft]
    muscle = v.muscle_hu + 4 * texture
    deep = soft & (above_floor < -base)
    meat = deep & (0.4 * texture + tissue.mottle + 0.6 * coarse > -0.35)
    hu[meat] = muscle[meat]
    flesh = temporalis & soft & (out > skull + 0.5) & (out < skin - 3)
    flesh |= soft & (head.y > 45) & (head.z < -22) & (out > skull + 1) & (out < skin - 4)
    hu[flesh] = muscle[flesh]
    hu[soft & (out > skin - 1.8)] = tissue.skin_hu
    _paint_skull(head, tissue, out=out, skull=skull, above_floor=above_floor, base=base)


def _paint_skull(
    head: Head,
    tissue: Tissue,
    *,
    out: Volume,
    skull: Volume,
    above_floor: Volume,
    base: Volume,
) -> None:
    """Paint vault and base; `out` is mm outside the inner table, the others are mm as well."""
    bone_hu, texture = head.variant.bone_hu, tissue.texture
    vault = (out > 0) & (out < skull) & (above_floor > -base)
    middle = 1 - np.abs(2 * out / np.maximum(skull, 1) - 1)  # 0 at the tables, 1 in the diploe
    density = bone_hu * (1.08 - tissue.diploe * middle) + 60 * texture
    head.hu[vault] = density[vault]
    floor = (out <= 0) & (above_floor <= 0) & (above_floor > -base)
    # Spongy bone and marrow: much of the base is hardly denser than blood.
    spongy = 0.12 + 0.88 * smoothstep(tissue.mottle, -1.5, 0.2)
    head.hu[floor] = (0.75 * bone_hu * spongy + 120 * texture)[floor]
    # Below the base: vertebra, jaw and skull base processes, as blobs of bone in the soft tissue.
    low = (above_floor < -base) & (out < 3) & (tissue.blobs > 1.25)
    head.hu[low] = 0.6 * bone_hu


def _paint_brain(head: Head, tissue: Tissue) -> None:
    """Paint CSF, grey and white matter; sulci are where a random field crosses zero."""
    v = head.variant
    fold, coarse = tissue.fold, tissue.coarse
    width = v.sulcus_width * (1 + 0.35 * coarse)
    reach = 17 + 4 * coarse
    fade = np.clip(1 - head.depth_mm / reach, -0.5, 1)
    head.sulcus[:] = fold - width * np.minimum(fade * 1.6, 1)
    layer = v.csf_layer_mm * (1 + 0.35 * coarse)
    np.minimum(head.sulcus, (head.depth_mm - layer) * 0.12, out=head.sulcus)
    _open_cisterns(head, tissue)

    inside = head.depth_mm > 0
    brain = inside & (head.sulcus > 0)
    # Cortex lines the surface and both banks of each sulcus.
    bank = np.clip((0.62 - head.sulcus) / 0.25, 0, 1) * np.clip((fade + 0.25) * 2.5, 0, 1)
    surface = np.clip((layer + 5.5 - head.depth_mm) / 2, 0, 1)
    grey = np.maximum(bank, surface)
    matter = v.white_hu + (v.grey_hu - v.white_hu) * grey
    matter += tissue.contrast_hu * (0.6 * coarse + 0.4 * tissue.mottle)
    head.hu[inside] = v.csf_hu
    head.hu[brain] = matter[brain]


def _open_cisterns(head: Head, tissue: Tissue) -> None:
    """Widen `sulcus` where the fissures and basal cisterns are."""
    wide = head.variant.csf_layer_mm
    box = head.box((-66, -40, -30), (66, 30, 25))
    ax = np.abs(head.x[box]) + 3 * tissue.coarse[box]
    wave = 3.5 * tissue.mottle[box]
    # Sylvian fissure: a sheet that climbs from the insula's front backwards.
    sheet = np.abs(head.z[box] + wave - (-12 + 0.45 * (head.y[box] + 20))) / (0.8 + 0.9 * wide) - 1
    ends = np.maximum((30 - ax) / 5, np.maximum(head.y[box] - 22, -30 - head.y[box]) / 5)
    insula = np.abs(ax + 0.5 * wave - 36) / (0.6 + 0.7 * wide) - 1
    insula = np.maximum(insula, np.abs(head.z[box] - (-5 + 0.45 * (head.y[box] + 5))) / 12 - 1)
    insula = np.maximum(insula, np.abs(head.y[box] + 4) / 20 - 1)
    fissure = np.minimum(np.maximum(sheet, ends), insula)
    np.minimum(head.sulcus[box], 0.25 * fissure, out=head.sulcus[box])
    # Interhemispheric fissure, about the falx.
    box = head.box((-8, -95, -30), (8, 95, 90))
    gap = np.abs(head.x[box]) / (0.5 + 0.6 * wide) - 1
    arch = 1 - head.ellipsoid(box, (0, 4, -6), (40.0, 46.0, 34.0))
    np.minimum(head.sulcus[box], np.maximum(0.2 * gap, arch), out=head.sulcus[box])
    half = 0.75 + 0.16 * wide
    for at, size in (
        ((0, -10, -24), (13 * half, 10 * half, 6 * half)),  # suprasellar
        ((0, 30, -8), (11 * half, 5 * half, 7 * half)),  # quadrigeminal
        ((0, 3, -38), (9 * half, 5 * half, 13.0)),  # prepontine
        ((0, 62, -60), (9 * half, 8 * half, 8.0)),  # cisterna magna
        ((22, 14, -34), (9 * half, 4 * half, 6 * half)),  # cerebellopontine angles
        ((-22, 14, -34), (9 * half, 4 * half, 6 * half)),
    ):
        box = head.around(at, size)
        np.minimum(
            head.sulcus[box], 0.4 * (head.ellipsoid(box, at, size) - 1), out=head.sulcus[box]
        )


@dataclass(frozen=True)
class Capsule:
    """A rod from `start` to `end` (head mm) whose radius runs evenly between two values, mm."""

    start: Point
    end: Point
    start_radius: float
    end_radius: float

    def bounds(self, reach: float) -> tuple[Point, Point]:
        """Return the corners of the box that holds it and `reach` mm more."""
        (a, b, c), (u, v, w) = self.start, self.end
        low = (min(a, u) - reach, min(b, v) - reach, min(c, w) - reach)
        return low, (max(a, u) + reach, max(b, v) + reach, max(c, w) + reach)

    def distance(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Return mm outside its surface, negative within."""
        d = np.subtract(self.end, self.start)
        px, py, pz = x - self.start[0], y - self.start[1], z - self.start[2]
        t = np.clip((px * d[0] + py * d[1] + pz * d[2]) / float(d @ d), 0, 1)
        off = np.sqrt((px - t * d[0]) ** 2 + (py - t * d[1]) ** 2 + (pz - t * d[2]) ** 2)
        off -= self.start_radius + t * (self.end_radius - self.start_radius)
        return np.asarray(off, dtype=np.float32)


# The lateral ventricle of the left side.
_LATERAL_VENTRICLE = (
    Capsule((9, -30, 4), (10, -14, 14), 4.0, 4.2),  # frontal horn
    Capsule((10, -14, 14), (14, 10, 20), 4.2, 4.0),  # body
    Capsule((14, 10, 20), (25, 32, 12), 4.0, 5.0),
    Capsule((25, 32, 12), (24, 54, 8), 5.0, 2.5),  # occipital horn
    Capsule((25, 32, 12), (31, 20, -10), 5.0, 2.4),  # temporal horn
    Capsule((31, 20, -10), (29, -2, -20), 2.4, 1.8),
)


def _set_ventricle_distance(head: Head) -> None:
    v = head.variant
    head.ventricle_mm = np.full(head.shape, 99, np.float32)
    everything = head.ventricle_mm
    grow = v.ventricle_growth_mm
    for capsule in _LATERAL_VENTRICLE:
        widest = max(capsule.start_radius, capsule.end_radius)
        low, high = capsule.bounds(widest + max(grow, 0) + 6)
        for left in (True, False):
            box = (
                head.box(low, high)
                if left
                else head.box((-high[0], low[1], low[2]), (-low[0], high[1], high[2]))
            )
            d = capsule.distance(np.abs(head.x[box]), head.y[box], head.z[box])
            np.minimum(everything[box], d - grow, out=everything[box])
    # The septum keeps the two sides apart.
    box = head.box((-6, -50, -10), (6, 50, 40))
    np.maximum(everything[box], 0.9 - np.abs(head.x[box]), out=everything[box])
    thin = v.third_ventricle_mm
    for at, half in (
        ((0.0, 0.0, -4.0), (thin, 14.0, 10.0)),
        ((0.0, 36.0, -42.0), (4 + thin, 4 + 0.8 * thin, 10.0)),
    ):
        box = head.around(at, half)
        d = (head.ellipsoid(box, at, half) - 1) * min(half)
        np.minimum(everything[box], d, out=everything[box])


def _paint_deep(head: Head, rng: np.random.Generator) -> None:
    """Paint the basal ganglia, brainstem, cerebellum, ventricles, and old white matter disease."""
    v = head.variant
    _set_ventricle_distance(head)
    inside = head.depth_mm
    for side in (1, -1):
        head.paint((side * 13, -16, 8), (5.0, 9.0, 10.0), v.grey_hu, inside)  # caudate
        head.paint((side * 25, -4, 1), (6.0, 16.0, 11.0), v.grey_hu, inside)  # putamen
        head.paint((side * 11, 14, 5), (8.0, 13.0, 9.0), v.grey_hu - 1, inside)  # thalamus
    cerebellum = ((0.0, 48.0, -45.0), (52.0, 34.0, 26.0))
    box = head.around(*cerebellum)
    leaf = (head.ellipsoid(box, *cerebellum) < 1) & (inside[box] > 2) & (head.z[box] < -18)
    head.hu[box][leaf & (head.sulcus[box] > -0.1)] = 0.6 * v.grey_hu + 0.4 * v.white_hu
    stem = ((0.0, 18.0, -40.0), (14.0, 13.0, 34.0))
    box = head.around(*stem)
    pons = (head.ellipsoid(box, *stem) < 1) & (inside[box] > 0)
    head.hu[box][pons] = 0.4 * v.grey_hu + 0.6 * v.white_hu
    head.sulcus[box][pons] = 0.5
    cord = head.box((-10, 15, -140), (10, 40, -60))
    canal = np.hypot(head.x[cord], head.y[cord] - 27)
    head.hu[cord][(canal < 10) & (head.z[cord] < -62)] = v.csf_hu
    head.hu[cord][(canal < 6) & (head.z[cord] < -62)] = v.white_hu

    wet = head.box((-60, -60, -30), (60, 70, 50))
    near = np.clip(1 - np.maximum(head.ventricle_mm[wet], 0) / rng.uniform(4, 14), 0, 1)
    brain = (inside[wet] > 0) & (head.sulcus[wet] > 0)
    head.hu[wet] -= np.where(brain, rng.uniform(0, 7) * near, 0)
    if rng.random() < 0.25:
        _paint_infarct(head, rng)
    head.hu[(head.ventricle_mm < 0) & (inside > 1)] = v.csf_hu


def _paint_infarct(head: Head, rng: np.random.Generator) -> None:
    """Paint an old infarct: darker brain, down to the density of CSF."""
    side = rng.choice([-1, 1])
    at = (side * rng.uniform(15, 50), rng.uniform(-45, 60), rng.uniform(-15, 45))
    half = (rng.uniform(6, 22), rng.uniform(6, 24), rng.uniform(6, 20))
    box = head.around(at, half)
    brain = (head.depth_mm[box] > 1) & (head.hu[box] < 60)
    depth = smoothstep(1.3 - head.ellipsoid(box, at, half), 0, 0.6)
    target = rng.uniform(head.variant.csf_hu, head.variant.white_hu - 4)
    head.hu[box] += np.where(brain, depth * (target - head.hu[box]), 0)


def _paint_dura_and_vessels(head: Head, rng: np.random.Generator) -> None:
    """Paint falx, tentorium, venous sinuses, arteries and the usual calcifications."""
    v = head.variant
    inside = head.depth_mm > 0
    box = head.box((-5, -95, -30), (5, 95, 90))
    falx_half = rng.uniform(0.5, 1.1)
    arch = head.ellipsoid(box, (0, 4, -6), (40.0, 46.0, 38.0)) > 1
    falx = (np.abs(head.x[box]) < falx_half) & arch & inside[box] & (head.z[box] > -20)
    head.hu[box][falx] = rng.uniform(42, 75)
    sagittal = inside[box] & (head.outer_mm[box] < rng.uniform(4, 9)) & (head.z[box] > -14)
    sagittal &= np.abs(head.x[box]) + 0.5 * head.outer_mm[box] < rng.uniform(2.5, 4.5)
    head.hu[box][sagittal] = v.blood_pool_hu
    box = head.box((-60, 10, -30), (60, 80, 10))
    roof = -20 + 24 * np.exp(-np.abs(head.x[box]) / 24) - 0.16 * np.maximum(head.y[box] - 25, 0)
    off = np.abs(head.z[box] - roof)
    tent = (off < rng.uniform(0.6, 1.3)) & inside[box] & (head.y[box] > 20)
    tent &= np.hypot(head.x[box] / 20, (head.y[box] - 20) / 22) > 1
    head.hu[box][tent] = rng.uniform(42, 62)
    transverse = (off < rng.uniform(2.0, 4.5)) & inside[box] & (head.outer_mm[box] < 7)
    transverse &= (head.y[box] > 25) & (head.x[box] * rng.choice([-1, 1]) > -rng.uniform(0, 80))
    head.hu[box][transverse] = v.blood_pool_hu
    _paint_arteries(head, rng)
    _paint_calcifications(head, rng)


def _paint_arteries(head: Head, rng: np.random.Generator) -> None:
    hu = head.variant.blood_pool_hu
    r = rng.uniform(0.9, 1.9)
    paths: list[tuple[Point, Point]] = [((0, 4, -40), (0, 2, -26))]
    for side in (1, -1):
        paths.append(((side * 9, -10, -26), (side * 28, -14, -18)))
        paths.append(((side * 9, -10, -26), (side * 1.5, -28, -14)))
        paths.append(((side * 1, 2, -25), (side * 18, 16, -16)))
    for a, b in paths:
        capsule = Capsule(a, b, r, r)
        box = head.box(*capsule.bounds(3), margin_mm=4)
        vessel = capsule.distance(head.x[box], head.y[box], head.z[box]) < 0
        head.hu[box][vessel & (head.depth_mm[box] > 0)] = hu


def _paint_calcifications(head: Head, rng: np.random.Generator) -> None:
    """Paint what is bright and normal: pineal, choroid plexus, globus pallidus, falx."""
    inside = head.depth_mm

    def spot(chance: float, at: Point, half: tuple[float, float], hu: tuple[float, float]) -> None:
        if rng.random() < chance:
            jitter = rng.normal(0, 1.5, 3)
            where = (at[0] + jitter[0], at[1] + jitter[1], at[2] + jitter[2])
            size = (rng.uniform(*half), rng.uniform(*half), rng.uniform(*half))
            head.paint(where, size, rng.uniform(*hu), inside)

    spot(0.6, (0, 27, 3), (1.2, 4.0), (90, 450))
    choroid = rng.random() < 0.55
    pallidum = rng.random() < 0.25
    for side in (1, -1):
        spot(0.9 * choroid, (side * 25, 33, 11), (1.5, 5.0), (80, 400))
        spot(0.9 * pallidum, (side * 19, -3, 1), (1.5, 5.0), (70, 220))
    for _ in range(rng.poisson(0.5)):
        spot(1.0, (0, rng.uniform(-70, -35), rng.uniform(0, 50)), (0.8, 3.5), (120, 600))
    for _ in range(rng.poisson(0.3)):
        at = (rng.uniform(-50, 50), rng.uniform(-60, 60), rng.uniform(-40, 55))
        spot(1.0, at, (0.8, 2.2), (120, 500))


def _paint_face(head: Head, rng: np.random.Generator) -> None:
    """Paint orbits, the air of sinuses, nose and mastoids, and swelling of the scalp."""
    skull_bone = 0.7 * head.variant.bone_hu
    outside = -head.depth_mm + 0.0
    for side in (1, -1):
        head.paint((side * 31, -66, -36), (18.0, 24.0, 16.0), -85, outside)
        head.paint((side * 31, -60, -36), (2.5, 22.0, 2.5), 35, outside)  # optic nerve
        for dx, dz in ((9, 0), (-9, 0), (0, 9), (0, -9)):
            head.paint((side * 31 + dx, -64, -36 + dz), (2.0, 14.0, 2.0), 55, outside)
        head.paint((side * 32, -76, -36), (12.2, 12.2, 12.2), rng.uniform(5, 18), outside)
        head.paint((side * 32, -85, -36), (4.0, 2.0, 4.0), 80, outside)  # lens
        _paint_air(
            head, (side * 28, -58, -68), (13.0, 16.0, 15.0), rng.uniform(0.6, 1.1), skull_bone
        )
        _paint_air(head, (side * 9, -66, -40), (7.0, 22.0, 13.0), 1.0, skull_bone)
        _paint_air(head, (side * 12, -84, -20), (9.0, 5.0, 12.0), rng.uniform(0.2, 1.2), skull_bone)
    _paint_air(head, (0, -22, -42), (12.0, 12.0, 9.0), rng.uniform(0.4, 1.1), skull_bone)
    head.paint((0, -60, -72), (9.0, 30.0, 14.0), -950, outside)
    cells = smooth_field(rng, head.shape, head.spacing_mm, 3.5)
    aeration = rng.uniform(-0.4, 0.6)
    for side in (1, -1):
        at, half = (side * 56.0, 36.0, -42.0), (13.0, 16.0, 17.0)
        box = head.around(at, half)
        mastoid = (head.ellipsoid(box, at, half) < 1) & (head.depth_mm[box] < -1.5)
        mastoid &= head.hu[box] > -200
        head.hu[box][mastoid] = skull_bone
        head.hu[box][mastoid & (cells[box] > 0.4 - aeration)] = -700
        ear = head.around((side * 66, 12, -46), (16.0, 5.0, 5.0))
        canal = head.ellipsoid(ear, (side * 66, 12, -46), (18.0, 3.5, 3.5)) < 1
        head.hu[ear][canal & (head.depth_mm[ear] < -1)] = -950
    if rng.random() < 0.35:
        _paint_scalp_swelling(head, rng)


def _paint_air(head: Head, at: Point, half: Point, share: float, bone_hu: float) -> None:
    """Paint an air space with a thin bony wall; `share` scales it, as sinuses differ in size."""
    size = (half[0] * share, half[1] * share, half[2] * share)
    box = head.around(at, size)
    r = head.ellipsoid(box, at, size)
    free = head.depth_mm[box] < -1.2
    head.hu[box][(r < 1.12) & free & (head.hu[box] > -300)] = bone_hu
    head.hu[box][(r < 1) & free] = -950


def _paint_scalp_swelling(head: Head, rng: np.random.Generator) -> None:
    """Paint a hematoma outside the skull: as bright as one inside, and not what is looked for."""
    v = head.variant
    angle = rng.uniform(0, 2 * np.pi)
    at = (
        1.05 * v.half_width * np.cos(angle),
        1.05 * v.half_length * np.sin(angle),
        rng.uniform(-10, 40),
    )
    reach = rng.uniform(12, 35)
    box = head.around(at, float(reach))
    near = head.ellipsoid(box, at, (reach, reach, reach)) < 1
    thick = head.variant.skull_mm * 1.2
    out = -head.outer_mm[box]
    swollen = near & (out > thick) & (out < thick + rng.uniform(3, 9)) & (head.hu[box] < 200)
    head.hu[box][swollen] = rng.uniform(40, 80)
