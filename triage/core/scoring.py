"""How well a series fits that a model accepts, in points with their reasons."""

from __future__ import annotations

from dataclasses import dataclass

from triage.core.characteristics import Characteristics
from triage.core.expressions import UndecidedError, holds, values_of
from triage.core.manifest.inputs import InputSpec
from triage.core.studies import Study

_THICKEST_WITH_POINTS_MM = 10.0


@dataclass(frozen=True, slots=True)
class Score:
    """Points, and what each of them was given for."""

    points: float
    reasons: tuple[str, ...]

    def in_words(self) -> str:
        """Return the points with their reasons.

        >>> Score(25.0, ("original +20", "soft kernel +5")).in_words()
        'score 25 (original +20, soft kernel +5)'
        """
        reasons = f" ({', '.join(self.reasons)})" if self.reasons else ""
        return f"score {self.points:g}{reasons}"


def score_of(stated: Characteristics, accepts: InputSpec, study: Study) -> Score:
    """Return the points of a series that `accepts` does not refuse.

    It depends on the series alone and not on what else the study has, so the order of arrival and
    the other series change nothing. A preference that cannot be decided gives no points.
    """
    given = [*_built_in(stated, accepts), *_preferred(stated, accepts, study)]
    return Score(
        round(sum(points for _, points in given), 3),
        tuple(f"{reason} {points:+.3g}" for reason, points in given if points),
    )


def _built_in(stated: Characteristics, accepts: InputSpec) -> list[tuple[str, float]]:
    points: list[tuple[str, float]] = []
    if "ORIGINAL" in stated.common_image_types and "ORIGINAL" not in accepts.image_types:
        points.append(("original", 20.0))
    if accepts.body_parts and set(stated.body_parts) & set(accepts.body_parts):
        points.append(("body part stated", 10.0))
    if not accepts.kernels and stated.modality == "CT" and stated.kernel_kind:
        is_soft = stated.kernel_kind == "soft"
        points.append((f"{stated.kernel_kind} kernel", 5.0 if is_soft else -5.0))
    if accepts.view_positions and set(stated.view_positions) & set(accepts.view_positions):
        points.append(("view stated", 5.0))
    if accepts.prefer_thin_slices and stated.slice_thickness_mm:
        thickness = max(stated.slice_thickness_mm)
        thinness = _THICKEST_WITH_POINTS_MM - max(thickness, 0.0)
        points.append((f"slices of {thickness:.3g} mm", max(thinness, 0.0)))
    return points


def _preferred(
    stated: Characteristics, accepts: InputSpec, study: Study
) -> list[tuple[str, float]]:
    values = values_of(stated, study)
    points = []
    for preference in accepts.prefer:
        try:
            if holds(preference.when, values):
                points.append((preference.when, preference.score))
        except UndecidedError:
            continue
    return points
