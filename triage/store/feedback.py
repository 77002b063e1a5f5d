"""What radiologists say of findings, and what that says of the model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from triage.core.agreement import (
    Agreement,
    Judged,
    Judgement,
    Verdict,
    agreement_of,
    judgement_of,
)
from triage.core.errors import TriageError
from triage.store.history import note
from triage.store.notifications import take_back_of_finding
from triage.store.sign_offs import lock_open_answers
from triage.store.tables import AnalysisRunRow, FeedbackRow, FindingRow
from triage.store.watch import Scores, Window

LONGEST_REASON = 1000


class UnknownFindingError(TriageError):
    """There is no finding of this number."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What one person said last of a finding. `present` is what the finding said to them."""

    finding_id: int
    who: str
    verdict: Verdict
    reason: str
    at: datetime
    present: bool


def record_feedback(
    session: Session,
    finding_id: int,
    *,
    who: str,
    verdict: Verdict,
    reason: str,
    now: datetime,
    missed_finding_id: int | None = None,
) -> Feedback:
    """Keep what `who` says of a finding; it takes the place of what they said of it before.

    It stays when the run is superseded or its model retired: it is about what was said, not about
    what counts today. `missed_finding_id` is the report of a missed finding that says it.

    Raises:
        UnknownFindingError: there is no such finding.
        AnswersClosedError: the study is signed off.
    """
    finding, run = _locked(session, finding_id)
    row = _said_by(session, finding_id, who)
    if row is None:
        row = FeedbackRow(finding_id=finding_id, who=who)
        session.add(row)
    row.verdict, row.reason = verdict.value, reason.strip()[:LONGEST_REASON]
    row.present, row.at, row.missed_finding_id = finding.present, now, missed_finding_id
    statement = finding.key if finding.present else f"no {finding.key}"
    text = f"{run.model.name} {run.model.version}, {statement}: {who} says {verdict.value}"
    note(session, run.study_id, "feedback", text, at=now, run_id=run.id)
    if verdict is Verdict.DISAGREE and finding.present:
        take_back_of_finding(session, run, finding.key, f"{who} disagrees", now=now)
    return _feedback(row)


def take_back_feedback(session: Session, finding_id: int, *, who: str, now: datetime) -> bool:
    """Forget what `who` said of a finding; return whether they had said anything.

    Raises:
        UnknownFindingError: there is no such finding.
        AnswersClosedError: the study is signed off.
    """
    finding, run = _locked(session, finding_id)
    row = _said_by(session, finding_id, who)
    if row is None:
        return False
    session.delete(row)
    text = f"{run.model.name} {run.model.version}, {finding.key}: {who} takes the answer back"
    note(session, run.study_id, "feedback", text, at=now, run_id=run.id)
    return True


def _locked(session: Session, finding_id: int) -> tuple[FindingRow, AnalysisRunRow]:
    """Return the finding, locked, and its run; the study is locked before it, as everywhere."""
    found = session.get(FindingRow, finding_id)
    if found is None:
        raise UnknownFindingError(f"there is no finding {finding_id}; open the study anew")
    run = session.get_one(AnalysisRunRow, found.run_id)
    lock_open_answers(session, run.study_id)
    finding = session.scalars(
        select(FindingRow)
        .where(FindingRow.id == finding_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).first()
    if finding is None:  # another attempt of the run has taken its place meanwhile
        raise UnknownFindingError(f"there is no finding {finding_id}; open the study anew")
    return finding, run


def _said_by(session: Session, finding_id: int, who: str) -> FeedbackRow | None:
    return session.scalars(
        select(FeedbackRow).where(FeedbackRow.finding_id == finding_id, FeedbackRow.who == who)
    ).first()


def forget_reasons_given(session: Session, study_id: int) -> None:
    """Delete the free words of the feedback on a study whose patient is forgotten."""
    findings = (
        select(FindingRow.id)
        .join(AnalysisRunRow, AnalysisRunRow.id == FindingRow.run_id)
        .where(AnalysisRunRow.study_id == study_id)
    )
    rows = update(FeedbackRow).where(FeedbackRow.finding_id.in_(findings))
    session.execute(rows.values(reason=""))


def feedback_on(session: Session, finding_ids: Iterable[int]) -> dict[int, tuple[Feedback, ...]]:
    """Return what was said of each of the findings, in the order in which it was said."""
    rows = session.scalars(
        select(FeedbackRow)
        .where(FeedbackRow.finding_id.in_(list(finding_ids)))
        .order_by(FeedbackRow.at, FeedbackRow.id)
    )
    found: dict[int, tuple[Feedback, ...]] = {}
    for row in rows:
        found[row.finding_id] = (*found.get(row.finding_id, ()), _feedback(row))
    return found


def _feedback(row: FeedbackRow) -> Feedback:
    return Feedback(
        finding_id=row.finding_id,
        who=row.who,
        verdict=Verdict(row.verdict),
        reason=row.reason,
        at=row.at,
        present=row.present,
    )


def agreement_by_finding(
    session: Session, window: Window, scores: dict[str, Scores], *, minimum: int
) -> dict[str, Agreement]:
    """Return how far those who gave feedback in the window agree, for each finding with any.

    `scores` are the model's own of the same window, which say how much was not judged.
    """
    return {
        key: agreement_of(
            _counted(statements),
            flagged=scores.get(key, Scores()).positives,
            not_flagged=scores.get(key, Scores()).runs - scores.get(key, Scores()).positives,
            minimum=minimum,
        )
        for key, statements in judged_statements(session, window).items()
    }


def agreement_by_week(session: Session, window: Window) -> dict[str, dict[str, Judged]]:
    """Return the same counts for each week with feedback, named by its Monday."""
    by_week: dict[str, dict[str, list[JudgedStatement]]] = defaultdict(lambda: defaultdict(list))
    for key, statements in judged_statements(session, window).items():
        for one in statements:
            monday = one.at - timedelta(days=one.at.weekday())
            by_week[key][f"{monday:%Y-%m-%d}"].append(one)
    return {
        key: {week: _counted(weeks[week]) for week in sorted(weeks)}
        for key, weeks in by_week.items()
    }


@dataclass(frozen=True, slots=True)
class JudgedStatement:
    """A statement that was judged: what it said, what that comes to, and when it was said first."""

    present: bool
    judgement: Judgement
    at: datetime


def judged_statements(session: Session, window: Window) -> dict[str, list[JudgedStatement]]:
    """Return the statements with feedback of the window, by finding.

    Where another attempt of a run said something else of the same finding, feedback on both are
    two statements.
    """
    # The model is looked at here and not in SQL: SQLite would go through all runs of the model
    # instead of the little feedback.
    rows = session.execute(
        select(
            FindingRow.id,
            FindingRow.key,
            FeedbackRow.present,
            FeedbackRow.verdict,
            FeedbackRow.at,
            AnalysisRunRow.model_id,
            AnalysisRunRow.stage,
        )
        .join(FindingRow, FindingRow.id == FeedbackRow.finding_id)
        .join(AnalysisRunRow, AnalysisRunRow.id == FindingRow.run_id)
        .where(FeedbackRow.at >= window.since, FeedbackRow.at < window.until)
        .order_by(FeedbackRow.at)
    )
    verdicts: dict[tuple[str, int, bool], list[tuple[Verdict, datetime]]] = defaultdict(list)
    for finding_id, key, present, verdict, at, model_id, stage in rows:
        if model_id == window.model_id and window.stage in (None, stage):
            verdicts[key, finding_id, present].append((Verdict(verdict), at))
    found: dict[str, list[JudgedStatement]] = defaultdict(list)
    for (key, _, present), said in verdicts.items():
        judgement = judgement_of(verdict for verdict, _ in said)
        found[key].append(JudgedStatement(present, judgement, said[0][1]))
    return dict(found)


def _counted(statements: Sequence[JudgedStatement]) -> Judged:
    counts = Counter((one.present, one.judgement) for one in statements)
    return Judged(
        true_positives=counts[True, Judgement.RIGHT],
        false_positives=counts[True, Judgement.WRONG],
        true_negatives=counts[False, Judgement.RIGHT],
        false_negatives=counts[False, Judgement.WRONG],
        undecided=counts[True, Judgement.UNDECIDED] + counts[False, Judgement.UNDECIDED],
    )
