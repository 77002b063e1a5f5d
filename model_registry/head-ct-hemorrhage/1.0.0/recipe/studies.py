"""The simulated studies that the model is trained, tuned and tested on, each with its own seeds."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from triage.simulator.head_ct import (
    HemorrhageKind,
    LesionSpec,
    SimulatedHeadCT,
    draw_lesion,
    simulate_head_ct,
)

Part = Literal["train", "validation", "test"]
_FIRST_SEED: dict[Part, int] = {"train": 1_000_000, "validation": 2_000_000, "test": 3_000_000}
_POSITIVE_SHARE: dict[Part, float] = {"train": 0.78, "validation": 0.5, "test": 0.5}


@dataclass(frozen=True)
class StudyPlan:
    """A study to simulate: size (slices, rows, columns), distances in mm, bleeding."""

    seed: int
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    lesions: tuple[LesionSpec, ...]


def draw_plan(part: Part, index: int) -> StudyPlan:
    """Return study `index` of `part`: always the same one, and in no other part."""
    seed = _FIRST_SEED[part] + index
    rng = np.random.default_rng([seed, 1])
    lesions: tuple[LesionSpec, ...] = ()
    if rng.random() < _POSITIVE_SHARE[part]:
        lesions = (draw_lesion(rng),)
        if rng.random() < 0.2:
            lesions += (_companion(rng, lesions[0]),)
    slice_mm = float(rng.choice([3.0, 4.0, 5.0, 5.0, 5.0, 6.0]))
    covered_mm = rng.uniform(135, 170) if rng.random() < 0.85 else rng.uniform(95, 135)
    pixel_mm = float(rng.uniform(215, 260)) / 256
    shape = (round(covered_mm / slice_mm), 256, 256)
    return StudyPlan(seed, shape, (slice_mm, pixel_mm, pixel_mm), lesions)


def _companion(rng: np.random.Generator, first: LesionSpec) -> LesionSpec:
    """Return a second bleeding: bleedings often come in more than one compartment."""
    kinds = [
        HemorrhageKind.INTRAVENTRICULAR,
        HemorrhageKind.SUBARACHNOID,
        HemorrhageKind.SUBDURAL,
    ]
    kind = rng.choice([k for k in kinds if k is not first.kind])
    return LesionSpec(HemorrhageKind(kind), float(rng.uniform(0.5, 12)), first.mean_hu)


def make(plan: StudyPlan) -> SimulatedHeadCT:
    """Return the study of `plan`; anatomy at 1.25 mm, which is finer than the network's 2 mm."""
    rng = np.random.default_rng([plan.seed, 2])
    return simulate_head_ct(
        rng,
        shape=plan.shape,
        spacing_mm=plan.spacing_mm,
        lesions=plan.lesions,
        working_pixel_mm=1.25,
    )
