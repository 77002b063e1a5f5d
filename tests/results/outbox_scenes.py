"""A study whose analysis has left objects in the outbox."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pydicom
from sqlalchemy import select

from tests.tools import ManualClock, archive_named
from triage.core.analysis import Analysis
from triage.core.manifest import ModelManifest
from triage.core.runs import DeliveryState
from triage.results.build import BuiltObject, store_results
from triage.store.database import Database
from triage.store.files import InstanceFiles, StoredFile
from triage.store.model_tables import ModelRow
from triage.store.outbox import add_result_objects
from triage.store.runs import ClaimedRun, claim_most_urgent, complete_run, record_findings
from triage.store.studies import ReceivedInstance, complete_study, find_study, record_instance
from triage.store.tables import DeliveryRow, StudyEventRow


def register(database: Database, manifest: ModelManifest, clock: ManualClock) -> None:
    """Register a production model."""
    with database.transaction() as session:
        session.add(
            ModelRow(
                name=manifest.name,
                version=manifest.version,
                stage="production",
                manifest=manifest.model_dump(mode="json"),
                package_path="package",
                package_sha256="0" * 64,
                registered_at=clock(),
            )
        )


def receive(database: Database, file: Path, clock: ManualClock) -> str:
    """Index one image, complete its study, and return the Study Instance UID."""
    header = pydicom.dcmread(file, stop_before_pixels=True)
    uid = str(header.StudyInstanceUID)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    received = ReceivedInstance(
        file=StoredFile(str(file), file.stat().st_size, digest),
        sop_instance_uid=str(header.SOPInstanceUID),
        sop_class_uid=str(header.SOPClassUID),
        transfer_syntax_uid=str(header.file_meta.TransferSyntaxUID),
        study_instance_uid=uid,
        series_instance_uid=str(header.SeriesInstanceUID),
        calling_ae_title="SCANNER",
        received_at=clock(),
        patient_id=str(header.PatientID),
        modality=str(header.Modality),
        headers={"Rows": int(header.Rows), "ImageType": ["ORIGINAL", "PRIMARY"]},
    )
    with database.transaction() as session:
        record_instance(session, received)
        study = find_study(session, uid)
        assert study is not None
        complete_study(session, study, "the test says so", clock())
    return uid


def claim(database: Database, clock: ManualClock) -> ClaimedRun:
    """Claim the run that waits."""
    with database.transaction() as session:
        run = claim_most_urgent(session, worker="test", lease=timedelta(minutes=5), now=clock())
    assert run is not None
    return run


def finish(
    database: Database,
    files: InstanceFiles,
    run: ClaimedRun,
    analysis: Analysis,
    built: Sequence[BuiltObject],
    *,
    clock: ManualClock,
    destinations: Sequence[str] = ("archive",),
) -> None:
    """Complete the run and put its objects into the outbox, in one transaction."""
    objects = store_results(files, built)
    with database.transaction() as session:
        digest = analysis.input_sha256
        record_findings(session, run, analysis.findings, input_sha256=digest)
        complete_run(session, run, "done", timings_s={}, now=clock())
        add_result_objects(
            session,
            run_id=run.run_id,
            study_id=run.study_id,
            objects=objects,
            destinations=[archive_named(name) for name in destinations],
            now=clock(),
        )


def states(database: Database) -> list[DeliveryState]:
    """Return the states of all deliveries, in order of their objects."""
    with database.reading() as session:
        return [row.state for row in session.scalars(select(DeliveryRow).order_by(DeliveryRow.id))]


def last_errors(database: Database) -> list[str]:
    """Return why the last attempt of each delivery failed."""
    with database.reading() as session:
        rows = session.scalars(select(DeliveryRow).order_by(DeliveryRow.id))
        return [row.last_error for row in rows]


def history(database: Database, kind: str) -> list[str]:
    """Return the lines of that kind in the history of the only study."""
    with database.reading() as session:
        rows = session.scalars(
            select(StudyEventRow).where(StudyEventRow.kind == kind).order_by(StudyEventRow.id)
        )
        return [row.text for row in rows]
