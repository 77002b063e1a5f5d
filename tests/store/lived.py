"""A model that has been in use for a while: runs by the hundred, without images."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import insert
from sqlalchemy.orm import Session

from tests.store.rows import manifest
from triage.core.runs import RunState
from triage.core.stages import Stage
from triage.store.model_tables import ModelRow
from triage.store.tables import (
    AnalysisRunRow,
    FindingRow,
    PatientRow,
    SeriesRow,
    StudyRow,
)

Changes = Callable[[int], dict[str, Any]]


def add_watched_model(session: Session, at: datetime, *, name: str = "head-ct") -> ModelRow:
    """Register a model in production."""
    row = ModelRow(
        name=name,
        version="1.0.0",
        stage=Stage.PRODUCTION,
        manifest=manifest(name),
        package_path="nowhere",
        package_sha256="0" * 64,
        registered_at=at,
    )
    session.add(row)
    session.flush()
    return row


def add_runs(
    session: Session,
    model: ModelRow,
    moments: list[datetime],
    *,
    rate: float = 0.1,
    seed: int = 1,
    whole_s: float = 4.0,
    changes: Changes = lambda _: {},
    **characteristics: Any,
) -> list[int]:
    """Add a completed run for each moment at which one was over; return their ids.

    `changes` gives, for the number of a run, columns that are different; `characteristics` are
    those of all. Scores of positives are above 0.5.
    """
    generator = np.random.default_rng(seed)
    patient = PatientRow(patient_id=f"P{model.id}-{seed}")
    session.add(patient)
    session.flush()
    uids = [f"1.2.{model.id}.{seed}.{number}" for number in range(len(moments))]
    studies = [
        StudyRow(
            study_instance_uid=uid,
            patient_id=patient.id,
            first_instance_at=moment,
            last_instance_at=moment,
        )
        for uid, moment in zip(uids, moments, strict=True)
    ]
    session.add_all(studies)
    session.flush()
    series = [
        SeriesRow(study_id=study.id, series_instance_uid=f"{uid}.1", modality="CT")
        for study, uid in zip(studies, uids, strict=True)
    ]
    session.add_all(series)
    session.flush()
    runs = [
        AnalysisRunRow(
            **{
                "study_id": one.study_id,
                "series_id": one.id,
                "model_id": model.id,
                "generation": 1,
                "state": RunState.COMPLETED,
                "stage": model.stage,
                "input_characteristics": _characteristics(generator) | characteristics,
                **_times(generator, moment, whole_s),
                **changes(number),
            }
        )
        for number, (one, moment) in enumerate(zip(series, moments, strict=True))
    ]
    session.add_all(runs)
    session.flush()
    found = [_finding(run.id, generator, rate) for run in runs if run.state is RunState.COMPLETED]
    if found:
        session.execute(insert(FindingRow), found)
    return [run.id for run in runs]


def _times(generator: np.random.Generator, moment: datetime, whole_s: float) -> dict[str, Any]:
    whole = float(generator.lognormal(np.log(whole_s), 0.3))
    started = moment - timedelta(seconds=whole)
    queued = started - timedelta(seconds=float(generator.exponential(1.5)))
    return {
        "available_at": queued,
        "created_at": queued,
        "started_at": started,
        "finished_at": moment,
        "timings_s": {"decode": whole * 0.3, "infer": whole * 0.5, "results": whole * 0.1},
    }


def _characteristics(generator: np.random.Generator) -> dict[str, Any]:
    return {
        "modality": "CT",
        "manufacturer": "Alpha",
        "scanner": str(generator.choice(["A 64", "A 128"])),
        "age": str(generator.choice(["40-49", "50-59", "60-69", "70-79", "80-89"])),
        "sex": str(generator.choice(["F", "M"])),
        "images": float(generator.integers(28, 40)),
        "slice_thickness_mm": float(generator.choice([2.5, 5.0])),
        "values_mean": float(generator.normal(-310, 25)),
    }


def _finding(run_id: int, generator: np.random.Generator, rate: float) -> dict[str, Any]:
    present = bool(generator.random() < rate)
    score = 0.5 + generator.beta(4, 2) / 2 if present else generator.beta(1, 8) / 2
    return {
        "run_id": run_id,
        "key": "hemorrhage",
        "present": present,
        "confidence": float(score),
        "content": {},
    }


def every(until: datetime, count: int, step: timedelta) -> list[datetime]:
    """Return `count` moments, `step` apart, the last one before `until`."""
    return [until - step * (count - n) for n in range(count)]
