"""A detector's analysis of whatever image a file has: a box, a score, and something absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
from pydicom.data import get_testdata_file

from tests.results.scenes import (
    FRACTURE,
    HEMORRHAGE,
    PNEUMOTHORAX,
    build,
    chest_manifest,
    finding,
    run_tool,
    save,
)
from triage.core.analysis import Analysis
from triage.core.findings import Box
from triage.core.manifest import ModelManifest
from triage.core.priority import Priority

KINDS = ("sr", "presentation-state", "pdf", "key-objects")

PACKAGED = {  # files that pydicom brings along
    "CT": "CT_small.dcm",
    "MR": "MR_small.dcm",
    "US in color": "examples_rgb_color.dcm",
    "US in a palette": "examples_palette.dcm",
    "US multi-frame in color": "examples_ybr_color.dcm",
}
SHARED = {
    "CT compressed": "CT1_RLE.dcm",
    "MR compressed": "MR1_JLSL.dcm",
    "CR of MONOCHROME1": "RG3_J2KR.dcm",
    "US": "US1_RLE.dcm",
    "XA": "XA1_RLE.dcm",
}


def image_file(name: str, shared_data: Path) -> Path:
    """Return the file of one of `PACKAGED` and `SHARED`."""
    if name in SHARED:
        return shared_data / "dicom" / "transfer-syntaxes" / SHARED[name]
    return Path(str(get_testdata_file(PACKAGED[name])))


def detector_manifest(**changes: Any) -> ModelManifest:
    """The manifest of a detector of fractures that also scores two other findings."""
    runner = {
        "kind": "torch-export",
        "weights": "model.pt2",
        "weights_sha256": "0" * 64,
        "input": {"kind": "image", "size": 224},
        "outputs": ["probabilities", "boxes", "box_labels", "box_scores"],
    }
    findings = [
        {
            "key": "fracture",
            "code": FRACTURE.model_dump(),
            "box": {"label": 1},
            "priority": "high",
        },
        {
            "key": "pneumothorax",
            "code": PNEUMOTHORAX.model_dump(),
            "channel": 0,
            "priority": "stat",
        },
        {"key": "hemorrhage", "code": HEMORRHAGE.model_dump(), "channel": 1},
    ]
    content = {"runner": runner, "findings": findings, "results": {"objects": list(KINDS)}}
    return chest_manifest(**(content | changes))


def detection(file: Path, *, is_present: bool = True, frame: int | None = None) -> Analysis:
    """A fracture in the middle of the image and a pneumothorax somewhere, or nothing at all."""
    header = pydicom.dcmread(file, stop_before_pixels=True)
    uid = str(header.SOPInstanceUID)
    if frame is None and int(header.get("NumberOfFrames") or 1) > 1:
        frame = 2
    shown: dict[str, Any] = {"key_image_uids": (uid,)} if is_present else {}
    if is_present and frame is not None:
        shown["key_image_frames"] = (frame,)
    box = Box(
        score=0.9,
        sop_instance_uid=uid,
        frame=frame,
        left=0.25 * header.Columns,
        top=0.25 * header.Rows,
        right=0.5 * header.Columns,
        bottom=0.5 * header.Rows,
    )
    boxes = (box,) if is_present else ()
    return Analysis(
        findings=(
            finding(
                "fracture",
                FRACTURE,
                is_present=is_present,
                boxes=boxes,
                priority=Priority.HIGH,
                **shown,
            ),
            finding(
                "pneumothorax",
                PNEUMOTHORAX,
                is_present=is_present,
                priority=Priority.STAT,
                **shown,
            ),
            finding("hemorrhage", HEMORRHAGE, is_present=False),
        ),
        source_files=(file,),
        source_sop_instance_uids=(uid,),
        input_sha256="3" * 64,
    )


def saved_detection(
    file: Path, folder: Path, *, is_present: bool = True, **changes: Any
) -> dict[str, Path]:
    """Build the objects of the analysis and return their files by role."""
    built = build(detection(file, is_present=is_present), detector_manifest(**changes))
    return save(built, folder)


def errors_beyond(source: Path, made: Path) -> list[str]:
    """Return what `dciodvfy` finds wrong in `made` and not in the image that it was made of."""
    own = run_tool("dciodvfy", "-new", source).errors()
    return [error for error in run_tool("dciodvfy", "-new", made).errors() if error not in own]
