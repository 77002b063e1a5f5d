"""Intracranial bleeding of a requested type and volume in a simulated head.

Every type is a scalar field that grows outwards from where the bleeding starts; the lesion is the
part of the allowed space below the threshold that gives the volume asked for, so the volume holds
to within a voxel whatever the shape.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from triage.simulator.fields import Volume, smooth_field
from triage.simulator.head_anatomy import Box, Head, Mask, Point


class HemorrhageKind(StrEnum):
    INTRAPARENCHYMAL = "intraparenchymal"
    SUBDURAL = "subdural"
    EPIDURAL = "epidural"
    INTRAVENTRICULAR = "intraventricular"
    SUBARACHNOID = "subarachnoid"


@dataclass(frozen=True)
class LesionSpec:
    """A bleeding to be made: its type, volume in mL and mean density in HU."""

    kind: HemorrhageKind
    volume_ml: float
    mean_hu: float = 68.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.volume_ml <= 150:
            raise ValueError(f"volume_ml must lie between 0.1 and 150 mL, not {self.volume_ml}")
        if not 45 <= self.mean_hu <= 100:
            raise ValueError(f"mean_hu must lie between 45 and 100 HU, not {self.mean_hu}")

    @property
    def midline_shift_mm(self) -> float:
        """How far a bleeding of this size pushes the midline over, roughly."""
        pushes = self.kind not in (HemorrhageKind.INTRAVENTRICULAR, HemorrhageKind.SUBARACHNOID)
        return min(12.0, 0.15 * max(0.0, self.volume_ml - 8)) if pushes else 0.0


@dataclass(frozen=True)
class Growth:
    """A field to be thresholded within a box; infinite where the bleeding cannot be."""

    box: Box
    field: Volume


def draw_lesion(rng: np.random.Generator) -> LesionSpec:
    """Return a bleeding of random type, 0.5 to 60 mL (log-uniform) and 50 to 90 HU."""
    kind = rng.choice(list(HemorrhageKind))
    largest = {HemorrhageKind.INTRAVENTRICULAR: 35.0, HemorrhageKind.SUBARACHNOID: 30.0}.get(
        kind, 60.0
    )
    volume = float(np.exp(rng.uniform(np.log(0.5), np.log(largest))))
    low = 55.0 if kind is HemorrhageKind.SUBARACHNOID else 50.0
    return LesionSpec(HemorrhageKind(kind), volume, float(rng.triangular(low, 68, 90)))


def _pick(rng: np.random.Generator, head: Head, allowed: Mask) -> Point:
    """Return a random place of `allowed` in head coordinates, so that it is within the scan."""
    places = np.flatnonzero(allowed)
    if places.size == 0:
        raise ValueError("the scan does not cover any place where this bleeding could be")
    at = rng.choice(places)
    return float(head.x.flat[at]), float(head.y.flat[at]), float(head.z.flat[at])


def _intraparenchymal(rng: np.random.Generator, head: Head, volume_ml: float) -> Growth:
    coarse = (slice(None, None, 2), slice(None, None, 4), slice(None, None, 4))
    radius = (volume_ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3)
    brain = (head.depth_mm > min(4 + 0.6 * radius, 25)) & (head.ventricle_mm > 1)
    deep = rng.random() < 0.5
    if deep:  # hypertensive bleeding: basal ganglia, thalamus, pons, cerebellum
        places = [(26, -4, 2), (-26, -4, 2), (12, 14, 5), (-12, 14, 5), (0, 14, -40)]
        places += [(20, 48, -42), (-20, 48, -42)]
        near = np.zeros(head.x[coarse].shape, bool)
        for p in places:
            d2 = (head.x[coarse] - p[0]) ** 2 + (head.y[coarse] - p[1]) ** 2
            near |= d2 + (head.z[coarse] - p[2]) ** 2 < 8**2
        seeds = np.zeros(head.shape, bool)
        seeds[coarse] = near
        if (seeds & brain).any():
            brain &= seeds
    at = _pick(rng, head, brain)
    stretch = np.exp(rng.normal(0, 0.22, 3))
    stretch /= np.prod(stretch) ** (1 / 3)
    box = head.around(at, float(2.2 * radius + 6))
    half = (float(stretch[0]), float(stretch[1]), float(stretch[2]))
    distance = head.ellipsoid(box, at, half)
    shape = (distance.shape[0], distance.shape[1], distance.shape[2])
    ragged = smooth_field(rng, shape, head.spacing_mm, max(3.0, 0.7 * radius))
    fine = smooth_field(rng, shape, head.spacing_mm, 3.0)
    distance += 0.16 * radius * ragged + 0.5 * fine
    # Brain gives way sooner than CSF spaces are entered; a big bleeding breaks in all the same.
    distance += np.where((head.sulcus[box] < 0) | (head.ventricle_mm[box] < 0), 0.5 * radius, 0)
    distance[head.depth_mm[box] < 0.5] = np.inf
    return Growth(box, distance)


def _over_convexity(rng: np.random.Generator, head: Head, volume_ml: float, lens: bool) -> Growth:
    """Return the growth of a subdural crescent or an epidural lens along the inner table."""
    v = head.variant
    shell = (head.depth_mm > 0) & (head.outer_mm < 3) & (head.z > -20) & (np.abs(head.x) > 22)
    if not shell.any():
        shell = (head.depth_mm > 0) & (head.outer_mm < 6)
    at = _pick(rng, head, shell)
    thick = np.clip((3.5 + 2.1 * np.sqrt(volume_ml)) * rng.uniform(0.75, 1.3), 3.5, 24)
    if lens:
        thick = np.clip(1.45 * thick, 5, 38)
    area = volume_ml * 1000 / (0.5 * thick)
    reach = np.sqrt(area / np.pi)
    direction = np.array(at) / (v.half_width, v.half_length, v.half_height)
    direction /= np.linalg.norm(direction)
    box = head.around(at, float(2.6 * reach + 12))
    u, w, q = head.x[box] / v.half_width, head.y[box] / v.half_length, head.z[box] / v.half_height
    # Arc lengths on the ellipsoid from where it is thickest; a subdural spreads more along y.
    along = 0.7 if not lens else 0.9
    dx, dy, dz = u - direction[0], w - direction[1], q - direction[2]
    radial = dx * direction[0] + dy * direction[1] + dz * direction[2]
    arc2 = (dx**2 + dz**2) * v.half_width**2 + (along * dy * v.half_length) ** 2
    arc2 = np.maximum(arc2 - (radial * v.half_width) ** 2, 0) / reach**2
    shape = (u.shape[0], u.shape[1], u.shape[2])
    ragged = smooth_field(rng, shape, head.spacing_mm, 14.0)
    depth = head.depth_mm[box] / thick
    profile = arc2 if lens else np.maximum(arc2, 0) ** 1.7
    growth = np.asarray(depth + profile + 0.07 * ragged, dtype=np.float32)
    same_side = head.x[box] * np.sign(at[0]) > (1.0 if not lens else -99)
    growth[(head.depth_mm[box] < 0) | ~same_side] = np.inf
    return Growth(box, growth)


def _intraventricular(rng: np.random.Generator, head: Head, volume_ml: float) -> Growth:
    box = head.box((-60, -60, -60), (60, 75, 50))
    distance = head.ventricle_mm[box]
    if distance.size == 0:
        return Growth(box, distance)
    # Blood settles at the back of the supine patient; from there it fills forwards and casts.
    side = rng.choice([-1, 0, 1], p=[0.3, 0.4, 0.3])
    level = -0.06 * head.y[box] + 0.05 * side * head.x[box]
    shape = (distance.shape[0], distance.shape[1], distance.shape[2])
    level += 0.35 * smooth_field(rng, shape, head.spacing_mm, 9.0)
    outwards = np.where(distance < 0, 0.0, 2.0 + 1.2 * distance)
    growth = np.asarray(level + outwards, dtype=np.float32)
    growth[(head.depth_mm[box] < 2) | (distance > 8)] = np.inf
    del volume_ml
    return Growth(box, growth)


def _subarachnoid(rng: np.random.Generator, head: Head, volume_ml: float) -> Growth:
    basal = rng.random() < 0.6
    fluid = (head.depth_mm > 0.3) & (head.sulcus < 0) & (head.ventricle_mm > 0)
    if basal:
        around = (np.abs(head.x) < 25) & (np.abs(head.y + 8) < 20) & (np.abs(head.z + 24) < 12)
        seeds = fluid & around
        fluid = seeds if seeds.any() else fluid
    at = _pick(rng, head, fluid)
    reach = 9.5 * volume_ml ** (1 / 3) + 6
    box = head.around(at, float(3 * reach))
    distance = head.ellipsoid(box, at, (reach, reach, 0.7 * reach))
    shape = (distance.shape[0], distance.shape[1], distance.shape[2])
    patchy = smooth_field(rng, shape, head.spacing_mm, 12.0)
    thickness = np.maximum(head.sulcus[box] + 0.02, 0) * 5
    growth = np.asarray(distance + thickness + 0.25 * patchy, dtype=np.float32)
    growth[(head.depth_mm[box] < 0.3) | (head.ventricle_mm[box] < 0)] = np.inf
    return Growth(box, growth)


def bleed(rng: np.random.Generator, head: Head, spec: LesionSpec) -> Mask:
    """Paint one bleeding into `head` and return where it is, on the head's working grid."""
    match spec.kind:
        case HemorrhageKind.INTRAPARENCHYMAL:
            growth = _intraparenchymal(rng, head, spec.volume_ml)
        case HemorrhageKind.SUBDURAL:
            growth = _over_convexity(rng, head, spec.volume_ml, lens=False)
        case HemorrhageKind.EPIDURAL:
            growth = _over_convexity(rng, head, spec.volume_ml, lens=True)
        case HemorrhageKind.INTRAVENTRICULAR:
            growth = _intraventricular(rng, head, spec.volume_ml)
        case HemorrhageKind.SUBARACHNOID:
            growth = _subarachnoid(rng, head, spec.volume_ml)
    wanted = max(1, round(spec.volume_ml * 1000 / float(np.prod(head.spacing_mm))))
    free = growth.field[np.isfinite(growth.field)]
    if free.size == 0:
        raise ValueError(f"the scan does not cover any place for a {spec.kind} bleeding")
    level = np.partition(free, wanted - 1)[wanted - 1] if wanted < free.size else np.inf
    inside = np.isfinite(growth.field) & (growth.field <= level)
    _paint_blood(rng, head, spec, growth=growth, inside=inside, level=float(level))
    mask = np.zeros(head.shape, bool)
    mask[growth.box] = inside
    return mask


def _paint_blood(
    rng: np.random.Generator,
    head: Head,
    spec: LesionSpec,
    *,
    growth: Growth,
    inside: Mask,
    level: float,
) -> None:
    """Give the voxels `inside` the density of clot, and brain around a hematoma its oedema."""
    hu = head.hu[growth.box]
    if spec.kind is HemorrhageKind.INTRAPARENCHYMAL:
        rim = rng.uniform(1.5, 7.0)
        oedema = (growth.field > level) & (growth.field < level + rim) & (hu < 45) & (hu > 15)
        hu[oedema] -= rng.uniform(4, 12)
    shape = (inside.shape[0], inside.shape[1], inside.shape[2])
    clot = rng.uniform(1, 5) * smooth_field(rng, shape, head.spacing_mm, 8.0)
    # Clot retracts and sediments: the dependent part is a little denser.
    clot += rng.uniform(0, 0.12) * (head.y[growth.box] - head.y[growth.box].mean())
    clot -= clot[inside].mean()
    hu[inside] = spec.mean_hu + np.clip(clot, -12, 12)[inside]
