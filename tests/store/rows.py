"""Rows that the store's tests begin with."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from sqlalchemy.orm import Session

from triage.store.files import StoredFile
from triage.store.model_tables import ModelRow
from triage.store.studies import ReceivedInstance


def received(
    at: datetime, *, study: str = "1.2.3", number: int = 1, content: str = "", **changes: Any
) -> ReceivedInstance:
    """Return a CT slice whose file is durable."""
    uid = changes.pop("sop_instance_uid", f"{study}.1.{number}")
    digest = hashlib.sha256(f"{uid}{content}".encode()).hexdigest()
    values: dict[str, Any] = {
        "file": StoredFile(f"{digest[:8]}/{digest[:16]}.dcm", 1000, digest),
        "sop_instance_uid": uid,
        "sop_class_uid": CTImageStorage,
        "transfer_syntax_uid": ExplicitVRLittleEndian,
        "study_instance_uid": study,
        "series_instance_uid": f"{study}.1",
        "calling_ae_title": "CT1",
        "received_at": at,
        "patient_id": "P1",
        "modality": "CT",
        "instance_number": number,
        "headers": {
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "BodyPartExamined": "HEAD",
            "Rows": 512,
            "Columns": 512,
            "SliceThickness": 5.0,
            "ImagePositionPatient": [0.0, 0.0, 5.0 * number],
            "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        },
    }
    return ReceivedInstance(**{**values, **changes})


def manifest(name: str = "head-ct", **accepts: Any) -> dict[str, Any]:
    """Return the manifest of a model that accepts head CT."""
    return {
        "name": name,
        "version": "1.0.0",
        "title": "Head CT",
        "intended_use": "Tests.",
        "licence": "Apache-2.0",
        "accepts": {"modalities": ["CT"], "body_parts": ["HEAD"], **accepts},
        "runner": {
            "kind": "torch-export",
            "weights": "model.pt2",
            "weights_sha256": "0" * 64,
            "input": {"kind": "volume"},
        },
        "findings": [
            {
                "key": "hemorrhage",
                "code": {"value": "50960005", "scheme": "SCT", "meaning": "Hemorrhage"},
                "channel": 0,
                "priority": "stat",
            }
        ],
    }


def add_model(
    session: Session,
    at: datetime,
    *,
    name: str = "head-ct",
    stage: str = "production",
    **accepts: Any,
) -> None:
    """Register a model that accepts head CT."""
    session.add(
        ModelRow(
            name=name,
            version="1.0.0",
            stage=stage,
            manifest=manifest(name, **accepts),
            package_path=f"{name}/1.0.0",
            package_sha256="0" * 64,
            registered_at=at,
        )
    )
