"""Two versions of a model on the same studies: where they differ, and how."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import scipy
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from triage.core.findings import Finding
from triage.core.runs import RunState
from triage.models.stages import StageError, version_of
from triage.store.model_tables import ModelRow
from triage.store.tables import AnalysisRunRow, FindingRow, SeriesRow, StudyRow

MOST_STUDIES = 1000
_ENDED = (
    RunState.COMPLETED,
    RunState.REFUSED,
    RunState.FAILED,
    RunState.CANCELLED,
    RunState.SUPERSEDED,
)


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class Said(_View):
    """What one version says of one finding in one study; None where it gave no answer."""

    present: bool | None
    confidence: float | None
    in_words: str


class Difference(_View):
    """One finding of one study as both versions have it; `label` is the truth, where known."""

    study_instance_uid: str
    key: str
    a: Said
    b: Said
    label: bool | None = None

    @property
    def is_changed(self) -> bool:
        """Whether they do not say the same."""
        return self.a.present is not self.b.present

    @property
    def shift(self) -> float:
        """By how much the confidence differs; 0 where one gave none."""
        if self.a.confidence is None or self.b.confidence is None:
            return 0.0
        return abs(self.a.confidence - self.b.confidence)


class Agreement(_View):
    """How far both versions agree on one finding, over the studies that both answered.

    `kappa` is Cohen's (Educ. Psychol. Meas. 20:37, 1960), None where both always say the same
    one thing. `mcnemar_p` is the exact test of McNemar (Psychometrika 12:153, 1947) on the
    studies with a label: the chance of so uneven a difference if both were right equally often.
    """

    key: str
    studies: int
    both_present: int
    only_a: int
    only_b: int
    both_absent: int
    agreement: float | None
    kappa: float | None
    labelled: int = 0
    only_a_right: int = 0
    only_b_right: int = 0
    mcnemar_p: float | None = None

    def said(self, version_a: str, version_b: str) -> str:
        """Return the same in a sentence."""
        if self.agreement is None:
            return f"{self.key}: no study that both answered"
        kappa = "" if self.kappa is None else f", kappa {self.kappa:.2f}"
        text = (
            f"{self.key}: the same in {self.agreement:.1%} of {self.studies} studies{kappa}; "
            f"only {version_a} {self.only_a}, only {version_b} {self.only_b}"
        )
        if self.mcnemar_p is None:
            return text
        return (
            f"{text}; of {self.labelled} with a label only {version_a} right {self.only_a_right}, "
            f"only {version_b} right {self.only_b_right}, McNemar p {self.mcnemar_p:.3f}"
        )


class Comparison(_View):
    """Both versions on the same studies; the studies where they differ come first."""

    name: str
    version_a: str
    version_b: str
    studies: int
    agreements: tuple[Agreement, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a version said about a study: its findings by key, or why there are none."""

    findings: Mapping[str, Finding]
    reason: str = ""

    def said(self, key: str) -> Said:
        """Return what it says of one finding."""
        finding = self.findings.get(key)
        if finding is None:
            return Said(
                present=None, confidence=None, in_words=self.reason or "does not look for it"
            )
        return Said(
            present=finding.present, confidence=finding.confidence, in_words=finding.in_words()
        )


Answers = Mapping[str, Answer]
"""What a version said, by Study Instance UID."""


def recorded_comparison(
    session: Session,
    name: str,
    version_a: str,
    version_b: str,
    *,
    most: int = 200,
    since: datetime | None = None,
    labels: Mapping[str, Mapping[str, bool]] | None = None,
) -> Comparison:
    """Compare two versions on the newest studies that both have been asked about.

    It is how a shadow is held against production: both ran on the same images.

    Raises:
        StageError: there is no such version.
    """
    a, b = both_versions(session, name, version_a, version_b)
    shared = _studies_of_both(session, a, b, most, since)
    answers_a, answers_b = (recorded_answers(session, m, shared) for m in (a, b))
    return compare_answers(name, (version_a, answers_a), (version_b, answers_b), labels)


def both_versions(
    session: Session, name: str, version_a: str, version_b: str
) -> tuple[ModelRow, ModelRow]:
    """Return the rows of two versions that differ.

    Raises:
        StageError: there is no such version, or they are the same.
    """
    if version_a == version_b:
        raise StageError("version_b", "give two versions that differ")
    return version_of(session, name, version_a), version_of(session, name, version_b)


def _studies_of_both(
    session: Session, a: ModelRow, b: ModelRow, most: int, since: datetime | None
) -> list[str]:
    """Return the studies whose very same images both versions have been asked about."""
    other = aliased(AnalysisRunRow)
    statement = (
        select(StudyRow.study_instance_uid)
        .join(AnalysisRunRow, AnalysisRunRow.study_id == StudyRow.id)
        .join(
            other,
            (other.study_id == StudyRow.id)
            & (other.instances_sha256 == AnalysisRunRow.instances_sha256),
        )
        .where(
            AnalysisRunRow.model_id == a.id,
            other.model_id == b.id,
            AnalysisRunRow.state.in_(_ENDED),
            other.state.in_(_ENDED),
        )
        .group_by(StudyRow.id, StudyRow.study_instance_uid)
        .order_by(StudyRow.id.desc())
        .limit(min(most, MOST_STUDIES))
    )
    if since is not None:
        statement = statement.where(StudyRow.first_instance_at >= since)
    return list(session.scalars(statement))


def recorded_answers(
    session: Session, model: ModelRow, studies: Sequence[str]
) -> dict[str, Answer]:
    """Return the newest recorded answer of a version to each of the studies, where there is one."""
    runs = session.execute(
        select(AnalysisRunRow, StudyRow.study_instance_uid)
        .join(StudyRow, StudyRow.id == AnalysisRunRow.study_id)
        .where(
            AnalysisRunRow.model_id == model.id,
            StudyRow.study_instance_uid.in_(studies),
            AnalysisRunRow.state.in_(_ENDED),
        )
        .order_by(AnalysisRunRow.generation, AnalysisRunRow.id)
    ).all()
    newest = {uid: run for run, uid in runs}
    findings = _findings(session, [run.id for run in newest.values()])
    return {
        uid: Answer(findings[run.id], f"{run.state.value}: {run.reason}" if run.reason else "")
        for uid, run in newest.items()
        if findings[run.id] or run.state is not RunState.SUPERSEDED
    }


def _findings(session: Session, run_ids: Iterable[int]) -> dict[int, dict[str, Finding]]:
    found: dict[int, dict[str, Finding]] = defaultdict(dict)
    for row in session.scalars(
        select(FindingRow).where(FindingRow.run_id.in_(list(run_ids))).order_by(FindingRow.id)
    ):
        found[row.run_id][row.key] = Finding.model_validate(row.content)
    return found


def newest_studies(session: Session, most: int, since: datetime | None) -> list[str]:
    """Return the newest studies that images are held of, priors left out."""
    statement = (
        select(StudyRow.study_instance_uid)
        .where(
            StudyRow.is_prior.is_(False),
            StudyRow.purged_at.is_(None),
            select(SeriesRow.id).where(SeriesRow.study_id == StudyRow.id).exists(),
        )
        .order_by(StudyRow.id.desc())
        .limit(min(most, MOST_STUDIES))
    )
    if since is not None:
        statement = statement.where(StudyRow.first_instance_at >= since)
    return list(session.scalars(statement))


def compare_answers(
    name: str,
    a: tuple[str, Answers],
    b: tuple[str, Answers],
    labels: Mapping[str, Mapping[str, bool]] | None = None,
) -> Comparison:
    """Compare what two versions said about the studies that both were asked about."""
    (version_a, answers_a), (version_b, answers_b) = a, b
    studies = [uid for uid in answers_a if uid in answers_b]
    keys = _keys(studies, answers_a, answers_b)
    truth = labels or {}
    differences = [
        Difference(
            study_instance_uid=uid,
            key=key,
            a=answers_a[uid].said(key),
            b=answers_b[uid].said(key),
            label=truth.get(uid, {}).get(key),
        )
        for uid in studies
        for key in keys
    ]
    return Comparison(
        name=name,
        version_a=version_a,
        version_b=version_b,
        studies=len(studies),
        agreements=tuple(agreement([d for d in differences if d.key == key], key) for key in keys),
        differences=tuple(sorted(differences, key=lambda d: (not d.is_changed, -d.shift))),
    )


def _keys(studies: Iterable[str], answers_a: Answers, answers_b: Answers) -> list[str]:
    keys: dict[str, None] = {}
    for uid in studies:
        for answer in (answers_a[uid], answers_b[uid]):
            keys.update(dict.fromkeys(answer.findings))
    return list(keys)


def agreement(differences: Sequence[Difference], key: str) -> Agreement:
    """Return how far both versions agree on one finding."""
    answered = [d for d in differences if d.a.present is not None and d.b.present is not None]
    counts: dict[tuple[bool | None, bool | None], int] = defaultdict(int)
    for one in answered:
        counts[one.a.present, one.b.present] += 1
    both, only_a = counts[True, True], counts[True, False]
    only_b, neither = counts[False, True], counts[False, False]
    labelled = [d for d in answered if d.label is not None]
    a_right = sum(d.is_changed and d.a.present == d.label for d in labelled)
    b_right = sum(d.is_changed and d.b.present == d.label for d in labelled)
    return Agreement(
        key=key,
        studies=len(answered),
        both_present=both,
        only_a=only_a,
        only_b=only_b,
        both_absent=neither,
        agreement=(both + neither) / len(answered) if answered else None,
        kappa=cohen_kappa(both, only_a, only_b, neither),
        labelled=len(labelled),
        only_a_right=a_right,
        only_b_right=b_right,
        mcnemar_p=mcnemar_p(a_right, b_right) if labelled else None,
    )


def cohen_kappa(both: int, only_a: int, only_b: int, neither: int) -> float | None:
    """Return Cohen's kappa of a table of two raters; None where chance alone explains all.

    >>> cohen_kappa(20, 5, 10, 15)
    0.4
    """
    total = both + only_a + only_b + neither
    if not total:
        return None
    seen = (both + neither) / total
    expected = (
        (both + only_a) * (both + only_b) + (neither + only_a) * (neither + only_b)
    ) / total**2
    if math.isclose(expected, 1.0):
        return None
    return round((seen - expected) / (1 - expected), 6)


def mcnemar_p(only_a_right: int, only_b_right: int) -> float:
    """Return the two-sided exact p of McNemar's test; 1 where no study tells them apart.

    >>> round(mcnemar_p(1, 9), 4)
    0.0215
    """
    discordant = only_a_right + only_b_right
    return float(scipy.stats.binomtest(only_a_right, discordant, 0.5).pvalue) if discordant else 1.0
