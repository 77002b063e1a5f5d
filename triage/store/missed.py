"""What radiologists see and no model said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from triage.core.agreement import Verdict
from triage.core.codes import Code
from triage.core.errors import TriageError
from triage.core.missed import MissedFinding
from triage.core.runs import RunState
from triage.core.stages import COUNTING_STAGES, RUNNING_STAGES
from triage.store.answer_tables import MissedFindingRow
from triage.store.feedback import record_feedback
from triage.store.history import note
from triage.store.model_tables import ModelRow
from triage.store.sign_offs import lock_open_answers
from triage.store.tables import AnalysisRunRow, FindingRow, InstanceRow, SeriesRow, StudyRow


class MissedFindingError(TriageError):
    """The report cannot be kept; `field` is what is wrong with it."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class UnknownReportError(TriageError):
    """The person has reported no such missed finding on the study."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A report of a missed finding: its number, who made it and when, and what it says."""

    report_id: int
    who: str
    at: datetime
    finding: MissedFinding


@dataclass(frozen=True, slots=True)
class KnownCode:
    """A finding that registered models look for, and their names."""

    code: Code
    models: tuple[str, ...]


def known_codes(session: Session) -> list[KnownCode]:
    """Return what the models that are not retired look for, by the codes' meanings."""
    rows = session.scalars(select(ModelRow).where(ModelRow.stage.in_(RUNNING_STAGES)))
    found: dict[tuple[str, str], tuple[Code, set[str]]] = {}
    for row in rows:
        for spec in row.manifest.get("findings", ()):
            code = Code.model_validate(spec["code"])
            found.setdefault((code.scheme, code.value), (code, set()))[1].add(row.name)
    known = [KnownCode(code, tuple(sorted(names))) for code, names in found.values()]
    return sorted(known, key=lambda one: one.code.meaning.casefold())


def report_missed(
    session: Session, study: StudyRow, finding: MissedFinding, *, who: str, now: datetime
) -> Reported:
    """Keep that `who` sees something that no model said.

    Where a model said of this study that there is none, that statement gets the person's
    disagreement, by which it counts as a false negative of the model.

    Raises:
        AnswersClosedError: the study is signed off.
        MissedFindingError: the image is none of the study's.
    """
    lock_open_answers(session, study.id)
    _check_image(session, study, finding)
    row = MissedFindingRow(
        study_id=study.id,
        who=who,
        at=now,
        code=finding.code.model_dump() if finding.code else None,
        words=finding.words,
        laterality=finding.laterality,
        sop_instance_uid=finding.sop_instance_uid,
        frame=finding.frame,
        mark=list(finding.mark) if finding.mark else None,
    )
    session.add(row)
    session.flush()
    note(session, study.id, "missed", f"{who} reports {finding.in_short()}", at=now)
    for finding_id in _denials(session, study, finding.code):
        record_feedback(
            session,
            finding_id,
            who=who,
            verdict=Verdict.DISAGREE,
            reason="",
            now=now,
            missed_finding_id=row.id,
        )
    return _reported(row)


def take_back_missed(
    session: Session, study: StudyRow, report_id: int, *, who: str, now: datetime
) -> None:
    """Remove a report that `who` made, and the disagreements that came with it.

    Raises:
        AnswersClosedError: the study is signed off.
        UnknownReportError: they have made no such report.
    """
    lock_open_answers(session, study.id)
    row = session.get(MissedFindingRow, report_id)
    if row is None or row.study_id != study.id or row.who != who:
        raise UnknownReportError("you have reported no such finding on this study")
    text = f"{who} takes the report of {_reported(row).finding.in_short()} back"
    note(session, study.id, "missed", text, at=now)
    session.delete(row)


def missed_of(session: Session, study_id: int) -> Sequence[Reported]:
    """Return what was reported as missed on a study, oldest first."""
    rows = session.scalars(
        select(MissedFindingRow)
        .where(MissedFindingRow.study_id == study_id)
        .order_by(MissedFindingRow.id)
    )
    return [_reported(row) for row in rows]


def forget_words(session: Session, study_id: int) -> None:
    """Delete the free words of the reports on a study whose patient is forgotten."""
    session.execute(
        update(MissedFindingRow).where(MissedFindingRow.study_id == study_id).values(words="")
    )


def _check_image(session: Session, study: StudyRow, finding: MissedFinding) -> None:
    if not finding.sop_instance_uid:
        return
    headers = session.scalars(
        select(InstanceRow.headers)
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .where(
            SeriesRow.study_id == study.id,
            InstanceRow.sop_instance_uid == finding.sop_instance_uid,
        )
    ).first()
    if headers is None:
        raise MissedFindingError("the study has no such image", "sop_instance_uid")
    frames = int(headers.get("NumberOfFrames") or 1)
    if finding.frame is not None and finding.frame > frames:
        raise MissedFindingError(f"the image has {frames} frames", "frame")


def _denials(session: Session, study: StudyRow, code: Code | None) -> list[int]:
    """Return the findings by which models said that there is none of it."""
    if code is None:
        return []
    rows = session.scalars(
        select(FindingRow)
        .join(AnalysisRunRow, AnalysisRunRow.id == FindingRow.run_id)
        .where(
            AnalysisRunRow.study_id == study.id,
            AnalysisRunRow.generation == study.generation,
            AnalysisRunRow.state == RunState.COMPLETED,
            AnalysisRunRow.stage.in_(COUNTING_STAGES),
            FindingRow.present.is_(False),
        )
        .order_by(FindingRow.id)
    )
    said = [(row.id, row.content.get("code", {})) for row in rows]
    return [
        finding_id
        for finding_id, one in said
        if (one.get("value"), one.get("scheme")) == (code.value, code.scheme)
    ]


def _reported(row: MissedFindingRow) -> Reported:
    return Reported(
        report_id=row.id,
        who=row.who,
        at=row.at,
        finding=MissedFinding(
            code=Code.model_validate(row.code) if row.code else None,
            words=row.words or ("" if row.code else "words deleted with the patient's data"),
            laterality=row.laterality,
            sop_instance_uid=row.sop_instance_uid,
            frame=row.frame,
            mark=tuple(row.mark) if row.mark else None,
        ),
    )
