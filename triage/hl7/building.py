"""Messages of ours: segments from values, with what the values are made of escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from triage.hl7.characters import DELIMITERS, escape

Value = str | int | Sequence["str | Sequence[str]"]
"""A field: text, or components, each text or subcomponents."""


class Raw(str):
    """A field that is written already and must not be escaped again."""

    __slots__ = ()


def field(value: Value) -> Raw:
    """Return a field, without the empty components at its end.

    >>> field(["50960005", "Hemorrhage & more", "SCT", ""])
    '50960005^Hemorrhage \\\\T\\\\ more^SCT'
    """
    if isinstance(value, Raw):
        return value
    if isinstance(value, str | int):
        return Raw(escape(str(value)))
    parts = [_component(part) for part in value]
    return Raw(DELIMITERS.component.join(parts).rstrip(DELIMITERS.component))


def _component(part: str | Sequence[str]) -> str:
    if isinstance(part, Raw):
        return part
    if isinstance(part, str):
        return escape(part)
    written = DELIMITERS.subcomponent.join(escape(one) for one in part)
    return written.rstrip(DELIMITERS.subcomponent)


def repeated(values: Iterable[Value]) -> Raw:
    """Return a field of several repetitions."""
    return Raw(DELIMITERS.repetition.join(field(value) for value in values))


def segment(name: str, fields: Mapping[int, Value]) -> str:
    """Return a segment with the fields of these numbers, and nothing after the last that says any.

    >>> segment("NTE", {1: 1, 3: "not for primary diagnosis"})
    'NTE|1||not for primary diagnosis'
    """
    written = {number: field(value) for number, value in fields.items()}
    last = max((number for number, value in written.items() if value), default=0)
    return DELIMITERS.field.join([name, *(written.get(n, "") for n in range(1, last + 1))])


def header(fields: Mapping[int, Value]) -> str:
    """Return MSH with the fields from 3 on: MSH-1 is the first delimiter itself."""
    shifted = {number - 1: value for number, value in fields.items()}
    return segment("MSH", {1: Raw(DELIMITERS.encoding_characters), **shifted})


def encode(segments: Iterable[str], codec: str) -> bytes:
    """Return the segments as a message; what the character set has not becomes a question mark."""
    return "".join(f"{one}\r" for one in segments).encode(codec, errors="replace")
