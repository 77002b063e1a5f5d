"""A chest radiograph whose results are on their way to real destinations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pydicom
from sqlalchemy import select

from tests.results.outbox_scenes import claim, receive, register
from tests.results.scenes import chest_analysis, chest_manifest, chest_results
from tests.tools import ManualClock
from triage.core.priority import Priority
from triage.core.runs import DeliveryKind
from triage.results.build import store_results
from triage.results.delivery.rounds import deliver_next, queue_notices
from triage.settings import Destination, ReceiverSettings, ResultSettings, Settings, WebSettings
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.outbox import DueDelivery, add_result_objects
from triage.store.prioritising import raise_ai_priority
from triage.store.runs import complete_run, record_findings
from triage.store.tables import DeliveryRow

PUBLIC_URL = "https://triage.hospital.example"


@dataclass
class Outgoing:
    """What waits in the outbox, and the worker that carries it."""

    database: Database
    files: InstanceFiles
    clock: ManualClock
    settings: Settings
    study_uid: str
    study_id: int
    run_id: int
    uids: list[str]

    def deliver(self) -> bool:
        """Carry out the delivery that is due, if one is."""
        return deliver_next(self.database, self.settings, self.files, self.clock, lambda: 0.5)

    def deliver_all(self) -> None:
        """Carry out what is due until nothing is."""
        while self.deliver():
            pass

    def raise_priority(self, priority: Priority = Priority.STAT) -> None:
        """Raise the study's priority as the analysis does, and queue the notices of it."""
        with self.database.transaction() as session:
            raise_ai_priority(
                session,
                self.study_id,
                priority,
                "Pneumothorax, confidence 0.97, chest-xray 2.1.0",
                at=self.clock(),
                run_id=self.run_id,
            )
        queue_notices(self.database, self.settings, self.clock)

    def configure(self, *destinations: Destination, **results: Any) -> None:
        """Change the settings, as after a restart."""
        changes = {"destinations": destinations, "results": ResultSettings(**results)}
        self.settings = self.settings.model_copy(update=changes)

    def rows(self) -> list[DeliveryRow]:
        """Return all deliveries in order."""
        with self.database.reading() as session:
            return list(session.scalars(select(DeliveryRow).order_by(DeliveryRow.id)))

    def states(self) -> list[str]:
        """Return the states of all deliveries in order."""
        return [row.state.value for row in self.rows()]

    def last_error(self) -> str:
        """Return why the first delivery has not arrived."""
        return self.rows()[0].last_error


def outgoing(
    database: Database,
    tmp_path: Path,
    clock: ManualClock,
    *destinations: Destination,
    **results: Any,
) -> Outgoing:
    """Analyse a chest radiograph with a pneumothorax; its SR, heat map and notices wait."""
    files = InstanceFiles(tmp_path / "data")
    content, built = chest_results()
    file = tmp_path / "chest.dcm"
    file.write_bytes(content)
    analysis = chest_analysis(file)
    register(database, chest_manifest(), clock)
    study_uid = receive(database, file, clock)
    run = claim(database, clock)
    with database.transaction() as session:
        record_findings(session, run, analysis.findings, input_sha256=analysis.input_sha256)
        complete_run(session, run, "done", timings_s={}, now=clock())
        add_result_objects(
            session,
            run_id=run.run_id,
            study_id=run.study_id,
            objects=store_results(files, built),
            destinations=destinations,
            now=clock(),
        )
    settings = Settings(
        destinations=destinations,
        results=ResultSettings(**results),
        receiver=ReceiverSettings(ae_title="MYTRIAGE"),
        web=WebSettings(public_url=PUBLIC_URL),
    )
    uids = [str(each.dataset.SOPInstanceUID) for each in built]
    return Outgoing(database, files, clock, settings, study_uid, run.study_id, run.run_id, uids)


def due_object(
    files: InstanceFiles, file: Path, *, role: str = "sr", attempt: int = 1
) -> DueDelivery:
    """Return a claimed delivery of a copy of the DICOM file `file`."""
    header = pydicom.dcmread(file, stop_before_pixels=True)
    study, instance = str(header.StudyInstanceUID), str(header.SOPInstanceUID)
    stored = files.write(study, instance, [file.read_bytes()])
    return DueDelivery(
        delivery_id=1,
        kind=DeliveryKind.RESULT,
        subject=f"object:{instance}",
        destination="archive",
        attempt=attempt,
        study_id=1,
        run_id=1,
        is_object=True,
        role=role,
        path=stored.path,
        sop_class_uid=str(header.SOPClassUID),
        sop_instance_uid=instance,
    )


LATER = timedelta(hours=1)
