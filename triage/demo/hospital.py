"""The studies of the demo: twelve simulated patients in the order in which they are scanned."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import numpy as np
from pydicom import Dataset

from triage.core.uids import derived_uid
from triage.simulator.dicom import (
    Damage,
    StudyIdentity,
    damage_series,
    head_ct_series,
    knee_mr_series,
    write_series,
)
from triage.simulator.head_ct import simulate_head_ct
from triage.simulator.hemorrhage import HemorrhageKind, LesionSpec

_SHAPE = (32, 512, 512)
_SPACING_MM = (5.0, 0.45, 0.45)
_FIRST_SCAN = datetime(2026, 1, 15, 8, 0, tzinfo=UTC)


class Kind(StrEnum):
    """What a simulated patient is sent for."""

    NORMAL = "normal head CT"
    HEMORRHAGE = "hemorrhage"
    UNWANTED = "MR of a knee, which no model wants"
    BROKEN = "head CT with broken pixel data"


@dataclass(frozen=True, slots=True)
class Patient:
    """One simulated patient, and the truth about them."""

    number: int
    family_name: str
    kind: Kind
    lesion: LesionSpec | None = None

    @property
    def name(self) -> str:
        """Patient's Name (0010,0010)."""
        return f"{self.family_name}^Simulated"

    @property
    def sent(self) -> str:
        """What was sent, in words."""
        if self.lesion is None:
            return str(self.kind)
        return f"{self.lesion.kind} hemorrhage, {self.lesion.volume_ml:g} mL"


def _bleeding(kind: HemorrhageKind, volume_ml: float) -> LesionSpec:
    return LesionSpec(kind=kind, volume_ml=volume_ml)


PATIENTS: tuple[Patient, ...] = (
    Patient(1, "Alder", Kind.NORMAL),
    Patient(2, "Birch", Kind.NORMAL),
    Patient(3, "Cedar", Kind.UNWANTED),
    Patient(4, "Dogwood", Kind.NORMAL),
    Patient(5, "Elm", Kind.HEMORRHAGE, _bleeding(HemorrhageKind.INTRAPARENCHYMAL, 24)),
    Patient(6, "Fir", Kind.NORMAL),
    Patient(7, "Ginkgo", Kind.BROKEN),
    Patient(8, "Hazel", Kind.HEMORRHAGE, _bleeding(HemorrhageKind.SUBDURAL, 40)),
    Patient(9, "Ivy", Kind.NORMAL),
    Patient(10, "Juniper", Kind.NORMAL),
    Patient(11, "Katsura", Kind.HEMORRHAGE, _bleeding(HemorrhageKind.EPIDURAL, 18)),
    Patient(12, "Larch", Kind.NORMAL),
)


def study_folders(
    cache: Path, on_progress: Callable[[int], None] = lambda _: None
) -> dict[int, Path]:
    """Return the folder of DICOM files of each patient number, simulating those not yet made.

    The cache's name carries a digest of what is asked for, so other studies are never taken for
    these. A study is written beside its place and moved there whole.
    """
    asked = repr((PATIENTS, _SHAPE, _SPACING_MM)).encode()
    folder = cache / hashlib.sha256(asked).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    folders = {p.number: folder / f"{p.number:02d}" for p in PATIENTS}
    missing = [p for p in PATIENTS if not folders[p.number].is_dir()]
    done = len(PATIENTS) - len(missing)
    on_progress(done)
    if missing:
        with ProcessPoolExecutor(max_workers=2) as pool:
            pending = [pool.submit(_make, p, folders[p.number]) for p in missing]
            for finished in as_completed(pending):
                finished.result()
                done += 1
                on_progress(done)
    return folders


def _make(patient: Patient, folder: Path) -> None:
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    write_series(_datasets(patient), unfinished)
    unfinished.replace(folder)


def _datasets(patient: Patient) -> list[Dataset]:
    identity = StudyIdentity(
        patient_name=patient.name,
        patient_id=f"SIM-{patient.number:04d}",
        accession_number=f"A{patient.number:05d}",
        study_description="MR KNEE RIGHT" if patient.kind is Kind.UNWANTED else "CT HEAD PLAIN",
        acquired=_FIRST_SCAN + timedelta(minutes=7 * patient.number),
    )
    if patient.kind is Kind.UNWANTED:
        return knee_mr_series(identity, seed=patient.number)
    lesions = [patient.lesion] if patient.lesion else None
    study = simulate_head_ct(
        np.random.default_rng(_seed(patient)), shape=_SHAPE, spacing_mm=_SPACING_MM, lesions=lesions
    )
    datasets = head_ct_series(study, identity, seed=f"demo-{patient.number}")
    if patient.kind is Kind.BROKEN:
        return damage_series(datasets, Damage.TRUNCATED)
    return datasets


def _seed(patient: Patient) -> int:
    # Far from the seeds of training, validation and test, which are small numbers.
    return int(derived_uid("demo", str(patient.number)).rsplit(".", 1)[1][:12])


def datasets_in(folder: Path) -> Iterator[Path]:
    """Yield the files of a study in the order in which the scanner sends them."""
    yield from sorted(folder.glob("*.dcm"))
