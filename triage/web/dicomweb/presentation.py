"""From a frame's values to a picture: window, region, size (DICOM PS3.18 8.3.5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triage.core.errors import TriageError
from triage.web.pixels import Frame

Function = Literal["linear", "linear-exact", "sigmoid"]

LARGEST_SIDE = 8192
"""Pixels of a picture's side at most."""

_NUMBER = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_FUNCTIONS: Mapping[str, Function] = {
    "linear": "linear",
    "linear-exact": "linear-exact",
    "sigmoid": "sigmoid",
}


class PresentationError(TriageError):
    """A parameter of a picture is wrong; the message names it and says what it must be."""


@dataclass(frozen=True, slots=True)
class Presentation:
    """How a frame is shown.

    Attributes:
        window: centre, width and function; None is the window of the image.
        size: columns and rows of the box that the picture fills as far as its proportions let it;
            None is its own size.
        region: left, top, width and height in pixels of the image; None is all of it.
        quality: of a JPEG, from 1 to 100.
    """

    window: tuple[float, float, Function] | None = None
    size: tuple[int, int] | None = None
    region: tuple[int, int, int, int] | None = None
    quality: int = 90

    def within(self, columns: int, rows: int) -> Presentation:
        """Return the same, in a box of that size where none is named."""
        return self if self.size else replace(self, size=(columns, rows))


def read_presentation(parameters: Mapping[str, str]) -> Presentation:
    """Return what the query parameters `window`, `viewport` and `quality` ask for.

    Raises:
        PresentationError: one of them is malformed.
    """
    size, region = _viewport(parameters.get("viewport", ""))
    return Presentation(
        window=_window(parameters.get("window", "")),
        size=size,
        region=region,
        quality=_quality(parameters.get("quality", "")),
    )


def _window(said: str) -> tuple[float, float, Function] | None:
    if not said:
        return None
    parts = [one.strip() for one in said.split(",")]
    name = parts[2].lower() if len(parts) == 3 else "linear"
    function = _FUNCTIONS.get(name)
    if len(parts) not in (2, 3) or function is None or not _are_numbers(parts[:2]):
        raise PresentationError(
            "window must be centre,width or centre,width,function; "
            "the functions are linear, linear-exact and sigmoid"
        )
    center, width = float(parts[0]), float(parts[1])
    if (width < 1 and function == "linear") or width <= 0:
        raise PresentationError("window: the width must be 1 at least, and more than 0 elsewhere")
    return center, width, function


def _viewport(said: str) -> tuple[tuple[int, int] | None, tuple[int, int, int, int] | None]:
    if not said:
        return None, None
    parts = [one.strip() for one in said.split(",")]
    if len(parts) not in (2, 6) or not _are_numbers(parts):
        raise PresentationError("viewport must be width,height or width,height,x,y,width,height")
    numbers = [int(float(one)) for one in parts]
    if not all(1 <= side <= LARGEST_SIDE for side in numbers[:2]):
        raise PresentationError(f"viewport: width and height must be from 1 to {LARGEST_SIDE}")
    region = None
    if len(numbers) == 6:
        x, y, width, height = numbers[2:]
        if x < 0 or y < 0 or width < 1 or height < 1:
            raise PresentationError("viewport: the region must be of pixels of the image")
        region = x, y, width, height
    return (numbers[0], numbers[1]), region


def _are_numbers(parts: list[str]) -> bool:
    return all(_NUMBER.fullmatch(one) for one in parts)


def _quality(said: str) -> int:
    if not said:
        return 90
    if not said.isascii() or not said.isdecimal() or not 1 <= int(said[:4]) <= 100:
        raise PresentationError("quality must be a whole number from 1 to 100")
    return int(said)


def picture(frame: Frame, how: Presentation, media_type: str) -> bytes:
    """Return a frame as a JPEG or PNG of 8 bits.

    Raises:
        PresentationError: the region lies outside the frame.
    """
    values = frame.values()
    if how.region:
        values = _cut_out(values, how.region)
    shown = values if frame.samples == 3 else windowed(values, frame, how)
    image = Image.fromarray(np.ascontiguousarray(shown, np.uint8))
    if how.size:
        image = image.resize(_fitting(image.size, how.size), Image.Resampling.BILINEAR)
    content = BytesIO()
    if media_type == "image/png":
        image.save(content, "PNG")
    else:
        image.save(content, "JPEG", quality=how.quality)
    return content.getvalue()


def _cut_out(values: NDArray[np.generic], region: tuple[int, int, int, int]) -> NDArray[np.generic]:
    x, y, width, height = region
    cut = values[y : y + height, x : x + width]
    if cut.shape[:2] != (height, width):
        raise PresentationError("viewport: the region must be of pixels of the image")
    return cut


def _fitting(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    scale = min(box[0] / size[0], box[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def windowed(values: NDArray[np.generic], frame: Frame, how: Presentation) -> NDArray[np.uint8]:
    """Apply the window to rescaled values, and turn MONOCHROME1 over (DICOM PS3.3 C.11.2.1.2)."""
    center, width, function = how.window or (frame.window.center, frame.window.width, "linear")
    x = values.astype(np.float64)
    if function == "sigmoid":
        share = 1 / (1 + np.exp(np.clip(-4 * (x - center) / width, -700, 700)))
    elif function == "linear-exact":
        share = (x - center) / width + 0.5
    else:
        share = (x - (center - 0.5)) / max(width - 1, 1e-6) + 0.5
    shown = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
    return 255 - shown if frame.photometric == "MONOCHROME1" else shown
