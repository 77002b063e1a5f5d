"""Data sets that nobody should send, through C-STORE into a real receiver."""

from __future__ import annotations

import struct
import subprocess

import pytest
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from tests.hostile.conftest import SOP_INSTANCE, Target
from tests.hostile.data_sets import (
    EMPTY_ITEM,
    SEQUENCE_END,
    STUDY,
    deflate_bomb,
    deflated,
    encoded,
    nested_sequences,
    nested_sequences_of_defined_length,
    raw_element,
    victim,
)
from tests.tools import require_tool
from triage.models.sources import decode, read_instance
from triage.receiver.headers import Header, parse_header
from triage.receiver.refusals import RefusedInstanceError

REFUSED, NOT_A_UID = 0xC000, 0x0117


def store(
    target: Target,
    content: bytes,
    transfer_syntax: str = ExplicitVRLittleEndian,
    sop_instance_uid: str = SOP_INSTANCE,
) -> tuple[int, str]:
    """Send `content` under the UIDs of the honest slice."""
    return target.store(
        content,
        sop_class_uid=CTImageStorage,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax=transfer_syntax,
    )


HOSTILE_UIDS = {
    "path upwards": b"../../../../tmp/triage-was-here",
    "absolute path": b"/tmp/triage-was-here",
    "path of Windows": b"..\\..\\triage-was-here",
    "NUL within": b"1.2\x00.3/../../x",
    "newline": b"1.2.3\n",
    "empty component": b"1..2",
    "too long": b"1." * 32 + b"12",
    "digits of another script": "１.２.３".encode(),
    "format string": b"%s%s%s%n",
    "command": b"$(touch triage-was-here)",
}


@pytest.mark.parametrize("uid", HOSTILE_UIDS.values(), ids=HOSTILE_UIDS.keys())
@pytest.mark.parametrize("number", [(0x0008, 0x0018), (0x0020, 0x000D), (0x0020, 0x000E)])
def test_uid_that_is_none_is_refused(target: Target, uid: bytes, number: tuple[int, int]) -> None:
    dataset = victim()
    honest = {
        (0x0008, 0x0018): dataset.SOPInstanceUID,
        (0x0020, 0x000D): dataset.StudyInstanceUID,
        (0x0020, 0x000E): dataset.SeriesInstanceUID,
    }[number]
    before = honest.encode() + b"\x00" * (len(honest) % 2)
    padded = uid + b"\x00" * (len(uid) % 2)
    content = encoded(dataset).replace(
        raw_element(*number, b"UI", before), raw_element(*number, b"UI", padded)
    )
    status, comment = store(target, content)
    assert status in (NOT_A_UID, REFUSED)
    assert "UID" in comment
    assert target.rows() == []


def test_affected_sop_instance_uid_that_is_a_path_is_refused(target: Target) -> None:
    status, _ = store(target, encoded(victim()), sop_instance_uid="../../../tmp/triage-was-here")
    assert status == NOT_A_UID


_IDENTITY = encoded(victim())
_LONG = 0xFFFFFFF0

MALFORMED = {
    "value of 4 GB": raw_element(0x0008, 0x0001, b"UN", b"x", length=_LONG) + _IDENTITY,
    "value without end": raw_element(0x0008, 0x0001, b"OB", b"x", length=0xFFFFFFFF) + _IDENTITY,
    "sequence without end": raw_element(0x0008, 0x1140, b"SQ", b"", length=0xFFFFFFFF) + EMPTY_ITEM,
    "sequence of something else": raw_element(
        0x0008, 0x0001, b"SQ", b"\x08\x00\x18\x00UI\x02\x001\x00", length=0xFFFFFFFF
    )
    + SEQUENCE_END
    + _IDENTITY,
    "item of 4 GB": raw_element(0x0008, 0x0001, b"SQ", b"", length=0xFFFFFFFF)
    + struct.pack("<HHL", 0xFFFE, 0xE000, _LONG)
    + _IDENTITY,
    "sequences nested 10,000 deep": nested_sequences(10_000) + _IDENTITY,
    "sequences nested 10,000 deep that do not end": raw_element(
        0x0008, 0x0001, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF), length=0xFFFFFFFF
    )
    * 10_000,
    "half a million empty items": raw_element(0x0008, 0x0001, b"SQ", b"", length=0xFFFFFFFF)
    + EMPTY_ITEM * 500_000
    + SEQUENCE_END
    + _IDENTITY,
    "half a million empty elements": raw_element(0x0008, 0x0001, b"LO", b"") * 500_000 + _IDENTITY,
    "file meta information": raw_element(0x0002, 0x0010, b"UI", b"1.2.840.10008.1.2\x00")
    + _IDENTITY,
    "command elements": raw_element(0x0000, 0x0100, b"US", b"\x01\x00") + _IDENTITY,
    "a whole file": bytes(128) + b"DICM" + _IDENTITY,
    "an executable": b"MZ" + bytes(126) + b"DICM" + _IDENTITY,
    "pixels before identity": raw_element(0x7FE0, 0x0010, b"OW", bytes(32)) + _IDENTITY,
    "JSON": b'{"00080018": {"vr": "UI", "Value": ["1.2.3"]}}',
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_data_set_is_refused_with_a_reason(target: Target, content: bytes) -> None:
    status, comment = store(target, content)
    assert status == REFUSED
    assert comment.startswith("data set ")
    assert target.rows() == []


def test_data_set_in_the_other_byte_order_is_refused(target: Target) -> None:
    content = encoded(victim())
    assert store(target, content[:2][::-1] + content[2:])[0] == REFUSED


@pytest.mark.parametrize("is_implicit", [True, False])
def test_data_set_with_or_without_vr_against_what_was_announced_is_stored_as_it_was_sent(
    target: Target, is_implicit: bool
) -> None:
    content = encoded(victim(), is_implicit_vr=is_implicit)
    announced = ExplicitVRLittleEndian if is_implicit else ImplicitVRLittleEndian
    assert store(target, content, announced) == (0, "")
    (row,) = target.rows()
    assert target.files.absolute(row.path).read_bytes().endswith(content)
    assert decode(read_instance((SOP_INSTANCE, target.files.absolute(row.path)))).shape == (4, 4)


@pytest.mark.parametrize("depth", [10_000])
def test_deep_nesting_that_can_be_stepped_over_is_stored_as_it_was_sent(
    target: Target, depth: int
) -> None:
    content = nested_sequences_of_defined_length(depth) + encoded(victim())
    assert store(target, content) == (0, "")
    (row,) = target.rows()
    assert target.files.absolute(row.path).read_bytes().endswith(content)


@pytest.mark.parametrize(
    ("start", "inflated_mib", "reason"),
    [
        (encoded(victim(PixelData=None)) + raw_element(0x7FE0, 0x10, b"OW", b"", length=2**31),
         1100, "inflates to more than 1024 MiB"),
        (b"", 1100, "inflates to more than 1024 MiB"),
        (raw_element(0x0008, 0x0001, b"UN", b"", length=64 * 1024**2), 64, "ends within"),
    ],
    ids=["behind the header", "nothing else", "before the header"],
)  # fmt: skip
def test_deflate_bomb_is_refused_in_little_memory(
    target: Target, start: bytes, inflated_mib: int, reason: str
) -> None:
    bomb = deflate_bomb(start, inflated_mib)
    assert len(bomb) < 2 * 1024**2
    status, comment = store(target, bomb, DeflatedExplicitVRLittleEndian)
    assert status == REFUSED
    assert reason in comment


@pytest.mark.parametrize("damage", ["cut off", "flipped", "not deflated"])
def test_damaged_deflated_data_set_is_refused(target: Target, damage: str) -> None:
    whole = deflated(encoded(victim()))
    content = {
        "cut off": whole[: len(whole) // 2],
        "flipped": bytes([whole[0] ^ 0x06]) + whole[1:],
        "not deflated": encoded(victim()),
    }[damage]
    status, comment = store(target, content, DeflatedExplicitVRLittleEndian)
    assert status == REFUSED
    assert "deflated" in comment


CHARACTER_SETS = {
    "unknown": (b"ISO_IR 999", b"M\xfcller"),
    "a codec of Python's": (b"unicode_escape", rb"\ud800 lone surrogate"),
    "a codec of Python's that is none of text": (b"bz2_codec", b"\x1b$Bx"),
    "a slow codec": (b"punycode", b"a" * 2000 + b"-" + b"z" * 2000),
    "escapes without end": (b"\\ISO 2022 IR 87", b"\x1b$B" * 1000),
    "half an escape": (b"\\ISO 2022 IR 87", b"abc\x1b"),
    "half a character": (b"\\ISO 2022 IR 149", b"\x1b$)C\xb1"),
    "wrong UTF-8": (b"ISO_IR 192", b"\xff\xfe\xed\xa0\x80"),
    "GB 18030": (b"GB18030", b"\x81\x30\xff\xff"),
    "many terms": (b"\\".join([b"ISO 2022 IR 100"] * 500), b"\x1b-Aabc"),
    "NUL": (b"ISO_IR 100", b"a\x00b\x00\x00"),
    "not even ASCII": (b"\xff\xfe\xfd", b"abc"),
}


@pytest.mark.parametrize(("term", "text"), CHARACTER_SETS.values(), ids=CHARACTER_SETS.keys())
def test_wrong_character_set_loses_no_image(target: Target, term: bytes, text: bytes) -> None:
    content = encoded(victim(StudyDescription="x"))
    term += b" " * (len(term) % 2)
    text += b" " * (len(text) % 2)
    content = content.replace(
        raw_element(0x0008, 0x0016, b"UI", CTImageStorage.encode() + b"\x00"),
        raw_element(0x0008, 0x0005, b"CS", term)
        + raw_element(0x0008, 0x0016, b"UI", CTImageStorage.encode() + b"\x00"),
    ).replace(raw_element(0x0008, 0x1030, b"LO", b"x "), raw_element(0x0008, 0x1030, b"LO", text))
    assert raw_element(0x0008, 0x1030, b"LO", text) in content
    assert store(target, content) == (0, "")
    (row,) = target.rows()
    assert target.files.absolute(row.path).read_bytes().endswith(content)


def test_preamble_that_is_an_executable_does_not_reach_the_store(
    target: Target, tmp_path_factory: pytest.TempPathFactory
) -> None:
    storescu = require_tool("storescu")
    file = tmp_path_factory.mktemp("sent") / "one.dcm"
    dataset = victim()
    dataset.preamble = b"MZ\x90\x00This program cannot be run in DOS mode".ljust(128, b"\x90")
    dataset.save_as(file, enforce_file_format=True)
    assert file.read_bytes().startswith(b"MZ")
    subprocess.run([storescu, "127.0.0.1", str(target.port), str(file)], check=True)
    (row,) = target.rows()
    assert target.files.absolute(row.path).read_bytes().startswith(bytes(128) + b"DICM")


def test_data_set_cut_off_anywhere_is_refused_or_has_its_whole_identity() -> None:
    whole = encoded(victim())
    identity = parse_header(whole, ExplicitVRLittleEndian)
    for length in range(len(whole)):
        header = header_of(whole[:length])
        if header is not None:
            assert header.values.items() <= identity.values.items()
            assert header.study_instance_uid == STUDY


def header_of(content: bytes) -> Header | None:
    """Return the header, None where the data set is refused; any other error fails the test."""
    try:
        return parse_header(content, ExplicitVRLittleEndian)
    except RefusedInstanceError:
        return None


@pytest.mark.parametrize("missing", [1, 3, 9, 100])
def test_data_set_cut_off_within_its_header_is_refused(target: Target, missing: int) -> None:
    header = encoded(victim(PixelData=None))
    status, comment = store(target, header[:-missing])
    assert (status, comment[:9]) == (REFUSED, "data set ")


def test_images_with_cut_off_pixels_are_stored_as_they_were_sent(
    target: Target,
) -> None:
    content = encoded(victim())[:-10]
    assert store(target, content) == (0, "")
    (row,) = target.rows()
    assert target.files.absolute(row.path).read_bytes().endswith(content)
