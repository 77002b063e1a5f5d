"""Small images of every modality, and one analysis of each that leaves all kinds of objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    XRayAngiographicImageStorage,
)

from tests.models.images import enhanced, item, reconstructed_tomogram, with_patient, written
from tests.models.test_volume import rotation
from tests.models.tiny import slice_dataset
from tests.results.scenes import (
    BRAIN,
    FRACTURE,
    HEMORRHAGE,
    PNEUMOTHORAX,
    PRODUCED_AT,
    finding,
    head_manifest,
    write_chest,
)
from triage.core.analysis import Analysis
from triage.core.codes import HEMORRHAGE_MORPHOLOGY
from triage.core.findings import Box
from triage.core.manifest import ModelManifest, ResultKind
from triage.core.priority import Priority
from triage.core.segmentation import SegmentationForm
from triage.results.build import BuiltObject, build_results
from triage.settings import ResultSettings

ALL_KINDS: tuple[str, ...] = get_args(ResultKind)
"""All nine kinds of object that a manifest can ask for."""
OBLIQUE = rotation(0.3, -1.2, 0.8)


@dataclass(frozen=True)
class Images:
    """The files of a series, and which frames of a multi-frame image are analysed."""

    files: tuple[Path, ...]
    frames: tuple[int, ...] = ()

    @property
    def has_place(self) -> bool:
        """Whether it is known where in the patient they lie."""
        header = self.header
        groups = "PerFrameFunctionalGroupsSequence" in header
        return groups or "ImagePositionPatient" in header or "SliceVector" in header

    @property
    def header(self) -> Dataset:
        """The header of the first."""
        return pydicom.dcmread(self.files[0], stop_before_pixels=True, force=True)


def pydicom_file(name: str) -> Callable[[Path], Images]:
    return lambda _: Images((Path(str(get_testdata_file(name))),))


def ultrasound_cine(_: Path) -> Images:
    return Images((Path(str(get_testdata_file("examples_ybr_color.dcm"))),), frames=(7,))


def computed_radiograph(folder: Path) -> Images:
    """MONOCHROME1, as computed radiography often is."""
    changes: dict[str, Any] = {
        "SOPClassUID": ComputedRadiographyImageStorage,
        "Modality": "CR",
        "PhotometricInterpretation": "MONOCHROME1",
        "PresentationIntentType": None,
        "ImageLaterality": None,
        "AnatomicRegionSequence": None,
        "PresentationLUTShape": None,
        "RescaleType": None,
        "PixelIntensityRelationship": None,
        "PixelIntensityRelationshipSign": None,
        "AcquisitionContextSequence": None,
        "DetectorType": None,
        "PositionerType": None,
    }
    return Images((write_chest(folder, **changes),))


def digital_radiograph(folder: Path) -> Images:
    return Images((write_chest(folder),))


def mammogram(folder: Path) -> Images:
    changes = {
        "SOPClassUID": DigitalMammographyXRayImageStorageForPresentation,
        "Modality": "MG",
        "ImageLaterality": "R",
        "BodyPartExamined": "BREAST",
        "ViewPosition": "MLO",
        "PatientOrientation": ["A", "FR"],
        "PositionerType": "MAMMOGRAPHIC",
        "OrganExposed": "BREAST",
        "BreastImplantPresent": "NO",
        "FrameOfReferenceUID": "1.2.7.2",  # without any place in it
        "ViewCodeSequence": [
            item(
                CodeValue="399368009",
                CodingSchemeDesignator="SCT",
                CodeMeaning="medio-lateral oblique",
                ViewModifierCodeSequence=[],
            )
        ],
        "AnatomicRegionSequence": [
            item(CodeValue="76752008", CodingSchemeDesignator="SCT", CodeMeaning="Breast")
        ],
    }
    return Images((write_chest(folder, **changes),))


def angiogram(folder: Path) -> Images:
    """Five frames of which one was analysed."""
    file = write_chest(
        folder,
        SOPClassUID=XRayAngiographicImageStorage,
        Modality="XA",
        NumberOfFrames=5,
        FrameTime="40",
        FrameIncrementPointer=0x00181063,
        PresentationIntentType=None,
        ImageLaterality=None,
        AnatomicRegionSequence=None,
        DetectorType=None,
        PositionerType=None,
        ImageType=["ORIGINAL", "PRIMARY", "SINGLE PLANE"],
        BodyPartExamined="HEART",
        PixelIntensityRelationship="LOG",
        RadiationSetting="GR",
        KVP="80",
        ExposureTime=10,
        XRayTubeCurrent=100,
    )
    dataset = pydicom.dcmread(file)
    dataset.PixelData = bytes(dataset.PixelData) * 5
    dataset.save_as(file, enforce_file_format=True)
    return Images((file,), frames=(3,))


def _lesion() -> NDArray[np.bool_]:
    """A lesion that no flip leaves as it is, with a hole and an island, on three of five slices."""
    mask = np.zeros((5, 24, 20), np.bool_)
    mask[1:4, 5:12, 4:11] = True
    mask[2, 7:9, 6:9] = False
    mask[3, 12, 4:6] = True
    mask[3, 18, 15] = True
    return mask


def oblique_ct(folder: Path) -> Images:
    values = (_lesion() * 60 + 20).astype(np.int16)
    files = []
    for number, plane in enumerate(values):
        image = slice_dataset(
            plane,
            np.array([12.0, -30.0, 200.0]) + 2.5 * number * OBLIQUE[:, 2],
            number + 1,
            ImageOrientationPatient=[f"{v:.10f}" for v in (*OBLIQUE[:, 0], *OBLIQUE[:, 1])],
            PixelSpacing=["0.5", "0.7"],
            SliceThickness="2.5",
            WindowCenter="40",
            WindowWidth="80",
        )
        files.append(written(with_patient(image), folder, f"{number}")[0][1])
    return Images(tuple(files))


def enhanced_mr(folder: Path) -> Images:
    """Five places at two times, of which the second was analysed, from the last place on."""
    values = np.concatenate([np.zeros_like(_lesion()), _lesion()]) * np.int16(200)
    steps = [np.array([12.0, -30.0, 200.0]) + 2.5 * n * OBLIQUE[:, 2] for n in range(5)]
    places = [place.tolist() for place in steps]
    dataset = enhanced(
        values.astype(np.int16),
        [*places, *places],
        orientation=[*OBLIQUE[:, 0], *OBLIQUE[:, 1]],
        spacing_mm=(0.5, 0.7),
        is_mr=True,
    )
    return Images((written(dataset, folder)[0][1],), frames=(6, 7, 8, 9, 10))


def tomogram(folder: Path) -> Images:
    dataset = reconstructed_tomogram((_lesion() * 200).astype(np.int16), 2.0)
    dataset.SliceThickness = "2"
    return Images((written(dataset, folder)[0][1],), frames=(1, 2, 3, 4, 5))


FORMS = (
    SegmentationForm("FRACTIONAL", compressed=True),
    SegmentationForm("LABELMAP", compressed=True),
    SegmentationForm("BINARY", compressed=True),
)
"""In what further forms `make` writes the SEG."""


@dataclass(frozen=True)
class Made:
    """Images, all kinds of objects made of them, and the files of those in their usual form."""

    images: Images
    built: tuple[BuiltObject, ...]
    files: dict[str, Path]


SOURCES: dict[str, Callable[[Path], Images]] = {
    "CT": pydicom_file("CT_small.dcm"),
    "CT, oblique series": oblique_ct,
    "MR": pydicom_file("MR_small.dcm"),
    "MR, enhanced multi-frame": enhanced_mr,
    "CR": computed_radiograph,
    "DX": digital_radiograph,
    "MG": mammogram,
    "XA, multi-frame": angiogram,
    "US": pydicom_file("ExplVR_BigEnd.dcm"),
    "US, palette": pydicom_file("examples_palette.dcm"),
    "US, multi-frame": ultrasound_cine,
    "NM": tomogram,
}


def make(images: Images) -> tuple[BuiltObject, ...]:
    """Build all kinds of objects of `images`, with the SEG in all its forms."""
    return build_results(
        analysis_of(images),
        manifest_of_all_kinds(),
        study_instance_uid=str(images.header.StudyInstanceUID),
        settings=ResultSettings(),
        produced_at=PRODUCED_AT,
        variants=FORMS,
    )


def manifest_of_all_kinds() -> ModelManifest:
    """A model that outlines, detects and draws a heat map, and leaves every kind of object."""
    findings = [
        {
            "key": "hemorrhage",
            "code": HEMORRHAGE.model_dump(),
            "priority": "stat",
            "site": BRAIN.model_dump(),
            "segment": {"label": 3, "type": HEMORRHAGE_MORPHOLOGY.model_dump()},
        },
        {"key": "fracture", "code": FRACTURE.model_dump(), "box": {"label": 0}},
        {"key": "pneumothorax", "code": PNEUMOTHORAX.model_dump(), "channel": 0},
    ]
    return head_manifest(findings=findings, results={"objects": list(ALL_KINDS)})


def analysis_of(images: Images) -> Analysis:
    """What such a model finds: an outline, a box and, on a single image, a heat map."""
    headers = [pydicom.dcmread(f, stop_before_pixels=True, force=True) for f in images.files]
    uids = tuple(str(header.SOPInstanceUID) for header in headers)
    slices = len(images.frames) or len(headers)
    mask = _mask((slices, int(headers[0].Rows), int(headers[0].Columns)))
    key = int(mask.sum(axis=(1, 2)).argmax())
    shown: dict[str, Any] = {
        "key_image_uids": (uids[0 if images.frames else key],),
        "key_image_frames": (images.frames[key],) if images.frames else (),
    }
    box = Box(
        score=0.9,
        sop_instance_uid=shown["key_image_uids"][0],
        frame=images.frames[key] if images.frames else None,
        **_upper_right(mask),
    )
    heat = np.zeros(mask.shape[1:], np.float32)
    heat[-mask.shape[1] // 3 :, : mask.shape[2] // 3] = np.linspace(0.2, 1, mask.shape[2] // 3)
    return Analysis(
        findings=(
            finding(
                "hemorrhage", HEMORRHAGE, volume_ml=1.0, site=BRAIN, priority=Priority.STAT, **shown
            ),
            finding("fracture", FRACTURE, boxes=(box,), **shown),
            finding("pneumothorax", PNEUMOTHORAX, is_present=slices == 1),
        ),
        source_files=images.files,
        source_sop_instance_uids=uids,
        source_frames=images.frames,
        input_sha256="7" * 64,
        segmentation=np.where(mask, 3, 0).astype(np.uint8),
        probabilities={"hemorrhage": probabilities_of(mask)},
        heat_maps={"pneumothorax": heat} if slices == 1 else {},
    )


def probabilities_of(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """What outlines `mask` at 0.5: rising with the columns within, faint all around."""
    ramp = np.linspace(0.5, 1, mask.shape[2], dtype=np.float32)
    return np.where(mask, ramp, np.float32(0.3) * ramp).astype(np.float32)


def _mask(shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    if shape == _lesion().shape:
        return _lesion()
    slices, rows, columns = shape
    mask = np.zeros(shape, np.bool_)
    mask[:, rows // 4 : rows // 2, columns // 4 : columns // 2] = True
    mask[:, rows // 3 : rows // 3 + 3, columns // 3 : columns // 3 + 4] = False
    mask[:, rows - 4, columns - 6] = True
    assert slices == 1
    return mask


def _upper_right(mask: NDArray[np.bool_]) -> dict[str, float]:
    _, rows, columns = mask.shape
    return {"left": columns * 0.6, "top": 1.5, "right": columns - 2.5, "bottom": rows * 0.4}
