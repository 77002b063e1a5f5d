"""How strongly each pixel speaks for a finding: probabilities of voxels, or heat maps of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triage.core.findings import Finding
from triage.results.context import ResultContext

FAINTEST = 0.1
"""What is weaker than this on a slice is not worth a frame: networks are nowhere quite sure."""


@dataclass(frozen=True, slots=True, eq=False)
class FindingMap:
    """What a model gives on the pixels of the source, about one present finding.

    Attributes:
        values: float32 (slices, rows, columns), from 0 to 1, on the slices from `first` on.
        first: the place of the first of them among the source images or analysed frames.
        is_probability: whether a value is that of the voxel belonging to the finding. Otherwise
            it says how much the pixel counted for the answer, as heat maps do.
    """

    finding: Finding
    values: NDArray[np.float32]
    first: int
    is_probability: bool

    @property
    def slices(self) -> range:
        """The places of the slices among the source images or analysed frames."""
        return range(self.first, self.first + len(self.values))


def maps_of(context: ResultContext) -> tuple[FindingMap, ...]:
    """Return the maps of the present findings that have one, the most urgent finding first.

    Probabilities reach from the first to the last slice on which any is 0.1 or more; a heat map
    is of one image.
    """
    maps = (map_of(context, finding) for finding in context.present_by_urgency)
    return tuple(each for each in maps if each is not None)


def map_of(context: ResultContext, finding: Finding) -> FindingMap | None:
    """Return the map of a finding, or None where the model gave none that shows anything."""
    probabilities = context.analysis.probabilities.get(finding.key)
    if probabilities is not None:
        shown = np.flatnonzero(probabilities.max(axis=(1, 2)) >= FAINTEST)
        if not len(shown):
            return None
        first, last = int(shown[0]), int(shown[-1])
        return FindingMap(finding, _bounded(probabilities[first : last + 1]), first, True)
    heat = context.analysis.heat_maps.get(finding.key)
    if heat is None:
        return None
    place = context.places_of_key_images(finding)
    return FindingMap(finding, _bounded(heat[np.newaxis]), place[0] if place else 0, False)


def _bounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.clip(np.nan_to_num(values), 0, 1).astype(np.float32, copy=False)
