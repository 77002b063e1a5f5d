"""Standardized uptake values of PET: what a tracer's activity means beside dose and weight."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, DT, TM

from triage.core.analysis import InputRefusedError
from triage.models.sources import Frame

SUV_UNITS = ("{SUVbw}g/ml", "g/ml{SUVbw}")
"""UCUM units of a Real World Value Mapping to SUV by body weight (PS3.16 CID 85)."""

_CORRECTIONS = {"ATTN": "attenuation", "DECY": "decay"}
_LONGEST_UPTAKE = timedelta(hours=24)


def suvbw_factor(frames: Sequence[Frame]) -> np.float32:
    """Return what turns the rescaled values of a PET series into SUV by body weight, in g/mL.

    It is the patient's weight over the injected dose, decayed to the time to which the images are
    corrected (QIBA profile FDG-PET/CT, appendix G; DICOM PS3.3 C.8.9.1). That time is the
    injection for Decay Correction ADMIN. For START it is Series Time, or the first acquisition
    where Series Time was written later, when the images were reconstructed anew.

    Raises:
        InputRefusedError: names what the headers lack.
    """
    dataset = frames[0].instance.dataset
    units = str(dataset.get("Units") or "")
    if units == "GML":
        return np.float32(1.0)
    if units != "BQML":
        raise _refusal(f"Units (0054,1001) are {units or 'not stated'}, not BQML")
    corrected = dataset.get("CorrectedImage") or ()
    for value, words in _CORRECTIONS.items():
        if value not in corrected:
            raise _refusal(f"the images are not corrected for {words} (0028,0051)")
    injection = _injection_of(dataset)
    dose_bq = _positive(injection, "RadionuclideTotalDose", "Radionuclide Total Dose (0018,1074)")
    weight_g = 1000.0 * _positive(dataset, "PatientWeight", "Patient's Weight (0010,1030)")
    correction = dataset.get("DecayCorrection")
    if correction == "START":
        dose_bq *= 0.5 ** (_uptake_s(frames, injection) / _half_life_s(injection))
    elif correction != "ADMIN":
        raise _refusal(f"Decay Correction (0054,1102) is {correction or 'not stated'}")
    return np.float32(weight_g / dose_bq)


def _injection_of(dataset: Dataset) -> Dataset:
    stated = dataset.get("RadiopharmaceuticalInformationSequence")
    if not stated:
        raise _refusal("no Radiopharmaceutical Information (0054,0016) is stated")
    if len(stated) > 1:
        raise _refusal("several radiopharmaceuticals are stated")
    first: Dataset = stated[0]
    return first


def _half_life_s(injection: Dataset) -> float:
    return _positive(injection, "RadionuclideHalfLife", "Radionuclide Half Life (0018,1075)")


def _uptake_s(frames: Sequence[Frame], injection: Dataset) -> float:
    dataset = frames[0].instance.dataset
    acquired = [_moment(frame.instance.dataset, "Acquisition") for frame in frames]
    known = [moment for moment in acquired if moment is not None]
    series = _moment(dataset, "Series")
    if not known:
        raise _refusal("no Acquisition Date and Time (0008,0022), (0008,0032) are stated")
    start = series if series is not None and series <= min(known) else min(known)
    injected = _injected_at(injection, start)
    if not timedelta(0) <= start - injected <= _LONGEST_UPTAKE:
        raise _refusal(
            f"the tracer was given at {injected:%Y-%m-%d %H:%M:%S} and the images are corrected "
            f"to {start:%Y-%m-%d %H:%M:%S}"
        )
    return (start - injected).total_seconds()


def _injected_at(injection: Dataset, start: datetime) -> datetime:
    """Return when the tracer was given; of a time alone, the last such time before `start`."""
    try:
        if injection.get("RadiopharmaceuticalStartDateTime"):
            stated = DT(str(injection.RadiopharmaceuticalStartDateTime))
            assert stated is not None, "it is not empty"
            return datetime.combine(stated.date(), stated.time())
        time = TM(str(injection.get("RadiopharmaceuticalStartTime") or ""))
    except ValueError:
        time = None
    if time is None:
        raise _refusal("no Radiopharmaceutical Start Time (0018,1072) is stated")
    moment = datetime.combine(start.date(), time)
    return moment if moment <= start else moment - timedelta(days=1)


def _moment(dataset: Dataset, of: str) -> datetime | None:
    try:
        date = DA(str(dataset.get(f"{of}Date") or ""))
        time = TM(str(dataset.get(f"{of}Time") or ""))
    except ValueError:
        return None
    return datetime.combine(date, time) if date is not None and time is not None else None


def _positive(dataset: Dataset, keyword: str, name: str) -> float:
    value: Any = dataset.get(keyword)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not np.isfinite(number) or number <= 0:
        raise _refusal(f"{name} is not stated")
    return number


def _refusal(reason: str) -> InputRefusedError:
    return InputRefusedError(f"no standardized uptake values can be given: {reason}")
