"""What a message says, in the terms of the domain (HL7 v2.5.1 chapters 3 and 4, IHE RAD-2 to 4)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from triage.core.orders import (
    Order,
    PatientIdentifier,
    PatientMerge,
    PatientUpdate,
    Visit,
)
from triage.core.priority import Priority
from triage.hl7.errors import ErrorCode, Hl7Error, Place
from triage.hl7.message import Message, Segment
from triage.settings import Hl7Settings

_CANCELS = frozenset({"CA", "OC", "DC", "CR", "DR", "OD", "UA"})  # table 0119
_CANCELLED = frozenset({"CA", "DC"})  # table 0038
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_DATE = re.compile(r"\d{8}")
_LONGEST_UID = 64


@dataclass(frozen=True, slots=True)
class _Group:
    """The segments of one order."""

    segments: tuple[Segment, ...]

    def first(self, name: str) -> Segment | None:
        return next((s for s in self.segments if s.name == name), None)

    def text(self, name: str, field: int, component: int = 1, subcomponent: int = 1) -> str:
        segment = self.first(name)
        return segment.text(field, component, subcomponent) if segment else ""

    def moment(self, name: str, field: int) -> datetime | None:
        segment = self.first(name)
        return segment.moment(field) if segment else None


def read_orders(message: Message, settings: Hl7Settings, *, received_at: datetime) -> list[Order]:
    """Return the orders of an ORM^O01, OMI^O23 or OMG^O19.

    Raises:
        Hl7Error: what must be there is not, or is not what it should be.
    """
    message.required("ORC" if message.first("ORC") else "OBR")
    general = Order(
        source=message.sender,
        stated_at=message.header.moment(7) or received_at,
        identifiers=_identifiers(message.required("PID"), 3, "the Patient ID"),
        visit=_visit(message.first("PV1")),
    )
    return [_order(general, group, settings) for group in _groups(message)]


def _groups(message: Message) -> Iterator[_Group]:
    """Yield the segments of each order: from an ORC on, or from an OBR that has none."""
    general = tuple(message.named("ZDS"))  # IHE puts one at the end of the message
    begun: list[Segment] = []
    for segment in message.segments:
        is_new = segment.name == "ORC" or (
            segment.name == "OBR" and any(s.name == "OBR" for s in begun)
        )
        if is_new and begun:
            yield _Group((*begun, *general))
            begun = []
        if begun or segment.name in ("ORC", "OBR"):
            begun.append(segment)
    yield _Group((*begun, *general))


def _order(general: Order, group: _Group, settings: Hl7Settings) -> Order:
    placer = group.text("ORC", 2) or group.text("OBR", 2)
    filler = group.text("ORC", 3) or group.text("OBR", 3)
    accession = _accession_number(group, settings)
    uid = _study_instance_uid(group)
    if not (accession or uid or placer or filler):
        raise Hl7Error(
            "the order has no accession number, placer or filler number, or Study Instance UID",
            (group.first("OBR") or group.segments[0]).place(2),
            ErrorCode.REQUIRED_FIELD_MISSING,
        )
    code, priority = _priority(group, settings)
    is_cancelled = (
        group.text("ORC", 1).upper() in _CANCELS or group.text("ORC", 5).upper() in _CANCELLED
    )
    return replace(
        general,
        accession_number=accession,
        placer_number=placer,
        filler_number=filler,
        study_instance_uid=uid,
        priority=priority,
        priority_code=code,
        reason=group.text("OBR", 31, 2) or group.text("OBR", 31, 1) or group.text("OBR", 13),
        procedure_code=group.text("OBR", 4, 1),
        procedure_text=group.text("OBR", 4, 2),
        procedure_scheme=group.text("OBR", 4, 3),
        ordered_at=group.moment("ORC", 9),
        is_cancelled=is_cancelled,
    )


def _accession_number(group: _Group, settings: Hl7Settings) -> str:
    places: dict[str, Callable[[], str]] = {
        "IPC-1": lambda: group.text("IPC", 1),
        "OBR-18": lambda: group.text("OBR", 18),
        "OBR-3": lambda: group.text("OBR", 3) or group.text("ORC", 3),
        "OBR-2": lambda: group.text("OBR", 2) or group.text("ORC", 2),
    }
    if settings.accession_number != "auto":
        return places[settings.accession_number]()
    return next(filter(None, (find() for find in places.values())), "")


def _study_instance_uid(group: _Group) -> str:
    """Return the UID of IPC-3, or of ZDS-1 (IHE RAD TF-2 4.4.4.1.2)."""
    for name, field in (("IPC", 3), ("ZDS", 1)):
        uid = group.text(name, field)
        if not uid:
            continue
        if len(uid) > _LONGEST_UID or not _UID.fullmatch(uid):
            segment = group.first(name)
            raise Hl7Error(
                "this is no UID (digits and dots, 64 at most)",
                segment.place(field) if segment else Place(name, field),
                ErrorCode.DATA_TYPE,
            )
        return uid
    return ""


def _priority(group: _Group, settings: Hl7Settings) -> tuple[str, Priority | None]:
    """Return the code of TQ1-9, ORC-7.6, OBR-27.6 or OBR-5, and what it means, if that is known."""
    code = (
        group.text("TQ1", 9)
        or group.text("ORC", 7, 6)
        or group.text("OBR", 27, 6)
        or group.text("OBR", 5)
    )
    known = {key.upper(): value for key, value in settings.priorities.items()}
    word = known.get(code.upper())
    return code[:32], Priority.parse(word) if word else None


def read_update(message: Message) -> PatientUpdate:
    """Return what an ADT message says of its patient.

    Raises:
        Hl7Error: what must be there is not, or is not what it should be.
    """
    return _update(message, message.required("PID"), message.first("PV1"))


def read_merges(message: Message) -> list[PatientMerge]:
    """Return who became one by an ADT^A40, which may be several (HL7 v2.5.1 3.3.40, ADT_A39).

    Raises:
        Hl7Error: what must be there is not, or both of a merge are the same.
    """
    message.required("PID")
    return [_merge(message, number, group) for number, group in enumerate(_by_pid(message), 1)]


def _by_pid(message: Message) -> Iterator[_Group]:
    """Yield the segments of each patient, from a PID on; an MRG before it is of nobody."""
    begun: list[Segment] = []
    for segment in message.segments:
        if segment.name == "PID" and begun:
            yield _Group(tuple(begun))
            begun = []
        if segment.name == "PID" or begun:
            begun.append(segment)
        elif segment.name == "MRG":
            raise Hl7Error("no PID stands before it", segment.place(), ErrorCode.SEGMENT_SEQUENCE)
    yield _Group(tuple(begun))


def _merge(message: Message, number: int, group: _Group) -> PatientMerge:
    prior = [segment for segment in group.segments if segment.name == "MRG"]
    if not prior:
        raise Hl7Error(
            "each PID of an ADT^A40 must have this segment after it",
            Place("MRG", None, number),
            ErrorCode.SEGMENT_SEQUENCE,
        )
    if len(prior) > 1:
        raise Hl7Error(
            "a second one after the same PID; repeat the PID before it",
            prior[1].place(),
            ErrorCode.SEGMENT_SEQUENCE,
        )
    survivor = _update(message, group.segments[0], group.first("PV1"))
    retired = _identifiers(prior[0], 1, "the prior Patient ID")
    if set(retired) & set(survivor.identifiers):
        raise Hl7Error(
            "the patient is to be merged with itself", prior[0].place(1), ErrorCode.DATA_TYPE
        )
    return PatientMerge(survivor, retired)


def _update(message: Message, pid: Segment, pv1: Segment | None) -> PatientUpdate:
    birth_date = pid.text(7)[:8]
    if birth_date and not _DATE.fullmatch(birth_date):
        raise Hl7Error("this is no date (YYYYMMDD)", pid.place(7), ErrorCode.DATA_TYPE)
    sex = pid.text(8).upper()
    return PatientUpdate(
        source=message.sender,
        identifiers=_identifiers(pid, 3, "the Patient ID"),
        name=_person_name(pid) or None,
        birth_date="" if pid.is_deleted(7) else birth_date or None,
        # DICOM's Patient's Sex has M, F and O; table 0001 has A (ambiguous), N and U too.
        sex={"M": "M", "F": "F", "": None, "U": ""}.get(sex, "O"),
        visit=_visit(pv1),
    )


def _identifiers(segment: Segment, field: int, name: str) -> tuple[PatientIdentifier, ...]:
    """Return the identifiers of a field of CX, each once; the issuer is its namespace (CX.4.1)."""
    found = []
    for repetition in segment.repetitions(field):
        value = repetition[0][0]
        issuer = repetition[3][0] if len(repetition) > 3 else ""
        if value:
            found.append(PatientIdentifier(value[:128], issuer[:128]))
    if not found:
        segment.required(field, name)
    return tuple(dict.fromkeys(found))


def _person_name(pid: Segment) -> str:
    """Return PID-5 as DICOM's PN: XPN has the degree last, and the suffix before the prefix."""
    family = pid.text(5, 1)
    given, middle, suffix, prefix = (pid.text(5, n) for n in (2, 3, 4, 5))
    parts = [
        part.replace("^", " ").replace("=", " ") for part in (family, given, middle, prefix, suffix)
    ]
    return "^".join(parts).rstrip("^")[:400]


def _visit(pv1: Segment | None) -> Visit:
    if pv1 is None:
        return Visit()
    place: Sequence[str] = [pv1.text(3, n) for n in (1, 2, 3)]  # point of care, room, bed
    return Visit("-".join(filter(None, place))[:128], pv1.text(2).upper()[:16])
