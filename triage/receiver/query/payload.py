"""A stored instance in the form in which a peer accepts it (DICOM PS3.5 section 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom.dsutils import encode, split_dataset
from pynetdicom.presentation import PresentationContext

from triage.decoding.files import check_file, check_frame
from triage.store.query import HeldInstance

_CONVERSION_TARGETS = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
_MOST_CONTEXTS = 128  # as many odd numbers as a presentation context ID has (PS3.8 9.3.2.2)
# What is not encapsulated can always be written in another uncompressed transfer syntax.
_UNCOMPRESSED = frozenset(
    {
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
    }
)


class PayloadError(Exception):
    """The instance cannot be given in any form that the peer accepts."""


@dataclass(frozen=True, slots=True)
class Payload:
    """The data set of a C-STORE request: bytes, or the place in a file where they begin."""

    data: BytesIO | None = None
    file: tuple[Path, int] | None = None


def contexts_for(instances: Sequence[HeldInstance]) -> list[tuple[str, list[str]]]:
    """Return the presentation contexts to propose: each an abstract and its transfer syntaxes.

    First each SOP class in each transfer syntax in which it is stored; then, as far as there is
    room, each SOP class in the uncompressed ones, for a peer that takes nothing else.
    """
    stored = sorted({(i.sop_class_uid, i.transfer_syntax_uid) for i in instances})
    contexts = [(sop_class, [syntax]) for sop_class, syntax in stored]
    for sop_class in sorted({sop_class for sop_class, _ in stored}):
        others = [
            str(syntax)
            for syntax in _CONVERSION_TARGETS[:2]
            if (sop_class, syntax) not in set(stored)
        ]
        if others:
            contexts.append((sop_class, others))
    return contexts[:_MOST_CONTEXTS]


def choose_context(
    instance: HeldInstance, accepted: Sequence[PresentationContext]
) -> PresentationContext:
    """Return the context to send on: in the transfer syntax as stored, or one to convert to.

    Raises:
        PayloadError: the peer accepted no context that will do.
    """
    fitting = {
        str(context.transfer_syntax[0]): context
        for context in accepted
        if context.abstract_syntax == instance.sop_class_uid
    }
    for syntax in (instance.transfer_syntax_uid, *_CONVERSION_TARGETS):
        if syntax in fitting:
            return fitting[syntax]
    raise PayloadError("no presentation context was accepted for it")


def payload_of(instance: HeldInstance, path: Path, transfer_syntax_uid: str) -> Payload:
    """Return the data set of `instance` in a transfer syntax.

    As stored, the bytes come from the file as they were received. Otherwise the data set is
    written anew, and compressed pixel data is decompressed without loss.

    Raises:
        PayloadError: the file is gone, or the data set cannot be converted.
    """
    try:
        if transfer_syntax_uid == instance.transfer_syntax_uid:
            _, offset = split_dataset(path)
            return Payload(file=(path, offset))
        return Payload(data=BytesIO(_converted(path, instance, UID(transfer_syntax_uid))))
    except OSError as error:
        raise PayloadError(f"its file cannot be read: {error.strerror}") from error
    except Exception as error:  # whatever a codec or a malformed data set raises
        raise PayloadError(f"it cannot be converted: {type(error).__name__}") from error


def converted_file(path: Path, stored: str, target: str, to: BinaryIO) -> None:
    """Write the file at `path`, stored in one transfer syntax, to `to` as a file in another.

    Raises:
        PayloadError: the file is gone, or the data set cannot be converted.
    """
    try:
        dataset = _decompressed(path, stored)
        dataset.file_meta.TransferSyntaxUID = UID(target)
        dataset.save_as(to, enforce_file_format=True)
    except OSError as error:
        raise PayloadError(f"its file cannot be read: {error.strerror}") from error
    except Exception as error:  # whatever a codec or a malformed data set raises
        raise PayloadError(f"it cannot be converted: {type(error).__name__}") from error


def _decompressed(path: Path, stored: str) -> FileDataset:
    check_file(path)
    dataset = dcmread(path)
    if stored not in _UNCOMPRESSED:
        for index in range(int(dataset.get("NumberOfFrames") or 1)):
            check_frame(dataset, dataset.PixelData, index)
        dataset.decompress(as_rgb=True, generate_instance_uid=False)
    return dataset


def _converted(path: Path, instance: HeldInstance, target: UID) -> bytes:
    dataset = _decompressed(path, instance.transfer_syntax_uid)
    encoded = encode(dataset, target.is_implicit_VR, target.is_little_endian)
    if encoded is None:
        raise ValueError("the data set cannot be encoded")
    return encoded
