"""Messages that came: decoded by their own character set, with every field within reach."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import hl7

from triage.hl7.characters import Delimiters, codec_of, unescape
from triage.hl7.errors import ErrorCode, Hl7Error, Place

Repetitions = Sequence[Sequence[Sequence[str]]]
"""A field: repetitions of components of subcomponents."""

_MOST_DELIMITERS = 50_000  # of what is parsed into objects; an order has a few hundred
_LINE_ENDS = re.compile(rb"\r\n|\n")
_TIME = re.compile(
    r"(?P<date>\d{4}(?:\d{2}(?:\d{2})?)?)(?P<time>\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,4})?)?)?)?"
    r"(?P<zone>[+-]\d{4})?"
)
_NOTHING = '""'  # "delete what you have" (2.5.3)


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of a message. Fields, components and subcomponents count from 1."""

    name: str
    number: int
    fields: Sequence[Repetitions]
    delimiters: Delimiters
    codec: str

    def place(self, field: int | None = None) -> Place:
        """Return where a field of this segment is."""
        return Place(self.name, field, self.number)

    def text(self, field: int, component: int = 1, subcomponent: int = 1) -> str:
        """Return a part of the first repetition as text; empty where there is none."""
        parts = self.repetitions(field)[0]
        if component > len(parts) or subcomponent > len(parts[component - 1]):
            return ""
        return parts[component - 1][subcomponent - 1]

    def repetitions(self, field: int) -> list[list[list[str]]]:
        """Return a field's repetitions, of components, of subcomponents, as text; at least one."""
        if field >= len(self.fields):
            return [[[""]]]
        return [
            [[self._plain(part) for part in component] for component in repetition]
            for repetition in self.fields[field]
        ]

    def is_deleted(self, field: int) -> bool:
        """Return whether the field says that what it said before is no longer so."""
        return field < len(self.fields) and self.fields[field][0][0][0].strip() == _NOTHING

    def required(self, field: int, name: str) -> str:
        """Return the first component of a field that must be there.

        Raises:
            Hl7Error: it is empty.
        """
        value = self.text(field)
        if not value:
            raise Hl7Error(f"{name} is empty", self.place(field), ErrorCode.REQUIRED_FIELD_MISSING)
        return value

    def moment(self, field: int) -> datetime | None:
        """Return a point in time, or None where the field is empty.

        Raises:
            Hl7Error: it is none.
        """
        value = self.text(field)
        if not value:
            return None
        try:
            return parse_moment(value)
        except ValueError:
            raise Hl7Error(
                "this is no date and time (YYYYMMDDHHMMSS)", self.place(field), ErrorCode.DATA_TYPE
            ) from None

    def _plain(self, value: str) -> str:
        text = unescape(value, self.delimiters, self.codec).strip()
        return "" if text == _NOTHING else text.replace("\x00", "")


@dataclass(frozen=True, slots=True)
class Message:
    """A message: its segments in the order in which they came, MSH first."""

    segments: tuple[Segment, ...]

    @property
    def header(self) -> Segment:
        """MSH."""
        return self.segments[0]

    @property
    def message_type(self) -> str:
        """MSH-9.1, such as ORM."""
        return self.header.text(9, 1).upper()

    @property
    def trigger_event(self) -> str:
        """MSH-9.2, such as O01."""
        return self.header.text(9, 2).upper()

    @property
    def control_id(self) -> str:
        """MSH-10."""
        return self.header.text(10)

    @property
    def sender(self) -> str:
        """Sending application and facility, as people say it."""
        application, facility = self.header.text(3), self.header.text(4)
        return " of ".join(filter(None, (application, facility))) or "an unnamed system"

    def named(self, name: str) -> list[Segment]:
        """Return the segments of that name."""
        return [segment for segment in self.segments if segment.name == name]

    def first(self, name: str) -> Segment | None:
        """Return the first segment of that name, or None."""
        return next(iter(self.named(name)), None)

    def required(self, name: str) -> Segment:
        """Return the first segment of that name.

        Raises:
            Hl7Error: there is none.
        """
        segment = self.first(name)
        if segment is None:
            raise Hl7Error(
                f"a {self.message_type}^{self.trigger_event} must have this segment",
                Place(name),
                ErrorCode.SEGMENT_SEQUENCE,
            )
        return segment


def parse_message(content: bytes, *, default_character_set: str = "UNICODE UTF-8") -> Message:
    """Return the message that `content` is, without its frame.

    Line ends that should be carriage returns are taken as such. The character set is that of
    MSH-18, or `default_character_set` where the message names none.

    Raises:
        Hl7Error: it is no message, or its character set is not known or not kept to.
    """
    lines = _LINE_ENDS.sub(b"\r", content).strip(b"\r \x00")
    delimiters = _delimiters_of(lines)
    if sum(lines.count(mark.encode()) for mark in _marks(delimiters)) > _MOST_DELIMITERS:
        raise _rejected(f"more than {_MOST_DELIMITERS} fields and components", Place("MSH"))
    codec = _codec_of(lines, delimiters, default_character_set)
    try:
        text = lines.decode(codec)
    except UnicodeDecodeError as error:
        raise _rejected(
            f"byte {error.start + 1} of the message is not in this character set",
            Place("MSH", 18),
            ErrorCode.DATA_TYPE,
        ) from None
    counted: dict[str, int] = {}
    segments = []
    for segment in hl7.parse(text):
        name = str(segment[0])
        if not name.strip():
            continue
        counted[name] = counted.get(name, 0) + 1
        fields = [_nested(field, 3) for field in segment]
        segments.append(Segment(name, counted[name], fields, delimiters, codec))
    return Message(tuple(segments))


def _nested(value: Any, depth: int) -> Any:
    """Return what the parser leaves out where there is one part only."""
    if depth == 0:
        return value if isinstance(value, str) else str(value)
    return (
        [_nested(value, depth - 1)]
        if isinstance(value, str)
        else [_nested(part, depth - 1) for part in value]
    )


def _delimiters_of(lines: bytes) -> Delimiters:
    if lines[:3] != b"MSH" or len(lines) < 9:
        raise _rejected("the message does not begin with MSH", Place("MSH"))
    found = lines[3:8].decode("latin-1")
    given = found[1:].split(found[0])[0]
    if len(given) < 3 or len(set(found[0] + given)) != len(given) + 1 or _is_text(found[0] + given):
        raise _rejected(
            "MSH-1 and MSH-2 must be five different characters such as |^~\\&", Place("MSH", 2)
        )
    component, repetition, escape, subcomponent = list(given + "&")[:4]
    return Delimiters(found[0], component, repetition, escape, subcomponent)


def _is_text(marks: str) -> bool:
    return any(mark.isalnum() or not "!" <= mark <= "~" for mark in marks)


def _marks(delimiters: Delimiters) -> str:
    return (
        delimiters.field
        + delimiters.component
        + delimiters.repetition
        + delimiters.subcomponent
        + "\r"
    )


def _codec_of(lines: bytes, delimiters: Delimiters, default: str) -> str:
    header = lines.split(b"\r", 1)[0].decode("latin-1").split(delimiters.field)
    named = header[17] if len(header) > 17 else ""
    first = named.split(delimiters.repetition)[0].strip() or default
    codec = codec_of(first)
    if codec is None:
        raise _rejected(
            "this character set of table 0211 is not known here; UNICODE UTF-8 is",
            Place("MSH", 18),
            ErrorCode.TABLE_VALUE,
        )
    return codec


def _rejected(message: str, place: Place, code: ErrorCode = ErrorCode.SEGMENT_SEQUENCE) -> Hl7Error:
    return Hl7Error(message, place, code, is_rejected=True)


def parse_moment(value: str) -> datetime:
    """Return the moment of a TS or DTM (HL7 v2.5.1 2.A.22); without a zone it is the server's.

    >>> parse_moment("20260301123000+0100").isoformat()
    '2026-03-01T11:30:00+00:00'

    Raises:
        ValueError: it is none.
    """
    parts = _TIME.fullmatch(value.strip())
    if parts is None:
        raise ValueError(value)
    date = parts["date"] + "0101"[len(parts["date"]) - 4 :]
    day = date + (parts["time"] or "").split(".")[0].ljust(6, "0")
    if parts["zone"] is not None:
        return datetime.strptime(day + parts["zone"], "%Y%m%d%H%M%S%z").astimezone(UTC)
    moment = datetime.strptime(day, "%Y%m%d%H%M%S")  # noqa: DTZ007 - the server's own time
    return moment.astimezone(UTC)


def moment_in_digits(moment: datetime) -> str:
    """Return a moment as TS, in the server's time with its offset."""
    return moment.astimezone().strftime("%Y%m%d%H%M%S%z")
