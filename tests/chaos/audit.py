"""What must hold after a round, asked of the disk and of the database alone."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.filereader import read_partial
from sqlalchemy import func, select

from tests.chaos.plan import Plan
from triage.core.runs import RunState, StudyState
from triage.store.database import Database
from triage.store.tables import (
    AnalysisRunRow,
    InstanceRow,
    OpenAssociationRow,
    SeriesRow,
    StudyEventRow,
    StudyRow,
)

_NAME_OF_A_FILE = re.compile(r"[0-9a-f]{32}/[0-9a-f]{24}-[0-9a-f]{16}\.dcm")
_FIRST_OF_EACH = 5


@dataclass
class Audit:
    """What was found: breaches of the promise, and figures.

    Attributes:
        breaches: one sentence for each thing that is not as it must be.
        reopened_of_two: studies of two senders that became complete between the two.
        reopened_of_one: studies that became complete in the pause that a kill made, before their
            sender had begun to send again.
    """

    breaches: list[str] = field(default_factory=list)
    acknowledged: int = 0
    acknowledged_twice: int = 0
    studies: int = 0
    reopened_of_two: int = 0
    reopened_of_one: int = 0

    def note(self, what: str, objects: Iterable[object]) -> None:
        """Note a breach for `objects`, if there are any."""
        found = list(objects)
        if found:
            shown = ", ".join(map(str, found[:_FIRST_OF_EACH]))
            self.breaches.append(f"{len(found)} {what}: {shown}")


def audit(plan: Plan, ledgers: Iterable[Path], database: Database, data: Path) -> Audit:
    """Hold the ledgers of the senders against the disk and the index."""
    result = Audit()
    ledger = _acknowledged(ledgers, result)
    rows = _rows(database)
    _check_files(ledger, rows, data / "instances", result)
    _check_folder(rows, data, result)
    _check_studies(plan, database, result)
    return result


def _acknowledged(ledgers: Iterable[Path], result: Audit) -> dict[str, str]:
    lines = [line.split() for ledger in ledgers for line in ledger.read_text().splitlines()]
    result.acknowledged = len(lines)
    by_uid: dict[str, str] = {}
    for _, uid, digest in lines:
        result.acknowledged_twice += uid in by_uid
        by_uid[uid] = digest
    return by_uid


def _rows(database: Database) -> dict[str, list[InstanceRow]]:
    rows = defaultdict(list)
    with database.reading() as session:
        for row in session.scalars(select(InstanceRow)):
            rows[row.sop_instance_uid].append(row)
    return rows


def _check_files(
    ledger: dict[str, str], rows: dict[str, list[InstanceRow]], root: Path, result: Audit
) -> None:
    result.note("acknowledged instances without a row", (u for u in ledger if u not in rows))
    result.note("instances with more rows than one", (u for u, r in rows.items() if len(r) > 1))
    lost = []
    for uid in ledger.keys() & rows.keys():
        problem = _problem_of_file(root / rows[uid][0].path, rows[uid][0], ledger[uid])
        if problem:
            lost.append(f"{uid} {problem}")
    result.note("acknowledged instances that are not whole", lost)


def _problem_of_file(file: Path, row: InstanceRow, sent: str) -> str:
    if not file.is_file():
        return "has no file"
    content = file.read_bytes()
    if len(content) != row.size_bytes or hashlib.sha256(content).hexdigest() != row.sha256:
        return "has another file than its row says"
    with file.open("rb") as opened:
        read_partial(opened, stop_when=lambda *_: True)
        start = opened.tell()
    if hashlib.sha256(content[start:]).hexdigest() != sent:
        return "has other bytes than were sent"
    if dcmread(file).SOPInstanceUID != row.sop_instance_uid:
        return "is another instance"
    return ""


def _check_folder(rows: dict[str, list[InstanceRow]], data: Path, result: Audit) -> None:
    root = data / "instances"
    files = {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}
    indexed = {row.path for found in rows.values() for row in found}
    names = sorted(files - indexed)
    result.note("unfinished files left", (n for n in names if n.endswith(".part")))
    result.note("files without a row", (n for n in names if not n.endswith(".part")))
    result.note(
        "files with strange names", (n for n in files & indexed if not _NAME_OF_A_FILE.fullmatch(n))
    )
    result.note("things outside the store", _outside(data))


def _outside(data: Path) -> Iterable[str]:
    known = re.compile(
        r"instances|incoming|journal|logs|models|run|triage\.sqlite(-wal|-shm|\.writers)?"
    )
    yield from (p.name for p in data.iterdir() if not known.fullmatch(p.name))
    beside = {p.name for p in data.parent.iterdir()}
    ours = re.compile(r"data|receiver\.log|MODALITY_[ABC]\.(ledger|json|log)")
    yield from (name for name in beside if not ours.fullmatch(name))


def _check_studies(plan: Plan, database: Database, result: Audit) -> None:
    with database.reading() as session:
        studies = {s.study_instance_uid: s for s in session.scalars(select(StudyRow))}
        counted = session.execute(
            select(SeriesRow.study_id, func.count(InstanceRow.id))
            .join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
            .group_by(SeriesRow.study_id)
        )
        sizes = dict(counted.all())
        events: dict[int, list[str]] = defaultdict(list)
        for study_id, kind in session.execute(
            select(StudyEventRow.study_id, StudyEventRow.kind)
            .where(StudyEventRow.kind.in_(("received", "complete", "reopened")))
            .order_by(StudyEventRow.id)
        ):
            events[study_id].append(kind)
        held = session.scalars(select(OpenAssociationRow.association)).all()
        runs = session.scalars(select(AnalysisRunRow)).all()
    wanted = {plan.study_instance_uid(s): s.size for s in plan.studies}
    result.studies = len(wanted)
    result.note("studies missing", wanted.keys() - studies.keys())
    result.note("studies nobody sent", studies.keys() - wanted.keys())
    found = [studies[uid] for uid in wanted if uid in studies]
    result.note("studies not complete", (s.id for s in found if s.state is not StudyState.COMPLETE))
    result.note(
        "studies with another number of instances",
        (s.id for s in found if sizes.get(s.id) != wanted[s.study_instance_uid]),
    )
    result.note(
        "studies that did not become complete once for each time they were opened",
        (f"{s.id} {events[s.id]}" for s in found if events[s.id] != _life(s.generation)),
    )
    of_two = {plan.study_instance_uid(s) for s in plan.studies if len(s.parts) > 1}
    reopened = [s.study_instance_uid for s in found if s.generation > 1]
    result.reopened_of_two = len(of_two.intersection(reopened))
    result.reopened_of_one = len(reopened) - result.reopened_of_two
    result.note("associations that still hold a study open", held)
    _check_runs(runs, {s.id: s.generation for s in found}, result)


def _life(generation: int) -> list[str]:
    """Return the events of a study that became complete `generation` times."""
    return ["received", "complete", *["reopened", "complete"] * (generation - 1)]


def _check_runs(runs: Iterable[AnalysisRunRow], generations: dict[int, int], result: Audit) -> None:
    live = [r for r in runs if r.state is not RunState.SUPERSEDED]
    result.note(
        "runs of an earlier state of a study that are not superseded",
        (r.id for r in live if r.generation != generations.get(r.study_id)),
    )
    twice = Counter((r.study_id, r.model_id) for r in live)
    result.note("runs that are queued twice", (key for key, n in twice.items() if n > 1))
