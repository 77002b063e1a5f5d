"""What another policy would have done to the last days: who would have waited less, and more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import fmean, median

from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, lazyload

from triage.core.findings import Finding
from triage.core.manifest import PriorityName
from triage.core.places import Place, place_of
from triage.core.policy import NOTHING_ASKED, ai_priority
from triage.core.priority import Priority
from triage.core.priority_policy import PriorityPolicy
from triage.core.replay import Waiting, replay
from triage.core.stages import COUNTING_STAGES
from triage.store.policies import policy_in_force
from triage.store.prioritising import facts_of
from triage.store.standing_findings import standing_findings
from triage.store.tables import AnalysisRunRow, FindingRow, StudyRow

MOST_STUDIES = 20_000
DAYS = 7
_MOST_AFFECTED = 20
_AT_ONCE = 500


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class ClassChange(_View):
    """How many studies would have another class."""

    before: PriorityName
    after: PriorityName
    studies: int


class WaitsOfClass(_View):
    """How long the studies of a class (by the policy that holds) wait, in minutes.

    `past_target` counts those that wait longer than their target.
    """

    priority: PriorityName
    studies: int
    mean_before: float
    mean_after: float
    median_before: float
    median_after: float
    past_target_before: int
    past_target_after: int


class AffectedStudy(_View):
    """A study whose wait would be much different; `in_words` is its place by the other policy."""

    study_instance_uid: str
    modalities: str
    before: PriorityName
    after: PriorityName
    points_before: int
    points_after: int
    wait_before: float
    wait_after: float
    in_words: str


class PolicyPreview(_View):
    """What would have been, had the other policy held; waits are in minutes.

    Both policies are replayed with the readings that there were: at each, the first study of the
    list is taken to be read. A study that is not read waits until `until`.

    Attributes:
        studies: how many were on the list at any time between `since` and `until`.
        readings: how many were read in that time.
        is_truncated: whether there were more, of which only the newest were looked at.
        higher, lower: how many would have a more, or a less, urgent class.
        forward, back: of the same class, how many would be given more, or fewer, points.
        shorter, longer: how many would wait less, or more, by a minute at least.
        mean_shorter, mean_longer: by how many minutes.
        most_affected: those whose wait differs most, the longer first.
    """

    since: datetime
    until: datetime
    studies: int
    readings: int
    is_truncated: bool
    higher: int
    lower: int
    forward: int
    back: int
    classes: tuple[ClassChange, ...]
    shorter: int
    longer: int
    mean_shorter: float
    mean_longer: float
    waits: tuple[WaitsOfClass, ...]
    most_affected: tuple[AffectedStudy, ...]


@dataclass(frozen=True, slots=True)
class _Studied:
    study: StudyRow
    found: Sequence[tuple[str, Finding]]
    flagged_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Compared:
    study: StudyRow
    before: Place
    after: Place
    wait_before: float
    wait_after: float

    @property
    def longer_by(self) -> float:
        return self.wait_after - self.wait_before


def preview_policy(
    session: Session, policy: PriorityPolicy, now: datetime, *, days: int = DAYS
) -> PolicyPreview:
    """Return what `policy` would have done in the last days, compared with the one that holds.

    AI counts in both, whatever the switch says. A person's raise and the order are taken as they
    are now; a flag counts from the end of the first run with a present finding.
    """
    since = now - timedelta(days=days)
    studies = _studies(session, since, now)
    is_truncated = len(studies) > MOST_STUDIES
    studied = list(_with_findings(session, studies[:MOST_STUDIES]))
    compared = _compare(studied, policy_in_force(session).policy, policy, since, now)
    shorter = [-one.longer_by for one in compared if one.longer_by <= -1]
    longer = [one.longer_by for one in compared if one.longer_by >= 1]
    same = [one for one in compared if one.before.priority is one.after.priority]
    return PolicyPreview(
        since=since,
        until=now,
        studies=len(studied),
        readings=len(_readings(studied, since)),
        is_truncated=is_truncated,
        higher=sum(one.after.priority > one.before.priority for one in compared),
        lower=sum(one.after.priority < one.before.priority for one in compared),
        forward=sum(one.after.points > one.before.points for one in same),
        back=sum(one.after.points < one.before.points for one in same),
        classes=_class_changes(compared),
        shorter=len(shorter),
        longer=len(longer),
        mean_shorter=fmean(shorter) if shorter else 0.0,
        mean_longer=fmean(longer) if longer else 0.0,
        waits=_waits(compared),
        most_affected=_most_affected(compared),
    )


def _studies(session: Session, since: datetime, now: datetime) -> Sequence[StudyRow]:
    return session.scalars(
        select(StudyRow)
        .where(
            StudyRow.is_prior.is_(False),
            StudyRow.first_instance_at <= now,
            or_(StudyRow.read_at.is_(None), StudyRow.read_at >= since),
        )
        .order_by(StudyRow.id.desc())
        .limit(MOST_STUDIES + 1)
        .options(lazyload(StudyRow.patient))
    ).all()


def _with_findings(session: Session, studies: Sequence[StudyRow]) -> Iterable[_Studied]:
    for start in range(0, len(studies), _AT_ONCE):
        some = studies[start : start + _AT_ONCE]
        ids = [study.id for study in some]
        found = standing_findings(session, ids)
        first = session.execute(
            select(AnalysisRunRow.study_id, func.min(AnalysisRunRow.finished_at))
            .join(FindingRow, FindingRow.run_id == AnalysisRunRow.id)
            .where(
                AnalysisRunRow.study_id.in_(ids),
                AnalysisRunRow.stage.in_(COUNTING_STAGES),
                FindingRow.present.is_(True),
            )
            .group_by(AnalysisRunRow.study_id)
        )
        at = {row[0]: row[1] for row in first.all()}
        for study in some:
            yield _Studied(study, found.get(study.id, ()), at.get(study.id))


def _compare(
    studied: Sequence[_Studied],
    before: PriorityPolicy,
    after: PriorityPolicy,
    since: datetime,
    now: datetime,
) -> list[_Compared]:
    places = [{one.study.id: _places(one, policy) for one in studied} for policy in (before, after)]
    readings = _readings(studied, since)
    read = [
        replay([_waiting(one, of_policy[one.study.id]) for one in studied], readings)
        for of_policy in places
    ]

    def wait(study: StudyRow, readings: Mapping[int, datetime]) -> float:
        ended = readings.get(study.id, now)
        return (ended - study.first_instance_at).total_seconds() / 60

    return [
        _Compared(
            one.study,
            places[0][one.study.id][1],
            places[1][one.study.id][1],
            wait(one.study, read[0]),
            wait(one.study, read[1]),
        )
        for one in studied
    ]


def _readings(studied: Sequence[_Studied], since: datetime) -> list[datetime]:
    at = [one.study.read_at for one in studied if one.study.read_at is not None]
    return [moment for moment in at if moment >= since]


def _places(one: _Studied, policy: PriorityPolicy) -> tuple[Place, Place]:
    """Return where the study stands by a policy, before the AI has spoken and after it."""
    known = facts_of(one.study)
    # By the wait nobody rises here: the replay moves a study at its flag alone.
    without = place_of(replace(known, ai=NOTHING_ASKED), policy, now=known.arrived_at)
    asked = ai_priority(one.found, policy)
    if asked == NOTHING_ASKED:
        return without, without
    return without, place_of(replace(known, ai=asked), policy, now=known.arrived_at)


def _waiting(one: _Studied, places: tuple[Place, Place]) -> Waiting:
    first, flagged = places
    is_flagged = one.flagged_at is not None and flagged.key != first.key
    return Waiting(
        one.study.id,
        one.study.first_instance_at,
        first.key,
        one.flagged_at if is_flagged else None,
        flagged.key if is_flagged else None,
    )


def _class_changes(compared: Sequence[_Compared]) -> tuple[ClassChange, ...]:
    counts = Counter((one.before.priority, one.after.priority) for one in compared)
    return tuple(
        ClassChange(before=before, after=after, studies=count)
        for (before, after), count in sorted(counts.items(), reverse=True)
        if before is not after
    )


def _waits(compared: Sequence[_Compared]) -> tuple[WaitsOfClass, ...]:
    found = []
    for priority in reversed(Priority):
        some = [one for one in compared if one.before.priority is priority]
        if not some:
            continue
        before, after = [o.wait_before for o in some], [o.wait_after for o in some]
        found.append(
            WaitsOfClass(
                priority=priority,
                studies=len(some),
                mean_before=fmean(before),
                mean_after=fmean(after),
                median_before=median(before),
                median_after=median(after),
                past_target_before=sum(_is_late(o.study, o.before, o.wait_before) for o in some),
                past_target_after=sum(_is_late(o.study, o.after, o.wait_after) for o in some),
            )
        )
    return tuple(found)


def _is_late(study: StudyRow, place: Place, waited_min: float) -> bool:
    if place.due_at is None:
        return False
    return waited_min > (place.due_at - study.first_instance_at).total_seconds() / 60


def _most_affected(compared: Sequence[_Compared]) -> tuple[AffectedStudy, ...]:
    changed = sorted(
        (one for one in compared if abs(one.longer_by) >= 1 or one.before.key != one.after.key),
        key=lambda one: (-abs(one.longer_by), one.study.id),
    )[:_MOST_AFFECTED]
    return tuple(
        AffectedStudy(
            study_instance_uid=one.study.study_instance_uid,
            modalities=one.study.modalities.replace("\\", ", "),
            before=one.before.priority,
            after=one.after.priority,
            points_before=one.before.points,
            points_after=one.after.points,
            wait_before=one.wait_before,
            wait_after=one.wait_after,
            in_words=one.after.in_words(),
        )
        for one in sorted(changed, key=lambda one: -one.longer_by)
    )
