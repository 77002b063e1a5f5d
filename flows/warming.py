"""Loading models ahead of need: when the worker starts, and when a study for them arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from flows.steps import Step
from triage.core.analysis import AnalysisFailedError
from triage.core.manifest import ModelManifest
from triage.core.runs import RunState, StudyState
from triage.models.packages import ModelPackage, PackageError
from triage.models.registry import registered_package
from triage.store.code_approvals import runnable_models
from triage.store.model_tables import ModelRow
from triage.store.tables import AnalysisRunRow, SeriesRow, StudyRow

log = structlog.get_logger()

_TRIED_AGAIN_AFTER = timedelta(minutes=1)


class Warming:
    """Keeps the models loaded that are wanted now or soon, as far as memory goes."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._failed: dict[str, datetime] = {}

    async def warm_all(self) -> None:
        """Load every model that is not retired, those that stay warm first."""
        await self._warm(await asyncio.to_thread(self._all))

    async def warm_ahead(self) -> None:
        """Load the models that a study is arriving or waiting for, and those that stay warm."""
        await self._warm(await asyncio.to_thread(self._wanted))

    async def _warm(self, rows: Sequence[ModelRow]) -> None:
        packages = [package for row in rows if (package := await self._package(row)) is not None]
        hosts = self._step.hosts
        for package in packages:
            others = [p for p in packages if p is not package]
            if hosts.is_warm(package) or not hosts.has_room_for(package, beside=others):
                continue
            try:
                await hosts.warm(package)
            except (PackageError, AnalysisFailedError) as error:
                self._note_failure(package.sha256, package.manifest.name, error)

    async def _package(self, row: ModelRow) -> ModelPackage | None:
        failed_at = self._failed.get(row.package_sha256)
        if failed_at is not None and self._step.clock() < failed_at + _TRIED_AGAIN_AFTER:
            return None
        try:
            return await asyncio.to_thread(registered_package, row.package_path, row.package_sha256)
        except (PackageError, OSError) as error:
            self._note_failure(row.package_sha256, row.name, error)
            return None

    def _note_failure(self, sha256: str, name: str, error: Exception) -> None:
        # A study of a model that is not there states this reason; others go on.
        self._failed[sha256] = self._step.clock()
        log.error("worker.model_unavailable", model=name, error=str(error))

    def _all(self) -> list[ModelRow]:
        with self._step.database.reading() as session:
            return _usable_models(session)

    def _wanted(self) -> list[ModelRow]:
        with self._step.database.reading() as session:
            waited_for = _models_with_runs(session)
            arriving = _modalities_that_arrive(session)
            return [
                row
                for row in _usable_models(session)
                if row.id in waited_for or _may_want(_manifest(row), arriving)
            ]


def _usable_models(session: Session) -> list[ModelRow]:
    rows = [row for row in runnable_models(session) if row.parked_until is None]
    return sorted(rows, key=lambda row: not _manifest(row).runner.keep_warm)


def _models_with_runs(session: Session) -> frozenset[int]:
    pending = select(AnalysisRunRow.model_id).where(AnalysisRunRow.state == RunState.PENDING)
    return frozenset(session.scalars(pending.distinct()))


def _modalities_that_arrive(session: Session) -> frozenset[str]:
    arriving = (
        select(SeriesRow.modality)
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .where(StudyRow.state == StudyState.RECEIVING, SeriesRow.is_result.is_(False))
    )
    return frozenset(session.scalars(arriving.distinct()))


def _may_want(manifest: ModelManifest, arriving: frozenset[str]) -> bool:
    # The rest of what a model accepts is known only when the series is complete.
    return manifest.runner.keep_warm or not arriving.isdisjoint(manifest.accepts.modalities)


def _manifest(row: ModelRow) -> ModelManifest:
    return ModelManifest.model_validate(row.manifest)
