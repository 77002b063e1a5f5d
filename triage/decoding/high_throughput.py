"""High-Throughput JPEG 2000 (ISO/IEC 15444-15) for pydicom, by OpenJPEG.

pydicom asks for HTJ2K the package pylibjpeg, which collects decoders; the one decoder that we need
is here without it. The functions are what pydicom wants of a plugin.
"""

from __future__ import annotations

from typing import cast

from openjpeg.utils import decode_pixel_data
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import HTJ2K, UID, HTJ2KLossless, HTJ2KLosslessRPCL

_SYNTAXES = (HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
DECODER_DEPENDENCIES = dict.fromkeys(_SYNTAXES, ("pylibjpeg-openjpeg>=2.4",))


def is_available(uid: UID) -> bool:
    """Return whether the plugin decodes that transfer syntax."""
    return uid in _SYNTAXES


def decode_frame(src: bytes, runner: DecodeRunner) -> bytearray:
    """Return the pixels of one frame, their samples one after the other."""
    frame = decode_pixel_data(src, version=2, **runner.options)
    if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
        runner.set_option("photometric_interpretation", "RGB")  # OpenJPEG turns them back
    precision = runner.get_option("j2k_precision", runner.bits_stored)
    runner.set_option("bits_allocated", 8 if precision <= 8 else 16 if precision <= 16 else 32)
    return cast("bytearray", frame)


def teach_pydicom() -> None:
    """Let pydicom decode HTJ2K; once is enough, and more do no harm."""
    for uid in _SYNTAXES:
        decoder = get_decoder(uid)
        if not decoder.is_available:
            decoder.add_plugin("triage-openjpeg", (__name__, decode_frame.__name__))
