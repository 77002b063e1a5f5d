"""Images that would take all memory if a decoder believed them: stored, and refused in words."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
)

from tests.hostile.conftest import SOP_INSTANCE, Target, peak_memory
from tests.hostile.data_sets import (
    EMPTY_ITEM,
    SEQUENCE_END,
    deflate_bomb,
    encoded,
    jpeg_2000_bomb,
    nested_sequences,
    nested_sequences_of_defined_length,
    raw_element,
    victim,
)
from triage.core.analysis import InputRefusedError
from triage.models.sources import decode, frames_of, read_instance
from triage.models.volume import load_volume
from triage.receiver.part10 import file_header
from triage.web.pixels import PixelError, read_frame

_MOST_MEMORY_BYTES = 256 * 1024 * 1024


def jpeg_bomb(rows: int, columns: int, marker: int, precision: int = 8) -> bytes:
    """Return the frame header of a JPEG or JPEG-LS image of that size, and no pixels."""
    frame = struct.pack(">HBHHB3B", 11, precision, rows, columns, 1, 1, 0x11, 0)
    scan = struct.pack(">HB2B3B", 8, 1, 1, 0, 0, 0, 0)
    return b"\xff\xd8\xff" + bytes([marker]) + frame + b"\xff\xda" + scan + b"\x00\xff\xd9"


def rle_bomb(size: int) -> bytes:
    """Return an RLE frame of `size` bytes of which each pair stands for 128 (PS3.5 G.3)."""
    return struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\x00" * (size // 2)


def image(transfer_syntax: str, frame: bytes, **attributes: Any) -> tuple[bytes, str]:
    """Return the honest header with a frame of our own, and its transfer syntax."""
    content = encoded(victim(PixelData=None, **attributes))
    value = encapsulate([frame])
    pixels = raw_element(0x7FE0, 0x0010, b"OB", value, length=0xFFFFFFFF) + SEQUENCE_END
    return content + pixels, transfer_syntax


def plain(tail: bytes, **attributes: Any) -> tuple[bytes, str]:
    """Return the honest header with something else behind it."""
    return encoded(victim(PixelData=None, **attributes)) + tail, ExplicitVRLittleEndian


def one_byte_each(**attributes: Any) -> dict[str, Any]:
    """Return the attributes of an image of eight bits."""
    return {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, **attributes}


PIXELS = raw_element(0x7FE0, 0x0010, b"OW", bytes(32))

BOMBS = {
    "JPEG 2000 of 100,000 x 100,000": image(JPEG2000Lossless, jpeg_2000_bomb(100_000, 100_000)),
    "JPEG 2000 of 2^32 - 1": image(JPEG2000Lossless, jpeg_2000_bomb(2**32 - 1, 2**32 - 1)),
    "JPEG 2000 of 65,535 as the data set says": image(
        JPEG2000Lossless, jpeg_2000_bomb(65_535, 65_535), Rows=65_535, Columns=65_535
    ),
    "JPEG 2000 of a million tiles": image(
        JPEG2000Lossless, jpeg_2000_bomb(16_000, 16_000, tile=16), Rows=16_000, Columns=16_000
    ),
    "JPEG 2000 that is cut off": image(JPEG2000Lossless, jpeg_2000_bomb(4, 4)[:20]),
    "JPEG 2000 within a JP2 file": image(
        JPEG2000Lossless,
        b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(60) + jpeg_2000_bomb(100_000, 100_000),
    ),
    "JPEG of 65,535 x 65,535": image(
        JPEGBaseline8Bit, jpeg_bomb(65_535, 65_535, 0xC0), **one_byte_each()
    ),
    "JPEG of 12 bits": image(JPEGExtended12Bit, jpeg_bomb(65_535, 65_535, 0xC1, 12), BitsStored=12),
    "JPEG without a size": image(JPEGBaseline8Bit, jpeg_bomb(0, 0, 0xC0), **one_byte_each()),
    "JPEG-LS of 65,535 x 65,535": image(JPEGLSLossless, jpeg_bomb(65_535, 65_535, 0xF7, 16)),
    "RLE that becomes 64 times as large": image(RLELossless, rle_bomb(8_000_000)),
    "pixels of 8 GB in a few bytes": plain(PIXELS, Rows=65_535, Columns=65_535),
    "sequences nested 10,000 deep": plain(
        raw_element(0x0040, 0xA730, b"SQ", b"", length=0xFFFFFFFF)
        + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
        + nested_sequences(10_000)
    ),
    "half a million empty items": plain(
        raw_element(0x0040, 0xA730, b"SQ", b"", length=0xFFFFFFFF)
        + EMPTY_ITEM * 500_000
        + SEQUENCE_END
        + PIXELS
    ),
    "no pixels at all": plain(b""),
}


@pytest.mark.parametrize(("content", "transfer_syntax"), BOMBS.values(), ids=BOMBS)
def test_image_that_nobody_can_decode_is_stored_and_refused_in_words(
    target: Target, content: bytes, transfer_syntax: str
) -> None:
    status, _ = target.store(
        target.renewed(content),
        sop_class_uid=CTImageStorage,
        sop_instance_uid=target.renewed(SOP_INSTANCE.encode()).decode(),
        transfer_syntax=transfer_syntax,
    )
    assert status == 0
    (row,) = target.rows()
    check_is_refused(target.files.absolute(row.path))


def check_is_refused(file: Path) -> None:
    """Fail unless models and viewer refuse the image with a reason, in little memory."""
    with peak_memory() as peak:
        with pytest.raises(InputRefusedError) as refusal:
            decode(read_instance((SOP_INSTANCE, file)))
        with pytest.raises(PixelError) as error:
            read_frame(file, 1)
        assert peak() < _MOST_MEMORY_BYTES
    for said in (str(refusal.value), str(error.value)):
        assert "cannot be" in said or "single" in said
        assert len(said) < 300


def stored(folder: Path, content: bytes, transfer_syntax: str) -> Path:
    """Write a file as the receiver does, of what the receiver would refuse."""
    meta = file_header(
        sop_class_uid=CTImageStorage,
        sop_instance_uid=SOP_INSTANCE,
        transfer_syntax_uid=transfer_syntax,
    )
    file = folder / "one.dcm"
    file.write_bytes(meta + content)
    return file


def test_deflate_bomb_that_came_by_another_way_is_refused_in_words(tmp_path: Path) -> None:
    content = deflate_bomb(encoded(victim(PixelData=None)), 1100)
    check_is_refused(stored(tmp_path, content, DeflatedExplicitVRLittleEndian))


@pytest.mark.parametrize("content", [b"", b"\x00", b"\xff" * 5000, b"MZ" * 500])
def test_file_that_is_no_image_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    check_is_refused(stored(tmp_path, content, ExplicitVRLittleEndian))
    (tmp_path / "one.dcm").write_bytes(content)
    check_is_refused(tmp_path / "one.dcm")


@pytest.mark.parametrize("vr", [b"ZZ", b"SQ"])
def test_headers_that_contradict_the_standard_are_refused_in_words(
    tmp_path: Path, vr: bytes
) -> None:
    sources = []
    for number in (1, 2):
        content = encoded(victim(number=number))
        assert content.count(b"\x28\x00\x30\x00DS") == 1  # Pixel Spacing
        content = content.replace(b"\x28\x00\x30\x00DS", b"\x28\x00\x30\x00" + vr)
        (tmp_path / str(number)).mkdir()
        file = stored(tmp_path / str(number), content, ExplicitVRLittleEndian)
        sources.append((str(number), file))
    with pytest.raises(InputRefusedError):
        load_volume(sources)


def test_billion_frames_are_neither_decoded_nor_looked_for(tmp_path: Path) -> None:
    content, transfer_syntax = plain(PIXELS, NumberOfFrames=10**9)
    file = stored(tmp_path, content, transfer_syntax)
    with peak_memory() as peak:
        with pytest.raises(InputRefusedError, match="Number of Frames is 1000000000"):
            frames_of(read_instance((SOP_INSTANCE, file)))
        assert read_frame(file, 1).rows == 4
        with pytest.raises(PixelError):
            read_frame(file, 10**9)
        assert peak() < _MOST_MEMORY_BYTES


def test_nesting_of_defined_length_does_not_keep_an_image_from_being_decoded(
    tmp_path: Path,
) -> None:
    content = encoded(victim(PixelData=None))
    content += nested_sequences_of_defined_length(10_000, tag=(0x0040, 0xA730)) + PIXELS
    file = stored(tmp_path, content, ExplicitVRLittleEndian)
    assert decode(read_instance((SOP_INSTANCE, file))).shape == (4, 4)
    assert read_frame(file, 1).rows == 4
