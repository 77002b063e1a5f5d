"""What a person decides about a study's analysis: complete it now, run models again, end a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.errors import TriageError
from triage.core.runs import RunState, StudyState, check_transition
from triage.store.delivery_decisions import Decision
from triage.store.history import note
from triage.store.run_inputs import reopen_where_input_changed
from triage.store.stand_ins import ask_production
from triage.store.studies import (
    WantedRun,
    complete_study,
    identity_of,
    live_runs,
    lock_runs,
    queue_run,
    supersede_run,
    wanted_runs,
)
from triage.store.tables import AnalysisRunRow, StudyRow

_UNFINISHED = (RunState.PENDING, RunState.RUNNING)


class ActionError(TriageError):
    """What a person asked for cannot be done; the message says why and what can be done."""


class UnknownSubjectError(ActionError):
    """There is no such study, run or model."""


@dataclass(frozen=True, slots=True)
class Rerun:
    """What became of the wish to run models again: those queued, and those not, with the reason."""

    queued: tuple[str, ...]
    refused: tuple[str, ...]


def complete_now(session: Session, study_instance_uid: str, decision: Decision) -> None:
    """Let a study be complete with the images that are here; one that comes later reopens it.

    Raises:
        UnknownSubjectError: Triage holds no such study.
        ActionError: it is complete already, no reason is given, or it is in use at this moment.
    """
    said = _by(decision)
    study = _locked_study(session, study_instance_uid)
    if study.state is not StudyState.RECEIVING:
        raise ActionError("the study is complete already")
    _lock_runs(session, study)
    if not reopen_where_input_changed(session, study, decision.at):
        raise ActionError("a study that compares with this one is just being written; try again")
    complete_study(session, study, f"marked complete {said}", decision.at)


def rerun(session: Session, study_instance_uid: str, decision: Decision, model: str = "") -> Rerun:
    """Queue new runs of a complete study: of all models that want it, or of one, by its name.

    The runs belong to a new generation, into which those of the other models are taken over. What
    an earlier run of the model found keeps its flag until the new one has spoken, and is withdrawn
    from archives once there is something in its place.

    Raises:
        UnknownSubjectError: Triage holds no such study, or no such model is in use.
        ActionError: the study is not complete, is only a prior, its images are deleted, or its runs
            are not over yet.
    """
    said = _by(decision)
    study = _locked_study(session, study_instance_uid)
    _check_may_rerun(study)
    _lock_runs(session, study)
    wanted = wanted_runs(session, study)
    chosen = [want for want in wanted if model in ("", want.model.name)]
    if not chosen:
        names = ", ".join(sorted({want.model.name for want in wanted})) or "none"
        raise UnknownSubjectError(f"no model {model!r} is in use for this study (in use: {names})")
    live = live_runs(session, study.id)
    waiting = [w for w in chosen if _is_unfinished(live.get(w.model.id))]
    ready = [w for w in chosen if w not in waiting and w.series is not None]
    refused = tuple(
        f"{identity_of(w.model)}: it is queued or running already" for w in waiting
    ) + tuple(f"{identity_of(w.model)}: {w.reason}" for w in chosen if w.series is None)
    if not ready:
        raise ActionError(f"nothing can be run again: {'; '.join(refused)}")
    _queue_anew(session, study, ready, live, said=said, now=decision.at)
    return Rerun(tuple(identity_of(w.model) for w in ready), refused)


def cancel_run(session: Session, run_id: int, decision: Decision) -> str:
    """End a run for good and return the Study Instance UID: a pending one never begins.

    The worker of a running one sees it within a second and stops the model. What the run has found
    already, and the priority that it raised, stand. A study whose run is cancelled stays on the
    worklist, with "not analysed" and the reason.

    Raises:
        UnknownSubjectError: there is no such run.
        ActionError: the run is over, or no reason is given.
    """
    said = _by(decision)
    run = session.scalars(
        select(AnalysisRunRow).where(AnalysisRunRow.id == run_id).with_for_update(of=AnalysisRunRow)
    ).first()
    if run is None:
        raise UnknownSubjectError(f"there is no run {run_id}")
    if run.state not in _UNFINISHED:
        raise ActionError(
            f"run {run_id} is {run.state.value}; only one that is pending or running is cancelled"
        )
    check_transition(run.id, run.state, RunState.CANCELLED)
    run.state = RunState.CANCELLED
    run.reason = f"cancelled {said}"
    run.lease_until = None
    run.finished_at = decision.at
    text = f"{identity_of(run.model)}: {run.reason}"
    note(session, run.study_id, "cancelled", text, at=decision.at, run_id=run.id)
    ask_production(session, run, decision.at)
    return session.scalars(
        select(StudyRow.study_instance_uid).where(StudyRow.id == run.study_id)
    ).one()


def _queue_anew(
    session: Session,
    study: StudyRow,
    ready: list[WantedRun],
    live: dict[int, AnalysisRunRow],
    *,
    said: str,
    now: datetime,
) -> None:
    study.generation += 1
    for want in ready:
        earlier = live.pop(want.model.id, None)
        if earlier is not None:
            supersede_run(session, earlier, f"run again {said}", now)
        text = f"queued again for {identity_of(want.model)} {said}: {want.reason}"
        queue_run(session, study, want, text, now)
    for run in live.values():
        run.generation = study.generation


def _check_may_rerun(study: StudyRow) -> None:
    if study.is_prior:
        raise ActionError("the study is here for comparison only; priors are not analysed")
    if study.state is not StudyState.COMPLETE:
        raise ActionError("the study is still arriving; mark it complete first, or wait")
    if study.purged_at is not None:
        raise ActionError("the images of the study are deleted; have them sent again")


def _locked_study(session: Session, study_instance_uid: str) -> StudyRow:
    study = session.scalars(
        select(StudyRow)
        .where(StudyRow.study_instance_uid == study_instance_uid)
        .with_for_update(key_share=True, of=StudyRow)
    ).first()
    if study is None:
        raise UnknownSubjectError("Triage holds no such study")
    return study


def _lock_runs(session: Session, study: StudyRow) -> None:
    if not lock_runs(session, study.id):
        raise ActionError("a worker is just writing one of the study's runs; try again")


def _is_unfinished(run: AnalysisRunRow | None) -> bool:
    return run is not None and run.state in _UNFINISHED


def _by(decision: Decision) -> str:
    reason = decision.with_reason().reason.strip().rstrip(".")
    return f"by {decision.who.strip() or 'an unnamed person'}: {reason}"
