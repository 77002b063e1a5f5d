"""The honest input that is mutated: small data sets in each encoding, with each kind of value."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import encode

from tests.datasets import ct_slice
from tests.hostile.conftest import SECRET, SOP_INSTANCE
from tests.hostile.data_sets import STUDY, deflated


def rich_slice() -> Dataset:
    """Return a slice with sequences, private elements and text in an escaped character set."""
    reference = Dataset()
    reference.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    reference.ReferencedSOPInstanceUID = "1.2.3"
    outer = Dataset()
    outer.ReferencedImageSequence = Sequence([reference, reference])
    dataset = ct_slice(
        STUDY,
        SOPInstanceUID=SOP_INSTANCE,
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName=f"{SECRET}=山田^太郎",
        PatientComments="x" * 40,
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
        ReferencedStudySequence=Sequence([outer]),
        KVP=120.0,
        RequestedProcedurePriority="STAT",
    )
    dataset.add_new(0x00090010, "LO", "TRIAGE TEST")
    dataset.add_new(0x00091001, "UN", b"\x01\x02\x03\x04")
    return dataset


def data_sets() -> dict[str, bytes]:
    """Return the rich slice in each encoding, by transfer syntax."""
    encodings = {
        ImplicitVRLittleEndian: (True, True),
        ExplicitVRLittleEndian: (False, True),
        ExplicitVRBigEndian: (False, False),
    }
    found = {}
    for syntax, (is_implicit, is_little) in encodings.items():
        content = encode(rich_slice(), is_implicit, is_little)
        assert content is not None
        found[str(syntax)] = content
    return found


def deflated_data_set() -> bytes:
    """Return the rich slice in Deflated Explicit VR Little Endian."""
    return deflated(data_sets()[ExplicitVRLittleEndian])
