"""A small hospital for the tests of the pages: studies with real files, models, runs, results."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import highdicom
import numpy as np
from highdicom.seg import SegmentDescription
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from sqlalchemy import select

from tests.tools import ManualClock, archive_named
from triage.core.codes import HEMORRHAGE_MORPHOLOGY, MILLILITRE, VOLUME
from triage.core.findings import Finding, Measurement
from triage.core.policy import ai_priority
from triage.core.priority import Priority
from triage.core.studies import IMAGE_HEADER_KEYWORDS
from triage.settings import NotificationSettings
from triage.store.claims import claim_study
from triage.store.database import Database
from triage.store.files import InstanceFiles, StoredFile
from triage.store.model_tables import ModelRow
from triage.store.notifications import raise_notifications
from triage.store.outbox import NewResultObject, add_result_objects
from triage.store.prioritising import raise_ai_priority
from triage.store.runs import ClaimedRun, claim_most_urgent, complete_run, record_findings
from triage.store.studies import (
    ReceivedInstance,
    complete_study,
    record_instance,
)
from triage.store.tables import StudyRow

MANIFEST: dict[str, Any] = {
    "schema_version": 1,
    "name": "head-ct-hemorrhage",
    "version": "1.0.0",
    "title": "Intracranial hemorrhage on head CT",
    "intended_use": "Tests.",
    "notice": "Trained on simulated lesions; not for clinical use",
    "licence": "Apache-2.0",
    "accepts": {"modalities": ["CT"]},
    "runner": {
        "kind": "torch-export",
        "weights": "model.pt2",
        "weights_sha256": "0" * 64,
        "input": {"kind": "volume"},
    },
    "findings": [
        {
            "key": "hemorrhage",
            "code": HEMORRHAGE_MORPHOLOGY.model_dump(),
            "segment": {"label": 1, "type": HEMORRHAGE_MORPHOLOGY.model_dump()},
            "priority": "stat",
        }
    ],
    "results": {"objects": ["seg", "sr"]},
}


def hemorrhage(*, present: bool = True, key_image_uids: Sequence[str] = ()) -> Finding:
    """Return the finding that the tests' model makes."""
    return Finding(
        key="hemorrhage",
        code=HEMORRHAGE_MORPHOLOGY,
        present=present,
        confidence=0.97 if present else 0.08,
        measurements=(
            (Measurement(concept=VOLUME, value=12.3, unit=MILLILITRE),) if present else ()
        ),
        segment_number=1 if present else None,
        key_image_uids=tuple(key_image_uids),
        priority=Priority.STAT if present else Priority.ROUTINE,
    )


@dataclass
class Hospital:
    """What fills the database of a test. Every study has a synthetic patient."""

    database: Database
    files: InstanceFiles
    clock: ManualClock
    patients: int = 0
    models: dict[str, int] = field(default_factory=dict)
    notifications: NotificationSettings = field(default_factory=NotificationSettings)

    def register_model(self, stage: str = "production", **changes: Any) -> int:
        """Register a model with the tests' manifest and return its id."""
        manifest = {**MANIFEST, **changes}
        with self.database.transaction() as session:
            row = ModelRow(
                name=manifest["name"],
                version=manifest["version"],
                stage=stage,
                manifest=manifest,
                package_path="nowhere",
                package_sha256="0" * 64,
                registered_at=self.clock(),
            )
            session.add(row)
            session.flush()
            return row.id

    def receive(self, *images: Dataset, ae_title: str = "CT1") -> str:
        """Store and index the images, all of one study, and return its UID."""
        for image in images:
            stored = self.store(image)
            with self.database.transaction() as session:
                record_instance(session, _received(image, stored, self.clock(), ae_title))
        return str(images[0].StudyInstanceUID)

    def store(self, dataset: Dataset) -> StoredFile:
        """Make the file of a dataset durable, as the receiver would."""
        content = io.BytesIO()
        dataset.save_as(content, enforce_file_format=True)
        return self.files.write(
            str(dataset.StudyInstanceUID), str(dataset.SOPInstanceUID), [content.getvalue()]
        )

    def complete(self, study_uid: str) -> None:
        """Let the study be complete, which queues its runs."""
        with self.database.transaction() as session:
            study = session.scalars(
                select(StudyRow).where(StudyRow.study_instance_uid == study_uid)
            ).one()
            complete_study(session, study, "association released", self.clock())

    def claim_study(self, study_uid: str, who: str) -> None:
        """Let somebody read the study for the next quarter of an hour."""
        with self.database.transaction() as session:
            study = session.scalars(
                select(StudyRow).where(StudyRow.study_instance_uid == study_uid)
            ).one()
            claim_study(session, study, who, now=self.clock(), lease=timedelta(minutes=15))

    def claim(self) -> ClaimedRun:
        """Claim the most urgent run."""
        with self.database.transaction() as session:
            run = claim_most_urgent(
                session, worker="tests", lease=timedelta(seconds=60), now=self.clock()
            )
        assert run is not None
        return run

    def find(self, run: ClaimedRun, *findings: Finding) -> None:
        """Record findings and raise the priority, as a worker does before it builds objects."""
        wanted = ai_priority([(run.manifest.identity, f) for f in findings])
        with self.database.transaction() as session:
            record_findings(session, run, findings, input_sha256="0" * 64)
            if run.counts and wanted.priority is not None:
                raise_ai_priority(
                    session,
                    run.study_id,
                    wanted.priority,
                    wanted.reason,
                    at=self.clock(),
                    run_id=run.run_id,
                )
            if run.counts:
                raise_notifications(
                    session, run.run_id, findings, self.notifications, now=self.clock()
                )

    def finish(self, run: ClaimedRun, *findings: Finding, objects: Sequence[Dataset] = ()) -> None:
        """Record findings and result objects, and complete the run."""
        self.find(run, *findings)
        results = [
            NewResultObject(
                role={"SEG": "seg", "SR": "sr"}.get(o.Modality, "heat-map"),
                file=self.store(o),
                sop_class_uid=str(o.SOPClassUID),
                sop_instance_uid=str(o.SOPInstanceUID),
                series_instance_uid=str(o.SeriesInstanceUID),
                transfer_syntax_uid=str(o.file_meta.TransferSyntaxUID),
                modality=str(o.Modality),
                series_number=9001,
                series_description="AI: Hemorrhage",
            )
            for o in objects
        ]
        said = "; ".join(f.in_words() for f in findings if f.present) or "nothing found"
        with self.database.transaction() as session:
            add_result_objects(
                session,
                run_id=run.run_id,
                study_id=run.study_id,
                objects=results,
                destinations=[archive_named("archive")],
                now=self.clock(),
            )
            complete_run(session, run, said, timings_s={"infer": 0.4}, now=self.clock())

    def head_ct(self, *, slices: int = 4, rows: int = 64, **attributes: Any) -> list[Dataset]:
        """Return the slices of a simulated head CT of a new patient."""
        self.patients += 1
        shared = {
            "PatientName": f"Synthetic^Ada {self.patients}",
            "PatientID": f"SYN-{self.patients:04d}",
            "StudyInstanceUID": generate_uid(),
            "SeriesInstanceUID": generate_uid(),
            "FrameOfReferenceUID": generate_uid(),
            "AccessionNumber": f"A{self.patients:05d}",
            "StudyDescription": "CT head without contrast",
            "SeriesDescription": "Head 5 mm",
            **attributes,
        }
        return [_slice(shared, number, rows) for number in range(1, slices + 1)]


def _slice(shared: dict[str, Any], number: int, rows: int) -> Dataset:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = CTImageStorage
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID = generate_uid()
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    for keyword in ("PatientBirthDate", "PatientSex", "StudyID", "ReferringPhysicianName"):
        setattr(image, keyword, "")
    image.StudyDate, image.StudyTime = "20260301", "114500"
    image.Modality, image.Manufacturer = "CT", "Synthetic"
    image.SeriesNumber, image.InstanceNumber = 2, number
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.PositionReferenceIndicator = ""
    image.ImagePositionPatient = [-120.0, -120.0, 5.0 * number]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.PixelSpacing, image.SliceThickness = [240 / rows, 240 / rows], 5
    image.RescaleSlope, image.RescaleIntercept = 1, -1024
    image.WindowCenter, image.WindowWidth = 40, 80
    image.update(_as_elements(shared))
    image.Rows = image.Columns = rows
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : rows * 1j]
    radius = np.hypot(x / 0.75, y / 0.9)
    values = np.where(radius < 1, np.where(radius > 0.9, 900, 35 + number), -1000)
    image.PixelData = (values + 1024).astype("<u2").tobytes()
    return image


def _as_elements(values: dict[str, Any]) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def _received(image: Dataset, stored: StoredFile, at: datetime, ae_title: str) -> ReceivedInstance:
    headers: dict[str, Any] = {}
    for keyword in IMAGE_HEADER_KEYWORDS:
        if keyword in image and image[keyword].value not in (None, ""):
            headers[keyword] = _plain(image[keyword].value)
    return ReceivedInstance(
        file=stored,
        sop_instance_uid=str(image.SOPInstanceUID),
        sop_class_uid=str(image.SOPClassUID),
        transfer_syntax_uid=str(image.file_meta.TransferSyntaxUID),
        study_instance_uid=str(image.StudyInstanceUID),
        series_instance_uid=str(image.SeriesInstanceUID),
        calling_ae_title=ae_title,
        received_at=at,
        patient_id=str(image.get("PatientID", "")),
        patient_name=str(image.get("PatientName", "")),
        patient_birth_date=str(image.get("PatientBirthDate", "")),
        patient_sex=str(image.get("PatientSex", "")),
        accession_number=str(image.get("AccessionNumber", "")),
        study_description=str(image.get("StudyDescription", "")),
        study_date=str(image.get("StudyDate", "")),
        study_time=str(image.get("StudyTime", "")),
        requested_procedure_priority=str(image.get("RequestedProcedurePriority", "")),
        modality=str(image.get("Modality", "")),
        series_number=image.get("SeriesNumber"),
        series_description=str(image.get("SeriesDescription", "")),
        body_part=str(image.get("BodyPartExamined", "")),
        instance_number=image.get("InstanceNumber"),
        headers=headers,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "__iter__"):
        return [_plain(v) for v in value]
    return int(value) if float(value).is_integer() else float(value)


def segmentation(
    images: Sequence[Dataset], masks: NDArray[np.uint8], *, kind: str = "BINARY"
) -> Dataset:
    """Return a SEG of `masks`, labels of shape (slices, rows, columns), on the images."""
    labels = sorted(set(np.unique(masks)) - {0})
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="head-ct-hemorrhage", version="1.0.0", family=codes.DCM.ArtificialIntelligence
    )
    attributes: dict[str, Any] = {"algorithm_identification": algorithm}
    segments = [
        SegmentDescription(
            segment_number=int(label),
            segment_label=f"Lesion {label}",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Hemorrhage,
            algorithm_type="AUTOMATIC",
            **attributes,
        )
        for label in labels
    ]
    return highdicom.seg.Segmentation(
        source_images=list(images),
        pixel_array=masks,
        segmentation_type=kind,
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=9001,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Triage",
        manufacturer_model_name="tests",
        software_versions="0",
        device_serial_number="0",
        omit_empty_frames=True,
    )


def read_back(files: InstanceFiles, stored: StoredFile) -> Dataset:
    """Return a stored file as pydicom reads it."""
    return dcmread(files.absolute(stored.path))
