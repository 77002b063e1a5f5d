"""What is read from an encoded data set."""

from __future__ import annotations

import io
import json
import struct
import zlib

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom.dsutils import encode

from tests.datasets import ct_slice
from triage.core.studies import FRAME_POSITIONS
from triage.decoding.functional_groups import frame_headers
from triage.receiver.headers import is_valid_uid, parse_head, parse_header
from triage.receiver.part10 import file_header
from triage.receiver.refusals import RefusedInstanceError


def encoded(dataset: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Return the encoded data set."""
    content = encode(
        dataset,
        transfer_syntax == ImplicitVRLittleEndian,
        transfer_syntax != ExplicitVRBigEndian,
    )
    assert content is not None
    if transfer_syntax == DeflatedExplicitVRLittleEndian:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        content = deflate.compress(content) + deflate.flush()
    return content


@pytest.mark.parametrize(
    "transfer_syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
def test_header_is_the_same_in_every_encoding(transfer_syntax: str) -> None:
    dataset = ct_slice("1.2.3", number=7, ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], KVP=120.5)
    header = parse_header(encoded(dataset, transfer_syntax), transfer_syntax)
    assert header.study_instance_uid == "1.2.3"
    assert header.number("InstanceNumber") == 7
    assert header.text("PatientName") == "Test^Patient"
    assert header.text("AccessionNumber") == ""
    headers = header.image_headers()
    assert headers["Rows"] == 4
    assert headers["KVP"] == 120.5
    assert headers["ImageType"] == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert headers["ImagePositionPatient"] == [0.0, 0.0, 35.0]
    assert "PatientName" not in headers
    assert json.loads(json.dumps(headers, allow_nan=False)) == headers


def enhanced_mr(frames: int = 5) -> Dataset:
    """Return an enhanced MR image of coronal frames, 4 mm apart, of two b-values."""
    dataset = ct_slice("1.2.3", SOPClassUID=EnhancedMRImageStorage, Modality="MR")
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, keyword)
    del dataset.SliceThickness
    dataset.NumberOfFrames = frames
    measures, orientation, group = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.9, 0.9], 4.0
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    group.PixelMeasuresSequence = [measures]
    group.PlaneOrientationSequence = [orientation]
    dataset.SharedFunctionalGroupsSequence = [group]
    dataset.PerFrameFunctionalGroupsSequence = [
        _frame(4.0 * number, 1000.0 * (number % 2)) for number in range(frames)
    ]
    dataset.PixelData = bytes(32 * frames)
    return dataset


def _frame(depth: float, b_value: float) -> Dataset:
    position, diffusion, frame = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = [0, depth, 0]
    diffusion.DiffusionBValue = b_value
    frame.PlanePositionSequence = [position]
    frame.MRDiffusionSequence = [diffusion]
    return frame


@pytest.mark.parametrize(
    "transfer_syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
@pytest.mark.parametrize("undefined_length", [True, False])
def test_frames_of_an_enhanced_image_say_what_slices_say(
    transfer_syntax: str, undefined_length: bool
) -> None:
    dataset = enhanced_mr()
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        dataset[keyword].is_undefined_length = undefined_length
        for item in dataset[keyword].value:
            item.is_undefined_length_sequence_item = undefined_length
    headers = parse_header(encoded(dataset, transfer_syntax), transfer_syntax).image_headers()
    assert headers["PixelSpacing"] == [0.9, 0.9]
    assert headers["SliceThickness"] == 4.0
    assert headers["ImageOrientationPatient"] == [1, 0, 0, 0, 0, -1]
    assert headers["DiffusionBValue"] == [0.0, 1000.0]
    assert headers[FRAME_POSITIONS] == [[0.0, 4.0 * n, 0.0] for n in range(5)]


def test_an_enhanced_image_is_not_judged_by_its_beginning() -> None:
    content = encoded(enhanced_mr())
    assert parse_head(content, ExplicitVRLittleEndian) is None
    assert parse_head(encoded(ct_slice("1.2.3")), ExplicitVRLittleEndian) is not None


def test_broken_functional_groups_lose_no_image() -> None:
    content = encoded(enhanced_mr())
    broken = content[: content.index(b"\x20\x00\x32\x00") + 6]
    assert FRAME_POSITIONS not in frame_headers(broken, ExplicitVRLittleEndian)
    assert frame_headers(b"\xff" * 64, ExplicitVRLittleEndian) == {}


def test_frames_that_say_different_things_say_nothing() -> None:
    dataset = enhanced_mr(2)
    for frame, thickness in zip(dataset.PerFrameFunctionalGroupsSequence, (2.0, 3.0), strict=True):
        measures = Dataset()
        measures.SliceThickness = thickness
        frame.PixelMeasuresSequence = [measures]
    headers = parse_header(encoded(dataset), ExplicitVRLittleEndian).image_headers()
    assert "SliceThickness" not in headers
    assert headers["PixelSpacing"] == [0.9, 0.9]


@pytest.mark.parametrize("undefined_length", [True, False])
@pytest.mark.parametrize("has_item", [True, False])
def test_of_a_sequence_only_whether_it_has_an_item_is_kept(
    has_item: bool, undefined_length: bool
) -> None:
    dataset = ct_slice("1.2.3")
    agent = Dataset()
    agent.CodeValue, agent.CodeMeaning = "C-B0317", "x" * 70000
    dataset.ContrastBolusAgentSequence = [agent] if has_item else []
    dataset["ContrastBolusAgentSequence"].is_undefined_length = undefined_length
    headers = parse_header(encoded(dataset), ExplicitVRLittleEndian).image_headers()
    assert headers.get("ContrastBolusAgentSequence") == (True if has_item else None)
    assert headers["Rows"] == 4


def test_attributes_with_several_values_are_lists_even_with_one() -> None:
    dataset = ct_slice(ImageType="ORIGINAL", PixelSpacing=0.5)
    headers = parse_header(encoded(dataset), ExplicitVRLittleEndian).image_headers()
    assert (headers["ImageType"], headers["PixelSpacing"]) == (["ORIGINAL"], [0.5])


def test_encoding_that_differs_from_the_agreed_one_is_noticed() -> None:
    header = parse_header(encoded(ct_slice("1.2.3"), ImplicitVRLittleEndian), "1.2.840.10008.1.2.1")
    assert header.study_instance_uid == "1.2.3"


def test_number_that_no_column_holds_is_left_out() -> None:
    content = encoded(ct_slice(InstanceNumber="1234567890"))
    assert content.count(b"1234567890") == 1
    content = content.replace(b"1234567890", b"9999999999")
    assert parse_header(content, ExplicitVRLittleEndian).number("InstanceNumber") is None


def test_deflated_data_set_is_not_inflated_without_end() -> None:
    bomb = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    content = bomb.compress(bytes(200 * 1024 * 1024)) + bomb.flush()
    with pytest.raises(RefusedInstanceError):
        parse_header(content, DeflatedExplicitVRLittleEndian)


def test_data_set_cut_off_in_its_pixels_is_still_identified() -> None:
    content = encoded(ct_slice("1.2.3"))
    assert parse_header(content[:-20], ExplicitVRLittleEndian).study_instance_uid == "1.2.3"


syntaxes = st.sampled_from(
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, "1.2.3.4.5"]
)


@given(st.binary(max_size=300), syntaxes)
def test_any_bytes_are_a_header_or_refused(content: bytes, transfer_syntax: str) -> None:
    with pytest.raises(RefusedInstanceError) as refusal:
        parse_header(content, transfer_syntax)
    assert len(refusal.value.comment) <= 64


@pytest.mark.filterwarnings("ignore")
@given(st.data())
def test_damaged_data_sets_are_a_header_or_refused(data: st.DataObject) -> None:
    content = bytearray(encoded(ct_slice("1.2.3", SpecificCharacterSet="ISO_IR 192")))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        header = parse_header(bytes(content), ExplicitVRLittleEndian)
    except RefusedInstanceError:
        return
    said = json.dumps(header.image_headers(), allow_nan=False)
    assert "\\u0000" not in said
    assert "\x00" not in header.text("PatientName")
    said.encode()


@pytest.mark.parametrize("uid", ["", "1.2.", ".1", "1..2", "1.2/3", "1.2\n", "١.٢", "1" * 65])
def test_what_is_no_uid(uid: str) -> None:
    assert not is_valid_uid(uid)


def test_file_header_is_valid_and_does_not_depend_on_the_sender() -> None:
    meta = file_header(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid="1.2.3",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    dataset = pydicom.dcmread(io.BytesIO(meta + encoded(ct_slice())))
    pydicom.dataset.validate_file_meta(dataset.file_meta, enforce_standard=True)
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert "SourceApplicationEntityTitle" not in dataset.file_meta


UNDEFINED = 0xFFFFFFFF
ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED)
ITEM_END = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


def long_element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """Return an element of undefined length in explicit VR."""
    return struct.pack("<HH2sHL", group, number, vr, 0, UNDEFINED) + value + SEQUENCE_END


FRAGMENTS = (
    struct.pack("<HHL", 0xFFFE, 0xE000, 0) + struct.pack("<HHL", 0xFFFE, 0xE000, 4) + b"\1" * 4
)

STEPPED_OVER = {
    "empty sequence": long_element(0x0008, 0x0001, b"SQ", b""),
    "sequence with an empty item": long_element(0x0008, 0x0001, b"SQ", ITEM + ITEM_END),
    "unknown sequence in implicit VR (CP-246)": long_element(
        0x0008,
        0x0001,
        b"UN",
        ITEM + struct.pack("<HHL", 0x0008, 0x0018, 4) + b"9.9\x00" + ITEM_END,
    ),
    "value that is no sequence": long_element(0x0008, 0x0001, b"OB", b"12345678"),
    "icon of compressed pixels within a sequence": long_element(
        0x0008, 0x0001, b"SQ", ITEM + long_element(0x7FE0, 0x0010, b"OB", FRAGMENTS) + ITEM_END
    ),
    "sequence in a sequence that has the same attributes": long_element(
        0x0008,
        0x0001,
        b"SQ",
        ITEM
        + struct.pack("<HH2sH", 0x0008, 0x0018, b"UI", 4)
        + b"9.9\x00"
        + long_element(0x0008, 0x1140, b"SQ", ITEM + ITEM_END)
        + ITEM_END,
    ),
    "element in implicit VR": struct.pack("<HHL", 0x0008, 0x0001, 4) + b"abcd",
}


@pytest.mark.parametrize("element", STEPPED_OVER.values(), ids=STEPPED_OVER)
def test_what_lies_in_sequences_is_not_taken_for_the_header(element: bytes) -> None:
    honest = encoded(ct_slice("1.2.3"))
    first, rest = honest[:34], honest[34:]  # SOP Class UID, which says how all is encoded
    content = first + element + rest
    header = parse_header(content, ExplicitVRLittleEndian)
    assert header == parse_header(honest, ExplicitVRLittleEndian)
    read = read_dataset(io.BytesIO(content), False, True)
    assert read.SOPInstanceUID == header.sop_instance_uid


def test_of_an_element_that_comes_twice_the_last_counts_as_for_other_readers() -> None:
    twice = struct.pack("<HH2sH", 0x0008, 0x0018, b"UI", 4) + b"9.9\x00"
    content = twice + encoded(ct_slice("1.2.3"))
    header = parse_header(content, ExplicitVRLittleEndian)
    assert header.sop_instance_uid == read_dataset(io.BytesIO(content), False, True).SOPInstanceUID
