"""What a volume must show before a model's word on it counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from triage.core.analysis import InputRefusedError
from triage.core.manifest import TissueGate
from triage.models.volume import Volume


def check_tissue(volume: Volume, gates: Sequence[TissueGate]) -> None:
    """Refuse a volume that shows too little of a tissue to be what the model is made for.

    Raises:
        InputRefusedError: names the tissue and both volumes.
    """
    for gate in gates:
        found_ml = 0.0
        for values, voxel_ml in zip(volume.values, volume.voxel_volumes_ml, strict=True):
            smooth = ndimage.uniform_filter(values, 3)[::2, ::2]  # every fourth pixel tells enough
            low, high = gate.values.minimum, gate.values.maximum
            holds = np.ones(smooth.shape, np.bool_)
            if low is not None:
                holds &= smooth >= low
            if high is not None:
                holds &= smooth <= high
            found_ml += float(holds.sum()) * 4 * voxel_ml
        if found_ml < gate.minimum_ml:
            raise InputRefusedError(
                f"only {found_ml:.0f} mL look like {gate.name}, at least {gate.minimum_ml:g} mL "
                "are needed: perhaps a phantom, or another part of the body"
            )
