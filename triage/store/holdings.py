"""The instances of a study, series or SOP Instance UID, as a retrieval over HTTP needs them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.withdrawals import WithdrawalReason
from triage.store.rejections import rejects
from triage.store.tables import InstanceRow, ResultObjectRow, SeriesRow, StudyRow, WithdrawalRow


@dataclass(frozen=True, slots=True)
class Holding:
    """An instance that is held, or was until its file was purged.

    `withdrawn_because` says why it was rejected, see `triage.store.rejections`.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    sha256: str
    size_bytes: int
    is_purged: bool
    is_result: bool
    withdrawn_because: WithdrawalReason | None = None


def holdings(
    session: Session,
    study_instance_uid: str,
    series_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
) -> list[Holding]:
    """Return the instances below an address, in the order of their arrival.

    Of instances that came with different contents under one UID the first is among them.
    """
    statement = (
        select(
            StudyRow.study_instance_uid,
            SeriesRow.series_instance_uid,
            InstanceRow.sop_instance_uid,
            InstanceRow.sop_class_uid,
            InstanceRow.transfer_syntax_uid,
            InstanceRow.path,
            InstanceRow.sha256,
            InstanceRow.size_bytes,
            InstanceRow.purged_at.is_not(None).label("is_purged"),
            SeriesRow.is_result,
            WithdrawalRow.reason.label("withdrawn_because"),
        )
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .outerjoin(
            ResultObjectRow, ResultObjectRow.sop_instance_uid == InstanceRow.sop_instance_uid
        )
        .outerjoin(WithdrawalRow, rejects())
        .where(
            StudyRow.study_instance_uid == study_instance_uid,
            InstanceRow.conflicts_with.is_(None),
        )
    )
    if series_instance_uid is not None:
        statement = statement.where(SeriesRow.series_instance_uid == series_instance_uid)
    if sop_instance_uid is not None:
        statement = statement.where(InstanceRow.sop_instance_uid == sop_instance_uid)
    rows = session.execute(statement.order_by(SeriesRow.number, SeriesRow.id, InstanceRow.id))
    return [Holding(**row) for row in rows.mappings()]
