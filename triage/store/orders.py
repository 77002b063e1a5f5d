"""Orders that messages told, and the studies that they are of: there already, or still to come.

What a message says of an order is the order's own: it may lower it. A study's place follows the
higher of its order and the AI, so nothing that the AI raised is lowered by that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, exists, or_, select
from sqlalchemy.orm import Session

from triage.core.orders import Order, PatientIdentifier, Visit
from triage.core.places import Source
from triage.core.priority import Priority
from triage.store.history import note
from triage.store.merges import survivor_of
from triage.store.order_tables import OrderRow
from triage.store.prioritising import reprioritise
from triage.store.tables import STAND_IN_PREFIX, PatientRow, StudyRow

_LENGTHS = {
    "source": 128,
    "accession_number": 64,
    "placer_number": 64,
    "filler_number": 64,
    "study_instance_uid": 64,
    "procedure_code": 64,
    "procedure_text": 256,
    "procedure_scheme": 64,
}


def keep_order(session: Session, order: Order, *, now: datetime) -> str:
    """Keep what a message says of an order, apply it to its studies, and say what that was.

    Of two statements of one source, that which was made later counts, in whatever order they come.
    """
    row = _known_order(session, order)
    if row is None:
        row = OrderRow(source=order.source[:128], identifiers=[], stated_at=order.stated_at)
        session.add(row)
    elif row.source == order.source[:128] and row.stated_at > order.stated_at:
        return "nothing changed: a later message of this order came before"
    _write(row, order, now)
    session.flush()
    studies = _studies_of(session, row)
    for study in studies:
        _apply(session, study, row, order, now)
    if not studies:
        return "the order is kept until its study comes"
    return f"applied to {len(studies)} stud{'y' if len(studies) == 1 else 'ies'}"


def _write(row: OrderRow, order: Order, now: datetime) -> None:
    """Write what the message says; what it does not say stays as it was."""
    for name, length in _LENGTHS.items():
        if value := getattr(order, name):
            setattr(row, name, value[:length])
    if order.identifiers:
        row.identifiers = [[one.value, one.issuer] for one in order.identifiers]
    if order.priority is not None:
        row.priority = order.priority
    row.location = order.visit.location[:128] or row.location or ""
    row.patient_class = order.visit.patient_class[:16] or row.patient_class or ""
    row.reason = order.reason or row.reason or ""
    row.ordered_at = order.ordered_at or row.ordered_at
    row.stated_at = order.stated_at
    row.is_cancelled = order.is_cancelled
    row.updated_at = now


def _known_order(session: Session, order: Order) -> OrderRow | None:
    source = OrderRow.source == order.source[:128]
    same: list[ColumnElement[bool]] = []
    if order.study_instance_uid:
        same.append(OrderRow.study_instance_uid == order.study_instance_uid)
    if order.accession_number:
        same.append(OrderRow.accession_number == order.accession_number[:64])
    if order.filler_number:
        same.append(source & (OrderRow.filler_number == order.filler_number[:64]))
    if order.placer_number:
        same.append(source & (OrderRow.placer_number == order.placer_number[:64]))
    if not same:
        return None
    rows = session.scalars(
        select(OrderRow).where(or_(*same)).order_by(OrderRow.id.desc()).with_for_update()
    )
    for row in rows:
        if _is_other_order(row, order):
            continue
        if _are_of_one_patient(session, _identifiers(row), order.identifiers):
            return row
    return None


def _is_other_order(row: OrderRow, order: Order) -> bool:
    """Return whether a placer number says so: several orders may share an accession number."""
    return (
        row.source == order.source[:128]
        and bool(row.placer_number and order.placer_number)
        and row.placer_number != order.placer_number[:64]
    )


def _studies_of(session: Session, row: OrderRow) -> Sequence[StudyRow]:
    named: list[ColumnElement[bool]] = []
    if row.study_instance_uid:
        named.append(StudyRow.study_instance_uid == row.study_instance_uid)
    if row.accession_number:
        named.append(StudyRow.accession_number == row.accession_number)
    if not named:
        return []
    studies = session.scalars(
        select(StudyRow)
        .where(or_(*named), StudyRow.forgotten_at.is_(None))
        .order_by(StudyRow.id)
        .with_for_update(key_share=True, of=StudyRow)
        .execution_options(populate_existing=True)
    ).all()
    return [s for s in studies if _is_of(session, row, s.study_instance_uid, s.patient)]


def _apply(session: Session, study: StudyRow, row: OrderRow, order: Order, now: datetime) -> None:
    orders = _orders_of(session, study)
    study.order_id = orders[0].id if orders else row.id
    place(session, study, order.visit, order.source, now=now)
    if order.priority is not None:
        said = f" ({order.priority_code})" if order.priority_code else ""
        reason = f"the order of {order.source} says {order.priority.label}{said}"
        urgent = orders[0].priority if orders and orders[0].priority is not None else None
        if urgent is not None and urgent > order.priority:
            reason += f"; another order of the study says {urgent.label}"
        set_order_priority(
            session, study, max(order.priority, urgent or Priority.LOW), reason, now=now
        )
    elif order.priority_code:
        text = (
            f"the priority {order.priority_code!r} of {order.source} is not known and changes "
            "nothing; add it to hl7.priorities"
        )
        note(session, study.id, "order", text, at=now)
    if order.is_cancelled:
        text = f"{order.source} cancelled the order; the study stays where it is"
        note(session, study.id, "order", text, at=now)


def set_order_priority(
    session: Session, study: StudyRow, priority: Priority, reason: str, *, now: datetime
) -> None:
    """Write what the order says now, and move the study accordingly."""
    if study.order_priority is priority:
        return
    study.order_priority = priority
    note(session, study.id, "order", reason, at=now)
    reprioritise(session, study, Source.ORDER, reason, now=now, is_told=True)


def place(session: Session, study: StudyRow, visit: Visit, source: str, *, now: datetime) -> None:
    """Write where the patient is, as far as `visit` says it, and move the study accordingly."""
    location, patient_class = visit.location[:128], visit.patient_class[:16]
    before = (study.location, study.patient_class)
    study.location = location or study.location
    study.patient_class = patient_class or study.patient_class
    if (study.location, study.patient_class) != before:
        reason = f"{source} says where the patient is"
        note(session, study.id, "order", reason, at=now)
        reprioritise(session, study, Source.LOCATION, reason, now=now)


def link_known_order(session: Session, study: StudyRow, *, now: datetime) -> None:
    """Give a study the order that was told before it came, if there is one.

    Where the images and the message name different priorities, the higher counts: nobody can say
    which of them is newer.
    """
    if study.order_id is not None:
        return
    orders = _orders_of(session, study)
    if not orders:
        return
    row = orders[0]
    study.order_id = row.id
    place(session, study, Visit(row.location, row.patient_class), row.source, now=now)
    if row.priority is not None and row.priority > study.order_priority:
        reason = f"the order of {row.source} says {row.priority.label}"
        set_order_priority(session, study, row.priority, reason, now=now)
    if row.is_cancelled:
        text = f"{row.source} had cancelled the order; the study is treated like every other"
        note(session, study.id, "order", text, at=now)


def _orders_of(session: Session, study: StudyRow) -> list[OrderRow]:
    """Return a study's orders: what is not cancelled first, then the most urgent, then the newest.

    One study may be made for several orders, each with its own priority.
    """
    named: list[ColumnElement[bool]] = [OrderRow.study_instance_uid == study.study_instance_uid]
    if study.accession_number:
        named.append(OrderRow.accession_number == study.accession_number)
    rows = session.scalars(select(OrderRow).where(or_(*named)).order_by(OrderRow.id.desc())).all()
    if not rows:
        return []
    patient = session.get_one(PatientRow, study.patient_id)
    return sorted(
        (row for row in rows if _is_of(session, row, study.study_instance_uid, patient)),
        key=lambda row: (row.is_cancelled, -(row.priority or Priority.LOW)),
    )


def _is_of(session: Session, row: OrderRow, study_uid: str, patient: PatientRow) -> bool:
    """Return whether the order may be that study's: an accession number alone can be used twice."""
    if row.study_instance_uid and row.study_instance_uid == study_uid:
        return True
    if patient.patient_id.startswith(STAND_IN_PREFIX):
        return True
    return _are_of_one_patient(
        session, _identifiers(row), [PatientIdentifier(patient.patient_id, patient.issuer)]
    )


def _identifiers(row: OrderRow) -> list[PatientIdentifier]:
    return [PatientIdentifier(value, issuer) for value, issuer in row.identifiers]


def _are_of_one_patient(
    session: Session, some: Iterable[PatientIdentifier], others: Iterable[PatientIdentifier]
) -> bool:
    """Return whether nothing speaks against both being one patient's, merges considered."""
    left = [survivor_of(session, one) for one in some]
    right = [survivor_of(session, one) for one in others]
    if not left or not right:
        return True
    return any(
        a.value == b.value and (a.issuer == b.issuer or not a.issuer or not b.issuer)
        for a in left
        for b in right
    )


def forget_order(session: Session, study: StudyRow) -> None:
    """Delete what orders said of a study whose patient data go."""
    order_id = study.order_id
    study.order_id, study.location, study.patient_class = None, "", ""
    session.flush()
    if order_id is not None:
        of_other = exists(select(StudyRow.id).where(StudyRow.order_id == OrderRow.id))
        session.execute(delete(OrderRow).where(OrderRow.id == order_id, ~of_other))


def forget_unclaimed_orders(session: Session, *, older_than: timedelta, now: datetime) -> int:
    """Delete the orders of which no study came, and return how many there were."""
    has_study = exists(select(StudyRow.id).where(StudyRow.order_id == OrderRow.id))
    gone = session.scalars(
        delete(OrderRow)
        .where(OrderRow.updated_at < now - older_than, ~has_study)
        .returning(OrderRow.id)
    ).all()
    return len(gone)
