"""Escapes, character sets, and bytes that are no message."""

from __future__ import annotations

import contextlib

import hl7
import pytest
from hl7apy.parser import parse_message as outside_parse
from hypothesis import given
from hypothesis import strategies as st

from tests.hl7.messages import message, orm
from triage.hl7.acknowledgement import acknowledge, read_acknowledgement
from triage.hl7.building import encode, header, segment
from triage.hl7.characters import Delimiters, escape, unescape
from triage.hl7.errors import ErrorCode, Hl7Error
from triage.hl7.message import parse_message, parse_moment

PRINTABLE = st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs", "Cc"]))
OTHER = Delimiters("$", "%", "*", "!", "+")


@given(PRINTABLE, st.sampled_from([Delimiters(), OTHER]))
def test_what_is_escaped_comes_back(text: str, delimiters: Delimiters) -> None:
    escaped = escape(text, delimiters)
    assert unescape(escaped, delimiters) == text
    marks = (delimiters.field, delimiters.component, delimiters.repetition, delimiters.subcomponent)
    assert not any(mark in escaped for mark in marks)


@given(st.text())
def test_what_is_escaped_breaks_neither_segment_nor_frame(text: str) -> None:
    assert all(c >= " " for c in escape(text))


@given(st.text(max_size=200))
def test_any_escape_sequence_is_read_without_an_error(text: str) -> None:
    unescape(text)
    unescape(f"\\X{text}\\")
    assert len(unescape(f"\\.sp{text}\\")) <= len(text) + 6


@given(st.lists(PRINTABLE.filter(str.strip), min_size=1, max_size=5))
def test_a_segment_comes_back_as_another_library_reads_it(values: list[str]) -> None:
    fields = {3: "TRIAGE", 9: "ORU^R01", 10: "1", 11: "P", 12: "2.5.1", 18: "UNICODE UTF-8"}
    note = segment("NTE", {1: 1, 3: values})
    content = encode([header(fields), note], "utf-8")
    outside = hl7.parse(content, encoding="utf-8")
    # The other library takes blanks off the end of a segment.
    read = [str(part).rstrip() for part in str(outside[1][3]).split("^")]
    assert read == [escape(value).rstrip() for value in values]
    ours = parse_message(content).named("NTE")[0]
    assert [ours.text(3, n) for n in range(1, len(values) + 1)] == [v.strip() for v in values]


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"MSH|^~\\&|", b"MSH|^~\\&|RIS\rPID|", b"MSH"])
)
def test_junk_is_refused_or_read_but_never_breaks(junk: bytes, before: bytes) -> None:
    with contextlib.suppress(Hl7Error):
        parsed = parse_message(before + junk)
        assert parsed.segments
        acknowledge(parsed, control_id="1", at=parse_moment("2026"))


@given(st.data())
def test_an_order_with_bytes_changed_never_breaks(data: st.DataObject) -> None:
    content = bytearray(orm())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Hl7Error):
        parse_message(bytes(content))


def test_the_character_set_is_that_of_the_message() -> None:
    lines = "MSH|^~\\&|RIS|||||ADT^A08|||1|P|2.5.1||||||8859/1\rPID|||1||Müller^José\r"
    content = lines.replace("|||||ADT", "||||20260301||ADT").replace("A08|||1", "A08|1")
    pid = parse_message(content.encode("latin-1")).required("PID")
    assert (pid.text(5, 1), pid.text(5, 2)) == ("Müller", "José")


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"", "MSH"),
        (b"PID|1\r", "MSH"),
        (b"MSH|||||||||\r", "MSH-2"),
        (b"MSH|^^^^|RIS\r", "MSH-2"),
        (message("ADT^A08").replace(b"2.5.1", b"2.5.1||||||KLINGON"), "MSH-18"),
        (message("ADT^A08", "PID|||1||M\xfcller").replace(b"\xc3\xbc", b"\xfc"), "MSH-18"),
        (message("ADT^A08", "PID|" + "~" * 60_000), "MSH"),
    ],
)
def test_what_is_no_message_is_rejected_and_says_where(content: bytes, place: str) -> None:
    with pytest.raises(Hl7Error) as caught:
        parse_message(content)
    assert str(caught.value.place) == place
    assert caught.value.is_rejected


def test_times_are_read_with_and_without_zone_and_parts() -> None:
    assert parse_moment("20260301123000.1234-0530").isoformat() == "2026-03-01T18:00:00+00:00"
    assert parse_moment("202603").day == parse_moment("20260301").day
    with pytest.raises(ValueError, match="2026-03-01"):
        parse_moment("2026-03-01")


@pytest.mark.parametrize("version", ["2.3.1", "2.5.1"])
def test_an_acknowledgement_is_valid_for_another_library(version: str) -> None:
    message = parse_message(orm().replace(b"|2.5.1", f"|{version}".encode()))
    error = Hl7Error(
        "the Patient ID is empty",
        message.required("PID").place(3),
        ErrorCode.REQUIRED_FIELD_MISSING,
    )
    answer = acknowledge(message, control_id="7", at=parse_moment("20260301"), error=error)
    assert outside_parse(answer.decode()).validate()
    read = read_acknowledgement(answer)
    assert (read.code, read.control_id) == ("AE", "1")
    assert "PID-3: the Patient ID is empty" in read.text
