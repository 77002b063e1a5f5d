"""Pictures of what a model found, for people who try it out. Not DICOM, and not for reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from triage.core.analysis import Analysis
from triage.core.findings import Box, Finding
from triage.core.manifest import FindingSpec, ImageInput, ModelManifest, VolumeInput
from triage.models.radiograph import load_radiograph
from triage.models.sources import Frame, read_instance
from triage.models.values import rescaled

NOTICE = "AI result, not for primary diagnosis"

_CAPTION_ROWS = 36
_SMALLEST_WIDTH = 360
_OVERLAY = 0.45
_FRAME_RGB = (255, 220, 0)
_PERCENTILES = (1.0, 99.5)

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Shown:
    name: str
    finding: Finding | None
    picture: Picture


def write_previews(
    analysis: Analysis,
    manifest: ModelManifest,
    folder: Path,
    *,
    window: tuple[float, float] | None = None,
) -> tuple[Path, ...]:
    """Write a PNG for each key image of each present finding, its overlay drawn in.

    Where nothing was found it is one picture of the middle image, without an overlay.

    Args:
        analysis: what the model found.
        manifest: the model's, for the colours and its name in the caption.
        folder: where the files go; it is made.
        window: centre and width in rescaled values, for volumes; without it the image's own
            window, and where it has none its percentiles.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    is_volume = isinstance(manifest.runner.input, VolumeInput)
    shown = _slices(analysis, manifest, window) if is_volume else _images(analysis, manifest)
    for each in shown:
        path = folder / f"{each.name}.png"
        words = each.finding.in_words() if each.finding else "nothing found"
        _captioned(each.picture, words, manifest.identity).save(path)
        paths.append(path)
    return tuple(paths)


def _slices(
    analysis: Analysis, manifest: ModelManifest, window: tuple[float, float] | None
) -> Iterator[_Shown]:
    found = [
        (finding, spec, index, number)
        for finding, spec in zip(analysis.findings, manifest.findings, strict=True)
        if finding.present
        for number, index in enumerate(_key_slices(analysis, finding), start=1)
    ]
    if not found:
        slices = len(analysis.source_frames or analysis.source_files)
        yield _Shown("nothing-found", None, _slice_picture(analysis, slices // 2, window))
    for finding, spec, index, number in found:
        picture = _slice_picture(analysis, index, window)
        if analysis.segmentation is not None and spec.segment is not None:
            mask = analysis.segmentation[index] == spec.segment.label
            picture = _tinted(picture, mask, spec)
        picture = _framed(picture, _boxes_on(analysis, finding, index))
        yield _Shown(f"{finding.key}-{number}", finding, picture)


def _key_slices(analysis: Analysis, finding: Finding) -> list[int]:
    if analysis.source_frames:
        return [analysis.source_frames.index(frame) for frame in finding.key_image_frames]
    return [analysis.source_sop_instance_uids.index(uid) for uid in finding.key_image_uids]


def _slice_picture(analysis: Analysis, index: int, window: tuple[float, float] | None) -> Picture:
    frame = _frame(analysis, index)
    values = rescaled(frame)
    centre, width = frame.value("WindowCenter"), frame.value("WindowWidth")
    if window is not None:
        centre, width = window
    if centre is None or not width:
        low, high = map(float, np.percentile(values, _PERCENTILES))
    else:  # of several windows (PS3.3 C.11.2.1.2) the first is what the sender prefers
        centre, width = float(np.atleast_1d(centre)[0]), float(np.atleast_1d(width)[0])
        low, high = centre - width / 2, centre + width / 2
    grey = np.clip((values - low) / max(high - low, 1e-6), 0.0, 1.0) * 255
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)


def _frame(analysis: Analysis, index: int) -> Frame:
    of = 0 if analysis.source_frames else index
    instance = read_instance((analysis.source_sop_instance_uids[of], analysis.source_files[of]))
    if not analysis.source_frames:
        return Frame(instance)
    return Frame(instance, analysis.source_frames[index] - 1, is_of_several=True)


def _images(analysis: Analysis, manifest: ModelManifest) -> Iterator[_Shown]:
    source = (analysis.source_sop_instance_uids[0], analysis.source_files[0])
    wanted = manifest.runner.input
    assert isinstance(wanted, ImageInput), "volumes are shown by their slices"
    radiograph = load_radiograph([source], manifest.accepts, wanted)
    grey = radiograph.display / radiograph.greatest * 255
    picture = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=-1)
    present = [finding for finding in analysis.findings if finding.present]
    if not present:
        yield _Shown("nothing-found", None, picture)
    for finding in present:
        heat_map = analysis.heat_maps.get(finding.key)
        drawn = picture if heat_map is None else blended(picture, heat_map)
        yield _Shown(finding.key, finding, _framed(drawn, finding.boxes))


def blended(picture: Picture, heat_map: NDArray[np.float32]) -> Picture:
    """Return `picture` (rows, columns, 3) with a heat map (rows, columns) from 0 to 1 over it.

    Cold stays clear, warm turns yellow, hot red, each the more opaque the hotter it is.
    """
    heat = np.clip(heat_map, 0.0, 1.0)[..., None]
    colour = np.concatenate([np.full_like(heat, 255), 255 * (1 - heat), np.zeros_like(heat)], -1)
    alpha = _OVERLAY * heat
    return np.asarray(picture * (1 - alpha) + colour * alpha).astype(np.uint8)


def _tinted(picture: Picture, mask: NDArray[np.bool_], spec: FindingSpec) -> Picture:
    assert spec.segment is not None, "only segments have masks"
    tinted = picture.astype(np.float32)
    colour = np.array(spec.segment.recommended_display_rgb, np.float32)
    tinted[mask] = tinted[mask] * (1 - _OVERLAY) + colour * _OVERLAY
    return tinted.astype(np.uint8)


def _boxes_on(analysis: Analysis, finding: Finding, index: int) -> list[Box]:
    if analysis.source_frames:
        return [box for box in finding.boxes if box.frame == analysis.source_frames[index]]
    uid = analysis.source_sop_instance_uids[index]
    return [box for box in finding.boxes if box.sop_instance_uid == uid]


def _framed(picture: Picture, boxes: Sequence[Box]) -> Picture:
    """Return `picture` with `boxes` drawn on it."""
    if not boxes:
        return picture
    page = Image.fromarray(picture)
    draw = ImageDraw.Draw(page)
    width = max(1, max(picture.shape[:2]) // 400)
    for box in boxes:
        corners = (box.left, box.top, max(box.right - 1, box.left), max(box.bottom - 1, box.top))
        draw.rectangle(corners, outline=_FRAME_RGB, width=width)
    return np.asarray(page)


def _captioned(picture: Picture, words: str, model: str) -> Image.Image:
    rows, columns = picture.shape[:2]
    width = max(columns, _SMALLEST_WIDTH)
    page = Image.new("RGB", (width, rows + _CAPTION_ROWS))
    page.paste(Image.fromarray(picture), ((width - columns) // 2, 0))
    draw = ImageDraw.Draw(page)
    draw.text((6, rows + 4), words, fill=(255, 255, 255))
    draw.text((6, rows + 19), f"{NOTICE} - {model}", fill=(255, 190, 90))
    return page
