"""What became of a study, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from triage.core.runs import RunState, StudyState
from triage.worklist.wording import without_series_uids


class StatusKind(StrEnum):
    """The few words that a status begins with; pages choose their mark by it."""

    RECEIVING = "receiving"
    WAITING = "waiting"
    RUNNING = "running"
    FLAGGED = "flagged"
    FOUND = "found"
    CLEAR = "clear"
    WITHDRAWN = "withdrawn"
    NOT_ANALYSED = "not-analysed"
    NOT_WANTED = "not-wanted"


class StudyStatus(BaseModel):
    """A status: its kind, the sentence, and what else a person would ask."""

    model_config = ConfigDict(frozen=True)

    kind: StatusKind
    text: str
    detail: str = ""


_NOT_ANALYSED = (RunState.REFUSED, RunState.FAILED, RunState.CANCELLED)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the status depends on of one production run of the study's present generation.

    `unavailable` says why the run's model is parked, so that nobody waits for it. `withdrawn` says
    by whom and why its result was taken back, empty where it stands.
    """

    run_id: int
    model: str
    state: RunState
    reason: str = ""
    present: tuple[str, ...] = ()
    unavailable: str = ""
    withdrawn: str = ""

    @property
    def is_to_come(self) -> bool:
        """Whether an outcome may be waited for."""
        waits = self.state is RunState.PENDING and not self.unavailable
        return waits or self.state is RunState.RUNNING

    @property
    def failure(self) -> str:
        """Why the study was not analysed, or "" where it was or will be."""
        if self.withdrawn:
            return ""
        if self.state is RunState.PENDING and self.unavailable:
            return f"model unavailable, because {self.unavailable} ({self.model})"
        if self.state in _NOT_ANALYSED:
            return f"{self.reason or 'no reason was given'} ({self.model})"
        return ""


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What the status of a study depends on.

    `refusals` say for each model that wants none of the series why. `awaited` says which announced
    images have not come. `is_prior` says that the study was fetched only for comparison with a
    later one.
    """

    state: StudyState
    is_flagged: bool
    runs: Sequence[RunFacts] = ()
    refusals: Sequence[str] = ()
    awaited: str = ""
    is_prior: bool = False


def status_of(study: StudyFacts) -> StudyStatus:
    """Return the status of a study, the most important first: a flag, then what is still to come.

    A run that could not be carried out is never hidden behind another model's "nothing found".
    """
    if study.is_flagged:
        return StudyStatus(kind=StatusKind.FLAGGED, text="flagged", detail=_still_to_come(study))
    if study.is_prior:
        return StudyStatus(
            kind=StatusKind.NOT_WANTED, text="a prior, for comparison only", detail="not analysed"
        )
    if study.state is StudyState.RECEIVING:
        return StudyStatus(
            kind=StatusKind.RECEIVING, text=study.awaited or "receiving", detail=_so_far(study.runs)
        )
    if not study.runs:
        reason = "; ".join(map(without_series_uids, study.refusals)) or "no model is registered"
        return StudyStatus(
            kind=StatusKind.NOT_WANTED, text=f"no model wants it: {reason}", detail=reason
        )
    return _while_analysing(study.runs) or _when_analysed(study.runs)


def _so_far(runs: Sequence[RunFacts]) -> str:
    """Return what is known while images arrive: of a first series, or from before a late image."""
    if not runs:
        return ""
    status = _while_analysing(runs) or _when_analysed(runs)
    return f"so far {status.text}"


def _still_to_come(study: StudyFacts) -> str:
    if study.state is StudyState.RECEIVING:
        return study.awaited or "more images are arriving"
    if any(run.is_to_come for run in study.runs):
        return "an analysis is still going on"
    return "; ".join(filter(None, (_failures(study.runs), _withdrawn(study.runs))))


def _while_analysing(runs: Sequence[RunFacts]) -> StudyStatus | None:
    for run in runs:
        if run.state is RunState.RUNNING:
            return StudyStatus(kind=StatusKind.RUNNING, text="being analysed", detail=run.model)
    for run in runs:
        if run.is_to_come:
            earlier = f"; the last attempt failed: {run.reason}" if run.reason else ""
            return StudyStatus(
                kind=StatusKind.WAITING,
                text="waiting for analysis",
                detail=f"{run.model}{earlier}",
            )
    return None


def _when_analysed(runs: Sequence[RunFacts]) -> StudyStatus:
    failures, withdrawn = _failures(runs), _withdrawn(runs)
    completed = [run for run in runs if run.state is RunState.COMPLETED and not run.withdrawn]
    present = "; ".join(words for run in completed for words in run.present)
    others = f"found: {present}" if present else "nothing found" if completed else ""
    detail = f"other models: {others}" if others else ""
    if withdrawn:
        failed = f"; not analysed: {failures}" if failures else ""
        return StudyStatus(kind=StatusKind.WITHDRAWN, text=f"{withdrawn}{failed}", detail=detail)
    if failures:
        return StudyStatus(
            kind=StatusKind.NOT_ANALYSED, text=f"not analysed: {failures}", detail=detail
        )
    models = ", ".join(run.model for run in completed)
    if present:
        return StudyStatus(kind=StatusKind.FOUND, text=f"analysed: {present}", detail=models)
    return StudyStatus(kind=StatusKind.CLEAR, text="analysed: nothing found", detail=models)


def _withdrawn(runs: Sequence[RunFacts]) -> str:
    return "; ".join(f"AI result {run.withdrawn} ({run.model})" for run in runs if run.withdrawn)


def _failures(runs: Sequence[RunFacts]) -> str:
    return "; ".join(run.failure for run in runs if run.failure)
