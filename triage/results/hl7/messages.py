"""Whole messages: ORU^R01 for results, OMI^O23 or ORM^O01 for changes of priority."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from triage.core.notices import Notice, NoticeRun, PriorityChange
from triage.core.runs import DeliveryKind
from triage.hl7.building import Value, encode, segment
from triage.hl7.characters import codec_of
from triage.hl7.message import moment_in_digits
from triage.results.context import PRIMARY_USE_WARNING
from triage.results.hl7.observations import observations
from triage.results.hl7.segments import (
    OWN_CODES,
    control_id_of,
    filler_number,
    msh,
    nte,
    performed_at,
    pid,
    pv1,
    quantity_timing,
    service,
    tq1,
)
from triage.results.hl7.templates import replaced_by_template
from triage.settings import Hl7Destination

MessageName = Literal["oru", "omi", "orm"]

_KINDS: dict[MessageName, tuple[str, str]] = {
    "oru": ("ORU", "R01"),
    "omi": ("OMI", "O23"),
    "orm": ("ORM", "O01"),
}


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message that is to be sent."""

    control_id: str
    segments: tuple[str, ...]
    codec: str

    @property
    def content(self) -> bytes:
        """Its bytes, without the frame."""
        return encode(self.segments, self.codec)


def message_of(notice: Notice, destination: Hl7Destination) -> OutgoingMessage:
    """Return the message by which `destination` is told of `notice`.

    Raises:
        TemplateError: a template of the site cannot be filled in.
        ValueError: none of the destination's messages tells a notice of this kind.
    """
    name = _name_of(notice, destination)
    made: dict[MessageName, Callable[[Notice, Hl7Destination], list[str]]] = {
        "oru": _result,
        "omi": _imaging_order,
        "orm": _order,
    }
    segments = made[name](notice, destination)
    if destination.templates is not None:
        segments = replaced_by_template(destination.templates, name, notice, segments)
    return OutgoingMessage(
        control_id=control_id_of(notice),
        segments=(msh(notice, destination, _KINDS[name]), *segments),
        codec=codec_of(destination.character_set) or "utf-8",
    )


def _name_of(notice: Notice, destination: Hl7Destination) -> MessageName:
    if notice.kind is not DeliveryKind.PRIORITY and "oru" in destination.messages:
        return "oru"
    if notice.kind is DeliveryKind.PRIORITY and destination.order_message is not None:
        return destination.order_message
    raise ValueError(
        f"{destination.name} is sent {', '.join(destination.messages)}, none of which tells a "
        f"{notice.kind.value}; add one to its messages"
    )


def _result(notice: Notice, destination: Hl7Destination) -> list[str]:
    """Return ORU^R01 after MSH.

    Its results are preliminary (P); told again because something else was held true, corrections
    (C); taken back, posted as wrong (W) in a report that is corrected (tables 0123 and 0085).
    """
    run = _run_of(notice)
    study = notice.study
    report, status = ("P", "P")
    if notice.is_correction:
        report, status = ("C", "C")
    if notice.kind is DeliveryKind.WITHDRAWAL:
        report, status = ("C", "W")
    is_old = destination.version == "2.3.1"
    numbers: dict[int, Value] = {2: study.order.placer_number, 3: filler_number(study)}
    obr: dict[int, Value] = {
        1: 1,
        **numbers,
        4: service(study),
        7: performed_at(study),
        18: study.accession_number,
        22: moment_in_digits(notice.occurred_at),
        24: "RAD",
        25: report,
        27: quantity_timing(study.priority) if is_old else "",
        31: ["", study.order.reason],
    }
    return [
        pid(study.patient, destination.assigning_authority),
        pv1(study),
        segment("ORC", {1: "RE", **numbers}),
        segment("OBR", obr),
        *(nte(number, text) for number, text in enumerate(_notes(notice, run), start=1)),
        *([] if is_old else [tq1(study.priority)]),
        *observations(notice, run, destination, status),
    ]


def _run_of(notice: Notice) -> NoticeRun:
    if notice.run is None:
        raise ValueError(f"notice {notice.notice_id} of a {notice.kind.value} names no analysis")
    return notice.run


def _notes(notice: Notice, run: NoticeRun) -> list[str]:
    notes = [PRIMARY_USE_WARNING, f"{run.identity}: {run.notice}" if run.notice else ""]
    if run.stage != "production":
        notes.append(f"The model is a {run.stage}")
    if notice.is_correction:
        notes.append("Corrected: the patient's identity has changed")
    if notice.withdrawal is not None:
        did = "Superseded" if notice.withdrawal.is_superseded else "Withdrawn"
        by = f" by {notice.withdrawal.who}" if notice.withdrawal.who else ""
        notes.append(f"{did}{by}: {notice.withdrawal.reason}")
    return [note for note in notes if note]


def _change_of(notice: Notice) -> PriorityChange:
    if notice.change is None:
        raise ValueError(f"notice {notice.notice_id} of a priority names no change")
    return notice.change


def _common_order(notice: Notice, *, is_old: bool) -> dict[int, Value]:
    study, change = notice.study, _change_of(notice)
    return {
        1: "XO",
        2: study.order.placer_number,
        3: filler_number(study),
        7: quantity_timing(change.after) if is_old else "",
        9: moment_in_digits(notice.occurred_at),
        16: [f"{change.source}-priority", change.reason[:199], OWN_CODES],
    }


def _detail(notice: Notice, *, is_old: bool) -> dict[int, Value]:
    study, change = notice.study, _change_of(notice)
    return {
        1: 1,
        2: study.order.placer_number,
        3: filler_number(study),
        4: service(study),
        7: performed_at(study),
        18: study.accession_number,
        27: quantity_timing(change.after) if is_old else "",
        31: ["", study.order.reason],
    }


def _order(notice: Notice, destination: Hl7Destination) -> list[str]:
    """Return ORM^O01 after MSH: an order that changes (XO), with its priority in ORC-7."""
    study = notice.study
    return [
        pid(study.patient, destination.assigning_authority),
        pv1(study),
        segment("ORC", _common_order(notice, is_old=True)),
        segment("OBR", _detail(notice, is_old=True)),
        nte(1, _change_of(notice).reason),
    ]


def _imaging_order(notice: Notice, destination: Hl7Destination) -> list[str]:
    """Return OMI^O23 after MSH: an imaging order that changes (XO), with its priority in TQ1-9."""
    study = notice.study
    # Requested procedure and scheduled step are required, and not known: the accession number
    # stands for both, as it does wherever an order has one of each.
    number = study.accession_number or filler_number(study) or study.order.placer_number
    return [
        pid(study.patient, destination.assigning_authority),
        pv1(study),
        segment("ORC", _common_order(notice, is_old=False)),
        tq1(_change_of(notice).after),
        segment("OBR", _detail(notice, is_old=False)),
        nte(1, _change_of(notice).reason),
        segment(
            "IPC",
            {
                1: number,
                2: number,
                3: study.study_instance_uid,
                4: number,
                5: study.modalities[0] if study.modalities else "",
            },
        ),
    ]
