"""How long the worklist takes with 100,000 studies to read and a million that were read.

    python benchmarks/worklist.py --json worklist.json

Fills SQLite and a private PostgreSQL, and asks for the page, filtered pages, searches, counts, the
next study and what changed, as the server does, each time after something has changed. The floor is
the bare indexed query for the same hundred rows through the driver. Then 200 open pages follow a
server in a process of its own, and studies are flagged: a flag counts as on screen when the page
has the rows that it draws.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import cycle
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import httpx  # noqa: E402
from sqlalchemy import select  # noqa: E402
from sqlalchemy.orm import Session  # noqa: E402

from benchmarks.worklist_data import NOW, fill  # noqa: E402
from benchmarks.worklist_pages import OpenPages  # noqa: E402
from tests.tools import PostgresqlCluster, find_free_port, wait_until  # noqa: E402
from triage.core.priority import Priority  # noqa: E402
from triage.settings import Settings  # noqa: E402
from triage.store.database import Database  # noqa: E402
from triage.store.files import InstanceFiles  # noqa: E402
from triage.store.history import note  # noqa: E402
from triage.store.prioritising import raise_ai_priority  # noqa: E402
from triage.store.tables import StudyRow  # noqa: E402
from triage.web.app import create_app  # noqa: E402
from triage.worklist.changes import ChangeToken, change_token, recent_changes  # noqa: E402
from triage.worklist.filters import TO_READ  # noqa: E402
from triage.worklist.queue import READING_ORDER, next_to_read, take_tally  # noqa: E402

_OURS = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
_FILTERS = (
    {"modalities": ["MR"]},
    {"body_parts": ["KNEE"], "modalities": ["CT"]},
    {"wards": ["W17"]},
    {"patient_classes": ["E"], "flagged": True},
    {"statuses": ["analysing"]},
    {"statuses": ["not-analysed"]},
    {"assigned": "nobody", "modalities": ["US"]},
)
_SEARCHES = ("SURNAME004711", "surn", "ada surname0081", "P0000123", "ACC00001234", "nobody")


def main() -> None:
    """Fill, measure, print, and write the figures."""
    arguments = _arguments()
    figures: dict[str, float] = {"open": arguments.open, "past": arguments.past}
    for kind in arguments.databases:
        with _database(kind, arguments.folder) as database:
            began = time.perf_counter()
            fill(database, arguments.open, arguments.past)
            figures[f"{kind}_fill_s"] = time.perf_counter() - began
            figures |= {f"{kind}_{k}": v for k, v in _measure(database, arguments.requests).items()}
            if arguments.clients:
                flags = _flags(database, arguments.clients, arguments.flags)
                figures |= {f"{kind}_{k}": v for k, v in flags.items()}
    if arguments.clients:
        shown = [figures[f"{kind}_flag_on_screen_p95_s"] for kind in arguments.databases]
        figures |= {"clients": arguments.clients, "flag_on_screen_p95_s": max(shown)}
    figures = {key: round(value, 4) for key, value in figures.items()}
    for key, value in figures.items():
        print(f"{key:<44} {value:g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--open", type=int, default=100_000, help="studies to be read")
    parser.add_argument("--past", type=int, default=1_000_000, help="studies that were read")
    parser.add_argument("--requests", type=int, default=60, help="of each kind")
    parser.add_argument("--clients", type=int, default=200, help="open pages; 0 leaves that out")
    parser.add_argument("--flags", type=int, default=8, help="studies that are flagged meanwhile")
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--folder", type=Path, help="where SQLite's file is (default: TMPDIR)")
    parser.add_argument("--json", type=Path, help="write one flat object of the figures")
    return parser.parse_args()


@contextmanager
def _database(kind: str, folder: Path | None) -> Iterator[Database]:
    cluster = PostgresqlCluster() if kind == "postgresql" else None
    with tempfile.TemporaryDirectory(prefix="triage-worklist-", dir=folder) as name:
        url = (
            cluster.url(cluster.create_database())
            if cluster is not None
            else f"sqlite:///{name}/triage.sqlite"
        )
        database = Database(url)
        try:
            database.migrate()
            yield database
        finally:
            database.close()
            if cluster is not None:
                cluster.stop()


def _measure(database: Database, requests: int) -> dict[str, float]:
    filters, searches = cycle(_FILTERS), cycle(_SEARCHES)
    nowhere = Path(tempfile.mkdtemp(prefix="triage-worklist-")) / "data"  # only the audit spools
    app = create_app(Settings(), database, InstanceFiles(nowhere), lambda: NOW)
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", headers=_OURS
    )
    with asyncio.Runner() as runner:

        def show(path: str) -> None:
            answer = runner.run(client.get(path, headers={"Accept": "text/html"}))
            assert answer.status_code == 200, answer.text

        def rows(wanted: object) -> None:
            answer = runner.run(client.post("/worklist/rows", json={"wanted": wanted}))
            assert answer.status_code == 200, answer.text

        ways: dict[str, Callable[[], None]] = {
            "floor": lambda: _floor(database),
            "page": lambda: show("/"),
            "filtered": lambda: rows(next(filters)),
            "search": lambda: rows({"text": next(searches)}),
            "counts": lambda: _reading(database, lambda s: take_tally(s, NOW)),
            "next": lambda: _reading(database, lambda s: next_to_read(s, NOW, who="ada")),
            "events": lambda: _reading(database, _changes),
            "read_page": lambda: show("/read"),
        }
        figures: dict[str, float] = {}
        for name, way in ways.items():
            way()  # fills caches of the database
            figures |= _timed(database, name, way, requests)
        for name in ways:
            figures[f"ratio_{name}_to_floor"] = figures[f"{name}_p50_ms"] / figures["floor_p50_ms"]
    return figures


def _timed(
    database: Database, name: str, way: Callable[[], None], requests: int
) -> dict[str, float]:
    """Return the clock's milliseconds, and this process' processor time, of one request."""
    clock, processor = [], []
    for number in range(requests):
        _happen(database, number)
        began, worked = time.perf_counter(), time.process_time()
        way()
        clock.append((time.perf_counter() - began) * 1000)
        processor.append((time.process_time() - worked) * 1000)
    return {
        f"{name}_p50_ms": statistics.median(clock),
        f"{name}_p95_ms": _p95(clock),
        f"{name}_cpu_ms": statistics.median(processor),
    }


def _happen(database: Database, number: int) -> None:
    """Let something happen to a study, so that nothing that was counted before holds."""
    with database.transaction() as session:
        note(session, number + 1, "received", "another image", at=NOW)


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1] if len(values) > 1 else values[0]


def _floor(database: Database) -> None:
    """Run the bare query for a page's rows through the driver."""
    statement = select(StudyRow.id).where(TO_READ).order_by(*READING_ORDER).limit(100)
    sql = str(statement.compile(database.engine, compile_kwargs={"literal_binds": True}))
    with database.engine.connect() as connection:
        cursor = connection.connection.cursor()
        cursor.execute(sql)
        ids = ", ".join(str(key) for (key,) in cursor.fetchall())
        cursor.execute(f"SELECT * FROM studies WHERE id IN ({ids})")
        cursor.fetchall()


def _reading(database: Database, look: Callable[[Session], object]) -> None:
    with database.reading() as session:
        look(session)


def _changes(session: Session) -> None:
    token = change_token(session)
    recent_changes(session, token, ChangeToken(token.newest_event_id - 1, 0))


def _flags(database: Database, clients: int, flags: int) -> dict[str, float]:
    """Return how long it takes until all open pages show a flag, from its commit on."""
    port = find_free_port()
    program = Path(__file__).with_name("worklist_server.py")
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(program), database.url, str(port)]
    )
    pages = OpenPages(port, clients)
    try:
        wait_until(pages.can_connect, "the server listens", timeout_s=120)
        seconds = asyncio.run(pages.follow(flags, lambda number: _flag(database, number)))
    finally:
        server.terminate()
        server.wait(timeout=30)
    return {
        "flag_on_screen_p50_s": statistics.median(seconds),
        "flag_on_screen_p95_s": _p95(seconds),
        "flag_on_screen_max_s": max(seconds),
    }


def _flag(database: Database, number: int) -> str:
    """Flag a routine study and return its UID."""
    with database.transaction() as session:
        study = session.scalars(
            select(StudyRow)
            .where(TO_READ, StudyRow.priority == Priority.ROUTINE)
            .order_by(StudyRow.id)
            .limit(1)
        ).one()
        # STAT and waiting longest: it is on the first page.
        study.first_instance_at = NOW - timedelta(days=400, minutes=number)
        raise_ai_priority(
            session, study.id, Priority.STAT, "Hemorrhage, 12 mL, made-up 1.0.0", at=NOW
        )
        return study.study_instance_uid


if __name__ == "__main__":
    main()
