"""Result objects: indexed as what a run left, and as instances of the study."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.store.files import StoredFile
from triage.store.tables import InstanceRow, ResultObjectRow, SeriesRow


@dataclass(frozen=True, slots=True)
class NewResultObject:
    """A result object whose file is durable, ready to be indexed.

    Attributes:
        variant: "" for the usual form; a name for what is made again in the form that some
            destinations ask for.
    """

    role: str
    file: StoredFile
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    modality: str
    series_number: int | None = None
    series_description: str = ""
    instance_number: int = 1
    variant: str = ""


def index_object(
    session: Session,
    new: NewResultObject,
    *,
    study_id: int,
    run_id: int | None,
    sequence: int,
    now: datetime,
) -> ResultObjectRow:
    """Index an object that a run, or with `run_id` None a remote model, left, and return its row.

    One that is there already is taken over by this run and not written again, but for a file that
    retention had deleted. It is also indexed as an instance of the study, marked as a result,
    because Triage's own store is the archive where no other is configured.
    """
    known = session.scalar(
        select(ResultObjectRow).where(ResultObjectRow.sop_instance_uid == new.sop_instance_uid)
    )
    if known is not None:
        known.run_id = run_id
        _restore_purged(session, known, new)
        return known
    row = ResultObjectRow(
        run_id=run_id,
        role=new.role,
        variant=new.variant,
        sequence=sequence,
        sop_class_uid=new.sop_class_uid,
        sop_instance_uid=new.sop_instance_uid,
        series_instance_uid=new.series_instance_uid,
        path=new.file.path,
        size_bytes=new.file.size_bytes,
        created_at=now,
    )
    session.add(row)
    session.flush()
    _index_as_instance(session, study_id, new, now)
    return row


def _restore_purged(session: Session, known: ResultObjectRow, new: NewResultObject) -> None:
    purged = session.scalar(
        select(InstanceRow).where(
            InstanceRow.sop_instance_uid == known.sop_instance_uid,
            InstanceRow.purged_at.is_not(None),
        )
    )
    if purged is None:
        return
    known.path, known.size_bytes = new.file.path, new.file.size_bytes
    purged.path, purged.size_bytes = new.file.path, new.file.size_bytes
    purged.sha256, purged.purged_at = new.file.sha256, None


def _index_as_instance(
    session: Session, study_id: int, new: NewResultObject, now: datetime
) -> None:
    series = session.scalar(
        select(SeriesRow).where(
            SeriesRow.study_id == study_id,
            SeriesRow.series_instance_uid == new.series_instance_uid,
        )
    )
    if series is None:
        series = SeriesRow(
            study_id=study_id,
            series_instance_uid=new.series_instance_uid,
            modality=new.modality,
            number=new.series_number,
            description=new.series_description[:128],
            is_result=True,
        )
        session.add(series)
        session.flush()
    session.add(
        InstanceRow(
            series_id=series.id,
            sop_instance_uid=new.sop_instance_uid,
            sop_class_uid=new.sop_class_uid,
            transfer_syntax_uid=new.transfer_syntax_uid,
            number=new.instance_number,
            path=new.file.path,
            size_bytes=new.file.size_bytes,
            sha256=new.file.sha256,
            headers={},
            received_at=now,
        )
    )
