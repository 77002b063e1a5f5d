"""Studies with a finding that people are told of, as rows, and the worker that tells them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from tests.store.rows import manifest
from tests.tools import ManualClock
from triage.core.codes import MILLILITRE, VOLUME, Code
from triage.core.findings import Finding, Measurement
from triage.core.priority import Priority
from triage.core.runs import RunState, StudyState
from triage.core.stages import Stage
from triage.settings.notifications import NotificationSettings
from triage.store.database import Database
from triage.store.model_tables import ModelRow
from triage.store.notification_rounds import notify_round
from triage.store.notification_tables import NotificationMessageRow, NotificationRow
from triage.store.notifications import raise_notifications
from triage.store.prioritising import raise_ai_priority
from triage.store.tables import AnalysisRunRow, FindingRow, PatientRow, SeriesRow, StudyRow

HEMORRHAGE = Code(value="50960005", scheme="SCT", meaning="Hemorrhage")
NODULE = Code(value="427359005", scheme="SCT", meaning="Solitary nodule of lung")


def found(priority: Priority = Priority.STAT, code: Code = HEMORRHAGE, **changes: Any) -> Finding:
    """Return a present finding that asks for a priority."""
    values: dict[str, Any] = {
        "key": "hemorrhage" if code is HEMORRHAGE else "nodule",
        "code": code,
        "present": True,
        "confidence": 0.97,
        "measurements": (Measurement(concept=VOLUME, value=12.3, unit=MILLILITRE),),
        "priority": priority,
    }
    return Finding(**values | changes)


def settings_of(**changes: Any) -> NotificationSettings:
    """Return settings in which ada is told by browser, then grace, then alan by e-mail."""
    steps = [
        {"to": ["ada"], "escalate_after_s": 600},
        {"to": ["grace"], "escalate_after_s": 900},
        {"to": ["alan"], "channels": ["mail"], "escalate_after_s": 1200},
    ]
    values: dict[str, Any] = {
        "recipients": [
            {"name": "ada", "email": "ada@hospital.example"},
            {"name": "grace", "email": "grace@hospital.example"},
            {"name": "alan", "email": "alan@hospital.example"},
        ],
        "rules": [{"name": "critical", "priorities": ["stat", "high"], "steps": steps}],
    }
    return NotificationSettings.model_validate(values | changes)


@dataclass
class Ward:
    """A database with models and studies, and a worker that tells people."""

    database: Database
    clock: ManualClock
    settings: NotificationSettings = field(default_factory=settings_of)
    studies: int = 0
    models: dict[str, int] = field(default_factory=dict)

    def model(self, name: str = "head-ct") -> int:
        """Return the id of a model, which is registered the first time."""
        if name not in self.models:
            with self.database.transaction() as session:
                row = ModelRow(
                    name=name,
                    version="1.0.0",
                    stage=Stage.PRODUCTION,
                    manifest=manifest(name),
                    package_path=name,
                    package_sha256="0" * 64,
                    registered_at=self.clock(),
                )
                session.add(row)
                session.flush()
                self.models[name] = row.id
        return self.models[name]

    def study(self, **changes: Any) -> int:
        """Return the id of a new study, complete and unread."""
        self.studies += 1
        with self.database.transaction() as session:
            patient = PatientRow(patient_id=f"P{self.studies}", name="Muster^Anna")
            session.add(patient)
            session.flush()
            values: dict[str, Any] = {
                "study_instance_uid": f"1.2.{self.studies}",
                "patient_id": patient.id,
                "description": "CT head",
                "modalities": "CT",
                "calling_ae_title": "CT1",
                "state": StudyState.COMPLETE,
                "first_instance_at": self.clock(),
                "last_instance_at": self.clock(),
            }
            row = StudyRow(**values | changes)
            session.add(row)
            session.flush()
            series = SeriesRow(study_id=row.id, series_instance_uid=f"1.2.{self.studies}.1")
            session.add(series)
            return row.id

    def run(
        self,
        study_id: int,
        *findings: Finding,
        model: str = "head-ct",
        stage: Stage = Stage.PRODUCTION,
    ) -> int:
        """Let a run of the study be over with these findings, as the flow does; return its id."""
        model_id = self.model(model)
        with self.database.transaction() as session:
            series = session.scalars(select(SeriesRow).where(SeriesRow.study_id == study_id)).one()
            newest = session.scalars(
                select(AnalysisRunRow.generation)
                .where(AnalysisRunRow.study_id == study_id)
                .order_by(AnalysisRunRow.generation.desc())
            ).first()
            row = AnalysisRunRow(
                study_id=study_id,
                model_id=model_id,
                series_id=series.id,
                generation=(newest or 0) + 1,
                state=RunState.COMPLETED,
                stage=stage,
                available_at=self.clock(),
                created_at=self.clock(),
                finished_at=self.clock(),
            )
            session.add(row)
            session.flush()
            for finding in findings:
                content = finding.model_dump(mode="json")
                session.add(
                    FindingRow(
                        run_id=row.id,
                        key=finding.key,
                        present=finding.present,
                        confidence=finding.confidence,
                        content=content,
                    )
                )
            session.flush()
            for finding in findings:
                if stage.counts:
                    raise_ai_priority(
                        session, study_id, finding.priority, "found", at=self.clock(), run_id=row.id
                    )
            if stage.counts:
                raise_notifications(session, row.id, findings, self.settings, now=self.clock())
            return row.id

    def flag(self, priority: Priority = Priority.STAT, **study: Any) -> int:
        """Flag a new study and return the id of its notification."""
        self.run(self.study(**study), found(priority))
        return self.all()[-1].id

    def round(self) -> int:
        """Let the worker decide on what is due."""
        return notify_round(self.database, self.settings, self.clock, holder="tests")

    def later(self, seconds: float) -> None:
        """Let time pass, with the worker at work at the end of it."""
        self.clock.advance(seconds)
        while self.round():
            pass

    def all(self) -> list[NotificationRow]:
        """Return all notifications."""
        with self.database.reading() as session:
            return list(session.scalars(select(NotificationRow).order_by(NotificationRow.id)))

    def one(self, number: int) -> NotificationRow:
        """Return one notification."""
        with self.database.reading() as session:
            return session.get_one(NotificationRow, number)

    def messages(self, number: int) -> list[NotificationMessageRow]:
        """Return its messages."""
        with self.database.reading() as session:
            return list(
                session.scalars(
                    select(NotificationMessageRow)
                    .where(NotificationMessageRow.notification_id == number)
                    .order_by(NotificationMessageRow.id)
                )
            )

    def told(self, number: int) -> list[tuple[str, str, str]]:
        """Return who is told over which channel, and where the message stands."""
        return [(m.recipient, m.channel, m.state.value) for m in self.messages(number)]

    def events(self, number: int) -> list[tuple[str, str]]:
        """Return the time line as kinds and words."""
        with self.database.reading() as session:
            row = session.get_one(NotificationRow, number)
            return [(event.kind, event.text) for event in row.events]

    def read(self, study_id: int) -> None:
        """Let the study be read."""
        with self.database.transaction() as session:
            session.get_one(StudyRow, study_id).read_at = self.clock()


LEASE = timedelta(minutes=2)
