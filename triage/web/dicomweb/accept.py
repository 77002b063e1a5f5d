"""What a client accepts, and what it gets of that (DICOM PS3.18 8.7)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from fastapi import HTTPException, Request
from pydicom.uid import (
    HTJ2K,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

ANY = "*"
"""Every transfer syntax: as it is stored."""
EXPLICIT = str(ExplicitVRLittleEndian)
"""What is meant where a client names no transfer syntax (DICOM PS3.18 8.7.3.5.2)."""
DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
OCTETS = "application/octet-stream"
MULTIPART = "multipart/related"

_RANGE = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*")+')
_PARAMETER = re.compile(r';\s*([\w.-]+)\s*=\s*("(?:\\.|[^"\\])*"|[^;\s]*)')
_LONGEST_ACCEPT = 8192


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One of the media types that a client accepts, with its parameters; all in lower case."""

    name: str
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def quality(self) -> float:
        """How much it is wanted, from 0, not at all, to 1."""
        try:
            return min(1.0, max(0.0, float(self.parameters.get("q", "1"))))
        except ValueError:
            return 0.0

    @property
    def of_part(self) -> str:
        """The media type of a multipart's parts; of another range its own name."""
        return self.parameters.get("type", "") if self.name == MULTIPART else self.name

    @property
    def transfer_syntax(self) -> str:
        """The transfer syntax that is asked for: a UID, * or nothing."""
        return self.parameters.get("transfer-syntax", "")


def accepted(request: Request) -> list[MediaRange]:
    """Return what the client accepts, what it wants most first.

    The query parameter `accept` goes before the header (DICOM PS3.18 8.3.3.1). Who says nothing
    accepts everything.
    """
    said = request.query_params.get("accept") or ", ".join(request.headers.getlist("accept"))
    ranges = [_media_range(one) for one in _RANGE.findall(said[:_LONGEST_ACCEPT])]
    wanted = [one for one in ranges if one.name and one.quality > 0]
    if not said.strip():
        return [MediaRange("*/*")]
    return sorted(wanted, key=lambda one: -one.quality)


def _media_range(text: str) -> MediaRange:
    name = text.partition(";")[0].strip().lower()
    parameters = {
        key.lower(): value.strip('"').strip().lower() for key, value in _PARAMETER.findall(text)
    }
    return MediaRange(name, parameters)


def require_json(request: Request) -> None:
    """Refuse a client that does not read DICOM JSON.

    Raises:
        HTTPException: 406.
    """
    known = {"*/*", "application/*", DICOM_JSON, "application/json"}
    if not any(one.name in known for one in accepted(request)):
        raise HTTPException(406, f"the answer is {DICOM_JSON}; add it to Accept")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The form of an answer: one part or several, of a media type, in any of transfer syntaxes."""

    is_multipart: bool
    media_type: str
    transfer_syntaxes: frozenset[str]

    def syntax_of(self, stored: str) -> str | None:
        """Return the transfer syntax to give what is stored in `stored` in; None where none will.

        What is stored goes out as it is where the client takes that; otherwise it can be made
        Explicit VR Little Endian.
        """
        if ANY in self.transfer_syntaxes or stored in self.transfer_syntaxes:
            return stored
        return EXPLICIT if EXPLICIT in self.transfer_syntaxes else None


def wanted_instances(request: Request, *, may_be_single: bool) -> Wanted:
    """Return the form in which instances are wanted.

    Raises:
        HTTPException: 406.
    """
    for form in accepted(request):
        is_multipart = form.name == MULTIPART and form.of_part in (DICOM, "", "*/*")
        is_single = form.name == DICOM and may_be_single
        is_any = form.name in ("*/*", "application/*", "multipart/*")
        if is_multipart or is_single or is_any:
            alike = [
                one
                for one in accepted(request)
                if (one.name, one.of_part) == (form.name, form.of_part)
            ]
            otherwise = ANY if is_any else EXPLICIT
            syntaxes = frozenset(one.transfer_syntax or otherwise for one in alike)
            return Wanted(not is_single, DICOM, syntaxes)
    raise HTTPException(
        406, f'the answer is {MULTIPART}; type="{DICOM}"' + (f" or {DICOM}" * may_be_single)
    )


def wanted_frames(request: Request, stored: str, *, may_be_single: bool) -> Wanted:
    """Return the form in which frames that are stored in the transfer syntax `stored` are wanted.

    Raises:
        HTTPException: 406.
    """
    image = image_type_of(stored)
    ranges = accepted(request)
    for form in ranges:
        is_multipart = form.name in (MULTIPART, "multipart/*", "*/*")
        if not is_multipart and not may_be_single:
            continue
        of_part = "*/*" if form.name in ("multipart/*", "*/*") else form.of_part or OCTETS
        if of_part in (OCTETS, "application/*"):
            alike = [one for one in ranges if one.of_part == form.of_part]
            syntaxes = frozenset(one.transfer_syntax or EXPLICIT for one in alike)
            wanted = Wanted(is_multipart, OCTETS, syntaxes)
            if wanted.syntax_of(stored) is not None:
                return wanted
        is_image = bool(image) and of_part in (image, "image/*")
        if (is_image or of_part == "*/*") and form.transfer_syntax in ("", ANY, stored):
            return Wanted(is_multipart, image if is_image else OCTETS, frozenset({ANY}))
    raise HTTPException(
        406,
        f"frames are given as {OCTETS}; transfer-syntax=*"
        + (f" or {image}" if image else "")
        + f", in parts of {MULTIPART}" * (not may_be_single),
    )


def image_type_of(transfer_syntax_uid: str) -> str:
    """Return the media type of a compressed frame, "" of others (DICOM PS3.18 table 8.7.3-5)."""
    syntax = UID(transfer_syntax_uid)
    kinds: Sequence[tuple[Sequence[str], str]] = (
        (JPEGTransferSyntaxes, "image/jpeg"),
        (JPEGLSTransferSyntaxes, "image/jls"),
        ((HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL), "image/jphc"),
        ((JPEG2000Lossless, *JPEG2000TransferSyntaxes), "image/jp2"),
        ((RLELossless,), "image/dicom-rle"),
    )
    return next((name for syntaxes, name in kinds if syntax in syntaxes), "")
