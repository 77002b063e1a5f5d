"""Reading detections: boxes of a label, on the images where they lie."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from triage.core.analysis import AnalysisFailedError
from triage.core.findings import Box, Finding
from triage.core.manifest import FindingSpec, ImageInput, ModelManifest
from triage.models.interpret.reading import (
    MOST_KEY_IMAGES,
    SourceImage,
    check_finite,
    check_probabilities,
    finding_of,
    images_of,
)
from triage.models.radiograph import Radiograph
from triage.models.tensors import ModelOutput
from triage.models.volume import Volume

MOST_BOXES = 50
"""Of a finding; a report of hundreds would be read by nobody, and the best ones come first."""

_PIXEL_MIDDLE = 0.5
_CORNERS = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)], bool)

Corners = NDArray[np.float64]
Place = Callable[[Corners, float], Box | None]


def read_boxes_of_volume(
    spec: FindingSpec, output: ModelOutput, volume: Volume, manifest: ModelManifest
) -> Finding:
    """Return the finding of boxes (x, y, z, x, y, z) in patient coordinates in mm.

    Each box is drawn on the slice nearest to its middle. Otherwise as `read_boxes_of_image`.
    """
    wanted = spec.box
    assert wanted is not None, "findings with a box come here"

    def place(corners: Corners, score: float) -> Box | None:
        if float((corners[3:] - corners[:3]).max()) < wanted.minimum_size_mm:
            return None
        return box_on_slice(corners, score, volume, manifest)

    return _read(spec, output, 6, place, manifest)


def read_boxes_of_image(
    spec: FindingSpec, output: ModelOutput, radiograph: Radiograph, manifest: ModelManifest
) -> Finding:
    """Return the finding of boxes (column, row, column, row) in pixels of the model's input.

    Boxes of the finding's label count from `threshold` on, best first. The confidence is the
    greatest score of any box of the label, and 0 without one. The images of the best boxes are
    the key images.

    Raises:
        AnalysisFailedError: boxes, labels and scores do not go together, are not finite, lie
            outside of the image, or a score is not from 0 to 1.
    """
    given = manifest.runner.input
    assert isinstance(given, ImageInput), "models of images come here"
    rows, columns = radiograph.display.shape
    scale = np.array([columns, rows, columns, rows]) / given.size
    (image,) = images_of(radiograph)

    def place(corners: Corners, score: float) -> Box | None:
        return _rectangle(corners * scale, (rows, columns), score, image, manifest)

    return _read(spec, output, 4, place, manifest)


def _read(
    spec: FindingSpec, output: ModelOutput, width: int, place: Place, manifest: ModelManifest
) -> Finding:
    boxes, labels, scores = _checked(output, width, manifest)
    assert spec.box is not None, "findings with a box come here"
    placed: list[Box] = []
    confidence = 0.0
    for index in np.argsort(-scores, kind="stable"):
        if labels[index] != spec.box.label:
            continue
        score = float(np.clip(scores[index], 0.0, 1.0))
        box = place(boxes[index], score)
        if box is None:
            continue
        confidence = max(confidence, score)
        if score >= spec.threshold and len(placed) < MOST_BOXES:
            placed.append(box)
    shown = dict.fromkeys(SourceImage(box.sop_instance_uid, box.frame) for box in placed)
    return finding_of(
        spec,
        bool(placed),
        confidence,
        boxes=tuple(placed),
        key_images=list(shown)[:MOST_KEY_IMAGES],
    )


def _checked(
    output: ModelOutput, width: int, manifest: ModelManifest
) -> tuple[Corners, NDArray[np.int64], NDArray[np.float32]]:
    boxes, labels, scores = output.boxes, output.box_labels, output.box_scores
    shapes = [None if a is None else a.shape for a in (boxes, labels, scores)]
    if (
        boxes is None
        or labels is None
        or scores is None
        or boxes.ndim != 2
        or boxes.shape[1] != width
        or labels.shape != (len(boxes),)
        or scores.shape != (len(boxes),)
    ):
        raise AnalysisFailedError(
            f"{manifest.identity} gave boxes, labels and scores of the shapes {shapes}; needed "
            f"are (boxes, {width}), (boxes,) and (boxes,)"
        )
    check_finite(boxes, manifest)
    check_probabilities(scores, manifest)
    half = width // 2
    if (boxes[:, :half] > boxes[:, half:]).any():
        raise AnalysisFailedError(
            f"{manifest.identity} gave a box whose first corner is not the lesser one"
        )
    return boxes, labels, scores


def box_on_slice(corners: Corners, score: float, volume: Volume, manifest: ModelManifest) -> Box:
    """Return a box in patient coordinates with its rectangle on the slice nearest to its middle.

    Raises:
        AnalysisFailedError: the box lies outside of the volume.
    """
    lower, upper = corners[:3], corners[3:]
    to_indices = np.linalg.inv(volume.affine)
    points = np.concatenate([np.where(_CORNERS, upper, lower), [(lower + upper) / 2]])
    indices = points @ to_indices[:3, :3].T + to_indices[:3, 3]
    slices, rows, columns = volume.values.shape
    if indices[:-1, 2].max() < -_PIXEL_MIDDLE or indices[:-1, 2].min() > slices - _PIXEL_MIDDLE:
        raise _outside(manifest)
    # Slices may be uneven, but they lie on one line: the share of the way along it is right.
    depths = volume.slice_positions_mm
    depth = depths[0] + indices[-1, 2] / (slices - 1) * (depths[-1] - depths[0])
    nearest = int(np.argmin(np.abs(depths - depth)))
    in_plane = indices[:-1, :2] + _PIXEL_MIDDLE
    flat = np.concatenate([in_plane.min(axis=0), in_plane.max(axis=0)])
    image = images_of(volume)[nearest]
    rectangle = _rectangle(flat, (rows, columns), score, image, manifest)
    extent = {"lower_mm": tuple(map(float, lower)), "upper_mm": tuple(map(float, upper))}
    return rectangle.model_copy(update=extent)


def _rectangle(
    flat: Corners,
    shape: tuple[int, int],
    score: float,
    image: SourceImage,
    manifest: ModelManifest,
) -> Box:
    rows, columns = shape
    left, top, right, bottom = map(float, flat)
    if right <= 0 or bottom <= 0 or left >= columns or top >= rows:
        raise _outside(manifest)
    return Box(
        score=score,
        sop_instance_uid=image.sop_instance_uid,
        frame=image.frame,
        left=max(left, 0.0),
        top=max(top, 0.0),
        right=min(right, float(columns)),
        bottom=min(bottom, float(rows)),
    )


def _outside(manifest: ModelManifest) -> AnalysisFailedError:
    return AnalysisFailedError(f"{manifest.identity} gave a box outside of the image")
