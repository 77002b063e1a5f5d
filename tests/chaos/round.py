"""One round: three senders, one receiver, and a killer with a seed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from tests.chaos.audit import Audit, audit
from tests.chaos.plan import SENDERS, Plan
from tests.chaos.receiver import ChaosError, KillableReceiver
from tests.tools import PROJECT
from triage.core.runs import StudyState
from triage.store.database import Database
from triage.store.tables import StudyRow

_LONGEST_JITTER_S = 0.15
_NO_PROGRESS_S = 120.0
_SETTLES_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """What a round showed."""

    seed: int
    audit: Audit
    killed: Counter[str]
    senders: Counter[str]
    seconds: float


def run_round(
    folder: Path, *, seed: int, instances: int, kills: int, database_url: str = ""
) -> RoundOutcome:
    """Send `instances` while the receiver is killed `kills` times; return what was found after.

    Raises:
        ChaosError: the receiver did not start again, or the senders made no progress.
    """
    began = time.monotonic()
    plan = Plan(seed, instances)
    receiver = KillableReceiver(folder, database_url)
    receiver.prepare()
    receiver.start()
    ledgers = [folder / f"{sender}.ledger" for sender in SENDERS]
    senders = [_start_sender(receiver, plan, ledger) for ledger in ledgers]
    database = Database(database_url or f"sqlite:///{receiver.data / 'triage.sqlite'}")
    try:
        killed = _kill_while_sending(receiver, senders, ledgers, plan, kills)
        _wait_until_settled(database, plan, receiver.data)
        receiver.stop()
        found = audit(plan, ledgers, database, receiver.data)
        found.note("groups of processes that outlive their receiver", receiver.outlived())
    finally:
        database.close()
        for sender in senders:
            sender.kill()
            sender.wait()
        receiver.end()
    counts: Counter[str] = Counter()
    for ledger in ledgers:
        counts.update(json.loads(ledger.with_suffix(".json").read_text()))
    return RoundOutcome(seed, found, killed, counts, time.monotonic() - began)


def _start_sender(receiver: KillableReceiver, plan: Plan, ledger: Path) -> subprocess.Popen[bytes]:
    ledger.touch()
    arguments = [receiver.port, ledger.stem, plan.seed, plan.instances, ledger]
    with ledger.with_suffix(".log").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.sender", *map(str, arguments)],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def _kill_while_sending(
    receiver: KillableReceiver,
    senders: list[subprocess.Popen[bytes]],
    ledgers: list[Path],
    plan: Plan,
    kills: int,
) -> Counter[str]:
    """Kill the receiver at random amounts of what was acknowledged, and restart it at once."""
    chance = random.Random(f"kills {plan.seed}")
    due = sorted(chance.uniform(0.01, 0.95) * plan.instances for _ in range(kills))
    killed: Counter[str] = Counter()
    progress, progress_at = 0, time.monotonic()
    while any(sender.poll() is None for sender in senders):
        acknowledged = sum(ledger.read_bytes().count(b"\n") for ledger in ledgers)
        if acknowledged > progress:
            progress, progress_at = acknowledged, time.monotonic()
        if time.monotonic() - progress_at > _NO_PROGRESS_S:
            raise ChaosError(f"for {_NO_PROGRESS_S:g} s no instance was acknowledged")
        if due and acknowledged >= due[0]:
            due.pop(0)
            # So that it falls into the middle of a write as often as between two.
            time.sleep(chance.uniform(0, _LONGEST_JITTER_S))
            killed[receiver.kill(chance)] += 1
        if not receiver.is_running:
            receiver.start()
        time.sleep(0.005)
    for sender, ledger in zip(senders, ledgers, strict=True):
        if sender.returncode:
            raise ChaosError(f"{ledger.stem} failed:\n{ledger.with_suffix('.log').read_text()}")
    return killed


def _wait_until_settled(database: Database, plan: Plan, data: Path) -> None:
    """Return once every study is complete and no unfinished file is left, or time has run out.

    What has not come about by then is for the audit to say.
    """
    wanted = len(plan.studies)
    deadline = time.monotonic() + _SETTLES_WITHIN_S
    while time.monotonic() < deadline:
        with database.reading() as session:
            complete = session.scalars(
                select(func.count()).where(StudyRow.state == StudyState.COMPLETE)
            ).one()
        if complete == wanted and not list(data.rglob("*.part")):
            return
        time.sleep(0.1)
