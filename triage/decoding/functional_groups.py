"""What enhanced multi-frame images say of their frames, read without building their sequences.

DICOM PS3.3 C.7.6.16: spacing, orientation and position stand in the Shared and Per-Frame Functional
Groups Sequences instead of beside Rows and Columns. A walk over the encoded bytes finds them; the
thousands of items of a long series never become objects.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.errors import InvalidDicomError
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from triage.core.studies import FRAME_POSITIONS
from triage.decoding.elements import Encoded, read_nested
from triage.decoding.errors import DecodingError

_SOP_CLASSES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{tail}"
    for tail in (
        "2.1",  # Enhanced CT
        "2.2",  # Legacy Converted Enhanced CT
        "4.1",  # Enhanced MR
        "4.3",  # Enhanced MR Color
        "4.4",  # Legacy Converted Enhanced MR
        "12.1.1",  # Enhanced XA
        "12.2.1",  # Enhanced XRF
        "13.1.1",  # X-Ray 3D Angiographic
        "13.1.2",  # X-Ray 3D Craniofacial
        "13.1.3",  # Breast Tomosynthesis
        "77.1.5.4",  # Ophthalmic Tomography
        "128.1",  # Legacy Converted Enhanced PET
        "130",  # Enhanced PET
    )
)

_SEQUENCES = (
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "PixelMeasuresSequence",
    "PlaneOrientationSequence",
    "PlanePositionSequence",
    "FrameAnatomySequence",
    "CTImageFrameTypeSequence",
    "MRImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "CTReconstructionSequence",
    "MRDiffusionSequence",
    "MREchoSequence",
    "MRTimingAndRelatedParametersSequence",
)
# What is found by the keyword of its frames, and that under which routing reads it.
_ATTRIBUTES = {
    "PixelSpacing": "PixelSpacing",
    "SliceThickness": "SliceThickness",
    "SpacingBetweenSlices": "SpacingBetweenSlices",
    "ImageOrientationPatient": "ImageOrientationPatient",
    "ImagePositionPatient": FRAME_POSITIONS,
    "FrameLaterality": "FrameLaterality",
    "FrameType": "ImageType",
    "ConvolutionKernel": "ConvolutionKernel",
    "DiffusionBValue": "DiffusionBValue",
    "EffectiveEchoTime": "EchoTime",
    "RepetitionTime": "RepetitionTime",
}
_DOUBLES = {"DiffusionBValue", "EffectiveEchoTime"}
_TEXTS = {"FrameLaterality", "FrameType", "ConvolutionKernel"}
_SEVERAL = {"DiffusionBValue"}  # whose values may differ from frame to frame
_MOST_FRAMES = 4000
_MOST_DIFFERENT = 64


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None, f"{keyword} is in the dictionary"
    return tag


_SEQUENCE_TAGS = frozenset(map(_tag, _SEQUENCES))
_KEYWORD_OF = {_tag(keyword): keyword for keyword in _ATTRIBUTES}


def has_functional_groups(sop_class_uid: str) -> bool:
    """Return whether images of the SOP class say in functional groups what others say directly."""
    return sop_class_uid in _SOP_CLASSES


def frame_headers(dataset: Encoded, transfer_syntax_uid: str, *, start: int = 0) -> dict[str, Any]:
    """Return what the frames of an image say, by the keyword under which routing reads it.

    An attribute of which the frames say different things is left out, but for b-values, which
    become a list. What cannot be read is left out too: an image is not lost for it.
    """
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        return {}
    is_little_endian = transfer_syntax_uid != ExplicitVRBigEndian
    try:
        found = read_nested(
            dataset,
            _KEYWORD_OF,
            _SEQUENCE_TAGS,
            start=start,
            is_implicit_vr=transfer_syntax_uid == ImplicitVRLittleEndian,
            is_little_endian=is_little_endian,
        )
    except DecodingError:
        return {}
    values: dict[str, list[Any]] = {}
    for tag, encoded in found:
        keyword = _KEYWORD_OF[tag]
        value = _value(keyword, encoded, is_little_endian=is_little_endian)
        if value:
            values.setdefault(keyword, []).append(value)
    return _summary(values)


def frame_headers_of_file(path: Path) -> dict[str, Any]:
    """Return `frame_headers` of a stored file (PS3.10); empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            read_preamble(file, force=False)
            syntax = str(_read_file_meta_info(file).get("TransferSyntaxUID", ""))
            at = file.tell()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return frame_headers(content, syntax, start=at)
    except (InvalidDicomError, OSError, EOFError, ValueError, AttributeError, KeyError):
        return {}


def _summary(values: dict[str, list[Any]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for keyword, found in values.items():
        target = _ATTRIBUTES[keyword]
        different = list({repr(value): value for value in found}.values())
        if target == FRAME_POSITIONS:
            if len(different) <= _MOST_FRAMES:
                summary[target] = different
        elif keyword in _SEVERAL and len(different) <= _MOST_DIFFERENT:
            summary[target] = [number for value in different for number in value]
        elif len(different) == 1:
            (value,) = different
            is_single = len(value) == 1 and keyword != "FrameType"
            summary[target] = value[0] if is_single else value
    return summary


def _value(keyword: str, encoded: bytes, *, is_little_endian: bool) -> list[Any]:
    try:
        if keyword in _DOUBLES:
            order = "<" if is_little_endian else ">"
            numbers = list(struct.unpack(f"{order}{len(encoded) // 8}d", encoded))
            return numbers if all(map(math.isfinite, numbers)) else []
        texts = [t.strip(" \x00") for t in encoded.decode("ascii", "replace").split("\\")]
        if keyword in _TEXTS:
            return texts if any(texts) else []
        numbers = [float(text) for text in texts]
    except (ValueError, struct.error):
        return []
    return numbers if all(map(math.isfinite, numbers)) else []
