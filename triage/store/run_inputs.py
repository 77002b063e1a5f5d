"""The series that a run gets: kept with the run, loaded when it is claimed, watched for changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from triage.core.manifest import ModelManifest
from triage.core.routing import ChosenInput, select_prior
from triage.core.runs import RunState, StudyState
from triage.core.studies import Series, inputs_digest
from triage.store.contents import load_series, priors_of
from triage.store.history import note
from triage.store.tables import AnalysisRunRow, RunInputRow, SeriesRow, StudyRow


@dataclass(frozen=True, slots=True)
class RunInput:
    """A series under the name by which the model knows it."""

    name: str
    series: Series
    series_id: int


@dataclass(frozen=True, slots=True)
class ClaimedInputs:
    """What a claimed run gets, its first input first, or why it gets too little."""

    inputs: tuple[tuple[str, Series], ...]
    refusal: str = ""

    @property
    def digest(self) -> str:
        """The digest of all instances of all inputs."""
        return inputs_digest(self.inputs)


def run_inputs_of(session: Session, chosen: Sequence[ChosenInput]) -> tuple[RunInput, ...]:
    """Return what routing has chosen, with the rows of the series."""
    return tuple(RunInput(one.name, one.series, _series_id(session, one)) for one in chosen)


def _series_id(session: Session, chosen: ChosenInput) -> int:
    return session.scalars(
        select(SeriesRow.id)
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .where(
            StudyRow.study_instance_uid == chosen.study_instance_uid,
            SeriesRow.series_instance_uid == chosen.series.series_instance_uid,
        )
    ).one()


def keep_further_inputs(session: Session, run_id: int, inputs: Sequence[RunInput]) -> None:
    """Write the inputs of a run beside its first, which the run's row names itself."""
    session.execute(delete(RunInputRow).where(RunInputRow.run_id == run_id))
    for one in inputs:
        session.add(RunInputRow(run_id=run_id, name=one.name, series_id=one.series_id))
    session.flush()


def claim_inputs(session: Session, run: AnalysisRunRow, manifest: ModelManifest) -> ClaimedInputs:
    """Return the inputs of a run that begins now, with the priors that have come until now.

    The series of the study itself are those that were chosen when the run was queued. Priors are
    chosen here: they may have come since, and nothing waits for them any longer.
    """
    inputs = _kept_inputs(session, run, manifest)
    wanted_priors = [one for one in manifest.inputs if one.source == "prior"]
    if not wanted_priors:
        return ClaimedInputs(tuple((one.name, one.series) for one in inputs))
    names = {one.name for one in wanted_priors}
    found = {one.name: one for one in inputs if one.name not in names}
    priors = priors_of(session, run.study_id)
    refusal = ""
    for wanted in wanted_priors:
        selected = select_prior(wanted, priors, inputs[0].series)
        if selected.series is not None:
            chosen = ChosenInput(wanted.name, selected.study_instance_uid, selected.series)
            found[wanted.name] = run_inputs_of(session, [chosen])[0]
        elif not wanted.optional:
            refusal = refusal or f"input {wanted.name}: {selected.reason}"
    ordered = [found[one.name] for one in manifest.inputs if one.name in found]
    keep_further_inputs(session, run.id, ordered[1:])
    return ClaimedInputs(tuple((one.name, one.series) for one in ordered), refusal)


def _kept_inputs(
    session: Session, run: AnalysisRunRow, manifest: ModelManifest
) -> tuple[RunInput, ...]:
    rows = session.execute(
        select(RunInputRow.name, RunInputRow.series_id)
        .where(RunInputRow.run_id == run.id)
        .order_by(RunInputRow.id)
    ).all()
    kept = [(manifest.inputs[0].name, run.series_id), *((row[0], row[1]) for row in rows)]
    return tuple(RunInput(name, load_series(session, row_id), row_id) for name, row_id in kept)


def reopen_where_input_changed(session: Session, study: StudyRow, now: datetime) -> bool:
    """Put up again the studies whose runs had other images of `study`, a prior of theirs, as input.

    They become complete anew in the next round, and what was analysed on less is superseded.
    Returns False where somebody else is writing one of them: then it is to be tried again.
    """
    for run in _runs_on_images_of(session, study.id):
        manifest = ModelManifest.model_validate(run.model.manifest)
        kept = _kept_inputs(session, run, manifest)
        if inputs_digest((one.name, one.series) for one in kept) == run.instances_sha256:
            continue
        other = session.scalars(
            select(StudyRow)
            .where(StudyRow.id == run.study_id)
            .with_for_update(skip_locked=True, key_share=True, of=StudyRow)
            .execution_options(populate_existing=True)
        ).first()
        if other is None:
            return False
        if other.state is StudyState.COMPLETE and other.purged_at is None:
            other.state = StudyState.RECEIVING
            other.receiving_since = now
            note(session, other.id, "reopened", "more images of a prior arrived", at=now)
    return True


def _runs_on_images_of(session: Session, study_id: int) -> Sequence[AnalysisRunRow]:
    # A pending run chooses its priors when it is claimed.
    over = (RunState.RUNNING, RunState.COMPLETED, RunState.REFUSED, RunState.FAILED)
    has_input_of_study = (
        select(RunInputRow.run_id)
        .join(SeriesRow, SeriesRow.id == RunInputRow.series_id)
        .where(SeriesRow.study_id == study_id)
    )
    return session.scalars(
        select(AnalysisRunRow)
        .join(StudyRow, StudyRow.id == AnalysisRunRow.study_id)
        .where(
            AnalysisRunRow.id.in_(has_input_of_study),
            AnalysisRunRow.study_id != study_id,
            AnalysisRunRow.state.in_(over),
            AnalysisRunRow.generation == StudyRow.generation,
        )
        .order_by(AnalysisRunRow.id)
    ).all()
