"""Studies that were ordered or announced, and of which no image has come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, String, cast, exists, false, func, or_, select
from sqlalchemy.orm import Session

from triage.store.order_tables import OrderRow
from triage.store.tables import ArrivalSignalRow, StudyRow

_MOST = 20


class ExpectedStudy(BaseModel):
    """An order, or what a modality announced, without a study; `said` is what is known of it."""

    model_config = ConfigDict(frozen=True)

    accession_number: str
    study_instance_uid: str
    procedure: str
    stated_at: datetime
    said: str


def expected_studies(
    session: Session, *, numbers: Sequence[str], patient_ids: Sequence[str], uids: Sequence[str]
) -> tuple[ExpectedStudy, ...]:
    """Return what was ordered or announced under one of these, and has not come, newest first."""
    orders = session.scalars(
        select(OrderRow)
        .where(_is_asked(numbers, patient_ids, uids), ~_has_study())
        .order_by(OrderRow.stated_at.desc())
        .limit(_MOST)
    ).all()
    signals = _signals(session, [*uids, *(o.study_instance_uid for o in orders)])
    ordered = [_of_order(order, signals.pop(order.study_instance_uid, None)) for order in orders]
    return (*ordered, *(_of_signal(signal) for signal in signals.values()))


def _is_asked(
    numbers: Sequence[str], patient_ids: Sequence[str], uids: Sequence[str]
) -> ColumnElement[bool]:
    identifiers = cast(OrderRow.identifiers, String)
    stated = [func.upper(OrderRow.accession_number) == one.upper() for one in numbers]
    # Pairs of ID and issuer, as JSON: the ID stands in quotes.
    patients = [identifiers.contains(json.dumps(one), autoescape=True) for one in patient_ids]
    studies = [OrderRow.study_instance_uid == one for one in uids]
    return or_(false(), *stated, *patients, *studies)


def _has_study() -> ColumnElement[bool]:
    return exists().where(StudyRow.order_id == OrderRow.id)


def _signals(session: Session, uids: Sequence[str]) -> dict[str, ArrivalSignalRow]:
    has_come = exists().where(StudyRow.study_instance_uid == ArrivalSignalRow.study_instance_uid)
    rows = session.scalars(
        select(ArrivalSignalRow)
        .where(ArrivalSignalRow.study_instance_uid.in_(list(filter(None, uids))), ~has_come)
        .order_by(ArrivalSignalRow.updated_at)
    )
    return {row.study_instance_uid: row for row in rows}


def _of_order(order: OrderRow, signal: ArrivalSignalRow | None) -> ExpectedStudy:
    source = order.source.replace("^", " ")
    said = f"cancelled by {source}" if order.is_cancelled else f"ordered by {source}"
    announced = f"; {_announced(signal)}" if signal is not None else ""
    return ExpectedStudy(
        accession_number=order.accession_number,
        study_instance_uid=order.study_instance_uid,
        procedure=order.procedure_text,
        stated_at=order.stated_at,
        said=f"{said}{announced}; no image has come",
    )


def _of_signal(signal: ArrivalSignalRow) -> ExpectedStudy:
    return ExpectedStudy(
        accession_number="",
        study_instance_uid=signal.study_instance_uid,
        procedure="",
        stated_at=signal.updated_at,
        said=f"{_announced(signal)}; no image has come",
    )


def _announced(signal: ArrivalSignalRow) -> str:
    return (
        f"announced by {signal.calling_ae_title or 'a modality'} ({signal.source}, {signal.state})"
    )
