"""Objects that are queued: of a run, of a remote model, of a withdrawal."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from triage.core.runs import DeliveryKind
from triage.settings import Destination, ObjectDestination
from triage.store.history import note
from triage.store.outbox.notices import queue_result_notices
from triage.store.outbox.objects import NewResultObject, index_object
from triage.store.outbox.routing import gets, is_withheld, routed
from triage.store.outbox.rows import queue_object
from triage.store.tables import AnalysisRunRow, ResultObjectRow, StudyRow


def add_result_objects(
    session: Session,
    *,
    run_id: int,
    study_id: int,
    objects: Sequence[NewResultObject],
    destinations: Sequence[Destination],
    now: datetime,
) -> None:
    """Index the objects of a completed run and queue what its destinations get, in order.

    An object that is there already (the same model on the same input makes the same UIDs) is taken
    over by this run, and what was withdrawn of it becomes due again. Of a shadow run nothing is
    kept: what is not in the index no page, query or retrieval can show.
    """
    run = session.scalars(select(AnalysisRunRow).where(AnalysisRunRow.id == run_id)).one()
    if not run.stage.counts:
        return
    result = routed(run.study, run)
    taken = [d for d in destinations if d.route.takes(result)]
    for sequence, new in enumerate(objects):
        row = index_object(
            session, new, study_id=run.study_id, run_id=run.id, sequence=sequence, now=now
        )
        for destination in _getting(taken, new, objects):
            if is_withheld(destination, new):
                _note_withheld(session, run, new.role, destination.name, now)
                continue
            queue_object(
                session,
                row,
                destination.name,
                kind=DeliveryKind.RESULT,
                study_id=study_id,
                lane=f"run:{run_id}",
                place=sequence,
                now=now,
            )
    queue_result_notices(session, run, taken, now=now)


def add_returned_object(
    session: Session,
    *,
    study_id: int,
    remote_model: str,
    new: NewResultObject,
    destinations: Sequence[Destination],
    now: datetime,
) -> None:
    """Index an object that a remote model made, and queue it for the destinations that get it.

    Routes see the name of the remote model, and no stage and no finding.
    """
    study = session.scalars(select(StudyRow).where(StudyRow.id == study_id)).one()
    row = index_object(session, new, study_id=study_id, run_id=None, sequence=0, now=now)
    row.remote_model = remote_model
    result = replace(routed(study, None), model=remote_model)
    taken = [d for d in destinations if d.route.takes(result)]
    for destination in _getting(taken, new, [new]):
        if not is_withheld(destination, new):
            queue_object(
                session,
                row,
                destination.name,
                kind=DeliveryKind.RESULT,
                study_id=study_id,
                lane=f"remote:{study_id}",
                place=0,
                now=now,
            )


def add_withdrawal_objects(
    session: Session,
    *,
    run_id: int,
    objects: Sequence[NewResultObject],
    destinations: Collection[str],
    now: datetime,
) -> None:
    """Index what says that a run's result is withdrawn, and queue all of it for `destinations`.

    It goes, after all that the run left, to those that have the result, whatever their routes say
    today.
    """
    run = session.scalars(select(AnalysisRunRow).where(AnalysisRunRow.id == run_id)).one()
    last = session.scalar(
        select(func.max(ResultObjectRow.sequence)).where(ResultObjectRow.run_id == run_id)
    )
    for sequence, new in enumerate(objects, start=0 if last is None else last + 1):
        row = index_object(
            session, new, study_id=run.study_id, run_id=run_id, sequence=sequence, now=now
        )
        for destination in destinations:
            queue_object(
                session,
                row,
                destination,
                kind=DeliveryKind.WITHDRAWAL,
                study_id=run.study_id,
                lane=f"run:{run_id}",
                place=sequence,
                now=now,
            )


def _getting(
    destinations: Sequence[Destination], new: NewResultObject, objects: Sequence[NewResultObject]
) -> Iterator[ObjectDestination]:
    for destination in destinations:
        if isinstance(destination, ObjectDestination) and gets(destination, new, objects):
            yield destination


def _note_withheld(
    session: Session, run: AnalysisRunRow, role: str, destination: str, now: datetime
) -> None:
    text = (
        f"{role.upper()} not for {destination}, which gets nothing that says who the patient is: "
        "text may be burnt into it"
    )
    note(session, run.study_id, "withheld", text, at=now, run_id=run.id)
