"""Acknowledgements (HL7 v2.5.1 2.9.2): those that we give, and those that we get."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from triage.hl7.building import encode, header, segment
from triage.hl7.characters import codec_of
from triage.hl7.errors import ErrorCode, Hl7Error, Place
from triage.hl7.message import Message, moment_in_digits, parse_message

_LONGEST_TEXT = 80  # of MSA-3
_WITH_ERR_FIELDS = 2.5  # the version from which on ERR has more than its first field


class AcknowledgementCode(StrEnum):
    """HL7 table 0008."""

    ACCEPTED = "AA"
    ERROR = "AE"
    REJECTED = "AR"
    COMMIT_ACCEPTED = "CA"
    COMMIT_ERROR = "CE"
    COMMIT_REJECTED = "CR"


TAKEN = frozenset({AcknowledgementCode.ACCEPTED, AcknowledgementCode.COMMIT_ACCEPTED})
REFUSED_FOR_GOOD = frozenset({AcknowledgementCode.REJECTED, AcknowledgementCode.COMMIT_REJECTED})


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What a peer says of a message of ours: MSA, and ERR in words."""

    code: AcknowledgementCode
    control_id: str
    text: str = ""


def acknowledge(
    message: Message | None,
    *,
    control_id: str,
    at: datetime,
    error: Hl7Error | None = None,
    application: str = "TRIAGE",
) -> bytes:
    """Return the acknowledgement of a message in original mode, in its own version and characters.

    AA without an `error`; else AE or AR, with MSA-3 and ERR naming the segment and the field.

    Args:
        message: what is answered; None where not even its header could be read.
        control_id: MSH-10 of the answer.
        at: when it is given.
        error: what was wrong.
        application: who answers, where the message does not say whom it is for.
    """
    version = (message.header.text(12) if message else "") or "2.5.1"
    character_set = message.header.text(18) if message else ""
    code = AcknowledgementCode.ACCEPTED
    if error is not None:
        is_rejected = error.is_rejected
        code = AcknowledgementCode.REJECTED if is_rejected else AcknowledgementCode.ERROR
    segments = [
        header(
            {
                3: (message.header.text(5) if message else "") or application,
                4: message.header.text(6) if message else "",
                5: message.header.text(3) if message else "",
                6: message.header.text(4) if message else "",
                7: moment_in_digits(at),
                9: ["ACK", message.trigger_event if message else "", "ACK"],
                10: control_id,
                11: (message.header.text(11) if message else "") or "P",
                12: version,
                18: character_set,
            }
        ),
        segment(
            "MSA",
            {
                1: code.value,
                2: message.control_id if message else "",
                3: str(error)[:_LONGEST_TEXT] if error else "",
            },
        ),
    ]
    if error is not None:
        segments.append(_err(error, version))
    return encode(segments, codec_of(character_set) or "utf-8")


def _err(error: Hl7Error, version: str) -> str:
    place = error.place
    if _number(version) < _WITH_ERR_FIELDS:
        # ELD: segment, sequence, field, and the code as subcomponents of the fourth component.
        return segment("ERR", {1: [*_location(place), [error.code.value]]})
    return segment(
        "ERR",
        {
            2: _location(place),
            3: [error.code.value, error.code.name.replace("_", " ").lower(), "HL70357"],
            4: "E",
            8: str(error),
        },
    )


def _location(place: Place) -> list[str]:
    return [place.segment, str(place.number), str(place.field or "")]


def _number(version: str) -> float:
    try:
        return float(".".join(version.split(".")[:2]))
    except ValueError:
        return _WITH_ERR_FIELDS


def read_acknowledgement(content: bytes) -> Acknowledgement:
    """Return what an acknowledgement says.

    Raises:
        Hl7Error: it is none.
    """
    message = parse_message(content)
    msa = message.required("MSA")
    code = msa.required(1, "the acknowledgement code").upper()
    if code not in set(AcknowledgementCode):
        raise Hl7Error(
            "this is no acknowledgement code of table 0008",
            msa.place(1),
            ErrorCode.TABLE_VALUE,
        )
    said = [msa.text(3)]
    for err in message.named("ERR"):
        place = "-".join(filter(None, (err.text(2, 1) or err.text(1, 1), err.text(2, 3))))
        words = err.text(8) or err.text(7) or err.text(3, 2) or err.text(1, 4, 2)
        said.append(": ".join(filter(None, (place, words))))
    return Acknowledgement(
        AcknowledgementCode(code), msa.text(2), "; ".join(dict.fromkeys(filter(None, said)))
    )
