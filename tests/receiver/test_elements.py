"""The quick reader of ordinary data sets gives what pydicom gives, or gives up."""

from __future__ import annotations

from io import BytesIO

from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian

from tests.datasets import ct_slice
from tests.receiver.test_headers import encoded
from triage.decoding.elements import scan_elements

WANTED = {0x00080018, 0x00080060, 0x00100010, 0x0020000D, 0x00200032}


def by_pydicom(content: bytes, *, is_implicit_vr: bool = False) -> dict[int, bytes]:
    """Return the wanted values as pydicom reads them."""
    read = read_dataset(BytesIO(content), is_implicit_VR=is_implicit_vr, is_little_endian=True)
    raw = {tag: read.get_item(tag) for tag in WANTED if tag in read}
    return {tag: element.value for tag, element in raw.items() if element and element.value}


def test_an_ordinary_slice_is_read_as_pydicom_reads_it() -> None:
    dataset = ct_slice("1.2.3")
    dataset.add_new(0x00091001, "OB", bytes(60000))
    content = encoded(dataset)
    found = scan_elements(content, WANTED, is_implicit_vr=False)
    assert found == by_pydicom(content)
    assert len(found) == len(WANTED)


def test_an_implicit_slice_is_read_as_pydicom_reads_it() -> None:
    content = encoded(ct_slice("1.2.3"), ImplicitVRLittleEndian)
    found = scan_elements(content, WANTED, is_implicit_vr=True)
    assert found == by_pydicom(content, is_implicit_vr=True)


def test_a_head_that_ends_before_the_last_wanted_tag_gives_nothing() -> None:
    content = encoded(ct_slice("1.2.3"))
    assert scan_elements(content[:150], WANTED, is_implicit_vr=False) is None


def test_a_sequence_of_undefined_length_is_left_to_pydicom() -> None:
    dataset = ct_slice("1.2.3")
    item = Dataset()
    item.CodeValue = "1"
    dataset.ProcedureCodeSequence = Sequence([item])
    dataset["ProcedureCodeSequence"].is_undefined_length = True
    assert scan_elements(encoded(dataset), WANTED, is_implicit_vr=False) is None


@given(st.data())
def test_a_damaged_data_set_is_read_as_it_is_or_left_to_pydicom(data: st.DataObject) -> None:
    content = bytearray(encoded(ct_slice("1.2.3")))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    found = scan_elements(bytes(content), WANTED, is_implicit_vr=False)
    assert found is None or set(found) <= WANTED
