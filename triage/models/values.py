"""From stored values to values with a meaning: HU, a stated unit, or standardized uptake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

from triage.core.analysis import InputRefusedError
from triage.core.manifest import VolumeInput
from triage.decoding.multi_frame import functional_group
from triage.models.sources import Frame, decode, padding_mask
from triage.models.uptake import SUV_UNITS, suvbw_factor

_AIR_HU = -1000.0

Values = NDArray[np.float32]


def value_reader(frames: Sequence[Frame], wanted: VolumeInput) -> Callable[[Frame], Values]:
    """Return what reads the values of each of `frames` in the units that the manifest asks for.

    Raises:
        InputRefusedError: the headers do not say what the units need.
    """
    if wanted.units == "real-world":
        return lambda frame: _mapped(frame, (wanted.real_world_unit,))
    if wanted.units == "suvbw":
        if all(_mapping(frame, SUV_UNITS) for frame in frames):
            return lambda frame: _mapped(frame, SUV_UNITS)
        factor = suvbw_factor(frames)
        return lambda frame: rescaled(frame) * factor
    return rescaled


def rescaled(frame: Frame) -> Values:
    """Return a frame after its own Modality LUT or rescale (PS3.3 C.11.1), padding made air."""
    stored = decode(frame.instance, frame.index)
    dataset = frame.instance.dataset
    if dataset.get("ModalityLUTSequence"):
        values = np.asarray(apply_modality_lut(stored, dataset), np.float32)
    else:
        values = _linear(
            stored, frame.floats("RescaleSlope", 1), frame.floats("RescaleIntercept", 1)
        )
    return _without_padding(frame, stored, values)


def _linear(
    stored: NDArray[Any],
    slope: NDArray[np.float64] | None,
    intercept: NDArray[np.float64] | None,
) -> Values:
    values = stored.astype(np.float32)
    if slope is not None and slope[0] not in (0.0, 1.0):
        values *= np.float32(slope[0])
    if intercept is not None and intercept[0]:
        values += np.float32(intercept[0])
    return values


def _without_padding(frame: Frame, stored: NDArray[Any], values: Values) -> Values:
    """Make padding air in CT, and the least value of the image in everything else."""
    padding = padding_mask(frame.instance, stored)
    if padding is not None and padding.any():
        is_ct = frame.instance.dataset.get("Modality") == "CT"
        values[padding] = _AIR_HU if is_ct else values[~padding].min(initial=0.0)
    return values


def _mapping(frame: Frame, units: Sequence[str]) -> Dataset | None:
    """Return the Real World Value Mapping (PS3.3 C.7.6.16.2.11) to one of `units`, if any."""
    items = functional_group(frame.instance.dataset, frame.index, "RealWorldValueMappingSequence")
    for item in items:
        unit = item.get("MeasurementUnitsCodeSequence")
        if unit and str(unit[0].get("CodeValue")) in units:
            return item
    return None


def _mapped(frame: Frame, units: Sequence[str]) -> Values:
    mapping = _mapping(frame, units)
    if mapping is None:
        raise InputRefusedError(
            f"{frame.name} states no Real World Value Mapping to {' or '.join(units)}"
        )
    stored = decode(frame.instance, frame.index)
    first, last = _mapped_range(mapping)
    if mapping.get("RealWorldValueLUTData"):
        table = np.atleast_1d(np.array(mapping.RealWorldValueLUTData, np.float32))
        places = np.clip(stored.astype(np.int64) - int(first), 0, len(table) - 1)
        return _without_padding(frame, stored, table[places])
    slope, intercept = mapping.get("RealWorldValueSlope"), mapping.get("RealWorldValueIntercept")
    if slope is None or intercept is None:
        raise InputRefusedError(f"{frame.name} states a Real World Value Mapping without a slope")
    inside = np.clip(stored, first, last).astype(np.float64)
    values = np.asarray(inside * float(slope) + float(intercept), np.float32)
    return _without_padding(frame, stored, values)


def _mapped_range(mapping: Dataset) -> tuple[float, float]:
    ends = []
    for which, otherwise in (("First", -np.inf), ("Last", np.inf)):
        value = mapping.get(f"RealWorldValue{which}ValueMapped")
        value = (
            mapping.get(f"DoubleFloatRealWorldValue{which}ValueMapped") if value is None else value
        )
        ends.append(otherwise if value is None else float(value))
    if mapping.get("RealWorldValueLUTData") and not np.isfinite(ends[0]):
        raise InputRefusedError("a Real World Value Mapping has a table and no first value mapped")
    return ends[0], ends[1]
