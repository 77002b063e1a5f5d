"""The demo itself: start everything, send the studies, watch the worklist, show the table."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from triage.core.errors import TriageError
from triage.core.runs import FINAL_STATES, StudyState
from triage.demo.hospital import PATIENTS, Kind, Patient, study_folders
from triage.demo.sending import send_study
from triage.doctor import examine
from triage.settings import Settings, load_settings
from triage.store.clock import system_clock
from triage.store.database import Database
from triage.store.history import texts_of_kind
from triage.store.tables import (
    AnalysisRunRow,
    PriorityEventRow,
    ResultObjectRow,
    StudyRow,
)
from triage.store.workers import alive_workers
from triage.supervisor import check_can_start
from triage.worklist.queue import reading_list

_READY_WITHIN_S = 180.0
_LOOK_S = 1.0
_LOOK_BEFORE_WORKER_S = 5.0
_ANALYSED_WITHIN_S = 300.0
_MARKER = "THIS_FOLDER_IS_A_DEMO"
_WIDTH_OF_WORDS = 60
_CALLING_AE_TITLE = "SIM_SCANNER"


class DemoError(TriageError):
    """The demo cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one patient's study."""

    patient: Patient
    said: str
    priority: str
    place_before: int
    place_after: int
    seconds_to_flag: float | None
    objects: str


def run_demo(*, exit_when_done: bool, console: Console) -> int:
    """Play the demo and return the exit status: 0 if every hemorrhage is above every normal study.

    Raises:
        DemoError: a part did not start, or the studies were not analysed in time.
    """
    os.environ.setdefault("TRIAGE_DATA_DIRECTORY", "var/demo")
    settings = load_settings()
    check_can_start(settings)
    _clear_earlier_demo(settings.data_directory, console)
    with _running(settings, console) as system, _progress(console) as progress:
        folders = _make_studies(settings, progress)
        _wait_until_green(settings, system, progress)
        _send(settings, folders, progress)
        outcomes = _watch(settings, progress)
        progress.stop()
        console.print(_table(outcomes))
        succeeded = _hemorrhages_are_first(outcomes)
        console.print(_verdict(succeeded=succeeded))
        if not exit_when_done:
            console.print(f"\nThe worklist: [bold]{settings.web_url}[/]   (Ctrl-C ends the demo)")
            _serve_until_interrupted(system)
    return 0 if succeeded else 1


def _clear_earlier_demo(folder: Path, console: Console) -> None:
    if folder.exists() and any(folder.iterdir()):
        leftovers = {p.name for p in folder.iterdir()} - {"triage.pid"}
        if leftovers and not (folder / _MARKER).exists():
            raise DemoError(
                f"{folder} holds data that is not a demo's; name another folder: "
                "TRIAGE_DATA_DIRECTORY=var/demo2 make demo"
            )
        console.print(f"Removing what an earlier demo left in {folder}.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).touch()


@contextlib.contextmanager
def _running(settings: Settings, console: Console) -> Iterator[subprocess.Popen[bytes]]:
    log_file = settings.data_directory / "up.log"
    with log_file.open("wb") as output:
        system = subprocess.Popen(
            [sys.executable, "-m", "triage.cli", "up"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield system
    except KeyboardInterrupt:
        console.print("Stopping.")
    finally:
        if system.poll() is None:
            system.send_signal(signal.SIGTERM)
            try:
                system.wait(60)
            except subprocess.TimeoutExpired:
                system.kill()


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def _make_studies(settings: Settings, progress: Progress) -> dict[int, Path]:
    task = progress.add_task("Simulating patients", total=len(PATIENTS), note="")
    cache = settings.data_directory.parent / "demo-studies"
    return study_folders(cache, lambda done: progress.update(task, completed=done))


def _wait_until_green(
    settings: Settings, system: subprocess.Popen[bytes], progress: Progress
) -> None:
    task = progress.add_task("Starting Triage", total=None, note="")
    until = time.monotonic() + _READY_WITHIN_S
    while True:
        if system.poll() is not None:
            log_file = settings.data_directory / "up.log"
            raise DemoError(f"Triage did not start:\n{log_file.read_text()[-2000:]}")
        checks = list(examine(settings))
        wrong = [c for c in checks if not c.is_ok]
        done = len(checks) - len(wrong)
        note = f"waiting for: {', '.join(c.name for c in wrong)}" if wrong else "doctor is green"
        progress.update(task, total=len(checks), completed=done, note=note)
        if not wrong:
            return
        if time.monotonic() > until:
            lines = "\n".join(f"{c.name}: {c.text}" for c in wrong)
            raise DemoError(f"not ready after {_READY_WITHIN_S:g} s:\n{lines}")
        _pause_until_worker_is_there(settings, system)


def _pause_until_worker_is_there(settings: Settings, system: subprocess.Popen[bytes]) -> None:
    """Return soon after the worker is ready, which takes longest, or after a while.

    A look of the doctor takes 0.2 s of the processor from those that start; this costs nothing.
    """
    database = Database(settings.database_url)
    until = time.monotonic() + _LOOK_BEFORE_WORKER_S
    try:
        time.sleep(_LOOK_S)
        while time.monotonic() < until and system.poll() is None:
            with contextlib.suppress(SQLAlchemyError), database.reading() as session:
                if alive_workers(session, system_clock()):
                    return
            time.sleep(_LOOK_S / 4)
    finally:
        database.close()


def _send(settings: Settings, folders: dict[int, Path], progress: Progress) -> None:
    task = progress.add_task("Sending studies", total=len(PATIENTS), note="")
    for patient in PATIENTS:
        progress.update(task, note=f"{patient.family_name}: {patient.sent}")
        send_study(folders[patient.number], settings.receiver, calling_ae_title=_CALLING_AE_TITLE)
        progress.advance(task)
    progress.update(task, note="all images were acknowledged")


def _watch(settings: Settings, progress: Progress) -> list[Outcome]:
    """Return the outcomes once every study is complete and no run is left to do."""
    task = progress.add_task("Analysing", total=len(PATIENTS), note="")
    database = Database(settings.database_url)
    until = time.monotonic() + _ANALYSED_WITHIN_S
    try:
        while True:
            with database.reading() as session:
                finished = _finished_studies(session)
                progress.update(task, completed=finished, note="")
                if finished == len(PATIENTS):
                    return _outcomes(session)
            if time.monotonic() > until:
                raise DemoError(
                    f"only {finished} of {len(PATIENTS)} studies were analysed in "
                    f"{_ANALYSED_WITHIN_S:g} s; see {settings.data_directory / 'log'}"
                )
            time.sleep(0.2)
    finally:
        database.close()


def _finished_studies(session: Session) -> int:
    unfinished = select(AnalysisRunRow.study_id).where(AnalysisRunRow.state.not_in(FINAL_STATES))
    return len(
        session.scalars(
            select(StudyRow.id).where(
                StudyRow.state == StudyState.COMPLETE, StudyRow.id.not_in(unfinished)
            )
        ).all()
    )


def _outcomes(session: Session) -> list[Outcome]:
    entries = {e.patient_id: e for e in reading_list(session, system_clock())}
    studies = {s.patient.patient_id: s for s in session.scalars(select(StudyRow)).unique()}
    in_order_of_the_orders = sorted(
        studies.values(), key=lambda s: (-s.order_priority, s.first_instance_at)
    )
    before = {s.patient.patient_id: n for n, s in enumerate(in_order_of_the_orders, start=1)}
    outcomes = []
    for patient in PATIENTS:
        identity = f"SIM-{patient.number:04d}"
        study, entry = studies[identity], entries[identity]
        outcomes.append(
            Outcome(
                patient=patient,
                said=_said(session, study),
                priority=study.priority.label,
                place_before=before[identity],
                place_after=entry.place,
                seconds_to_flag=_seconds_to_flag(session, study),
                objects=_objects(session, study),
            )
        )
    return outcomes


def _said(session: Session, study: StudyRow) -> str:
    for kind in ("analysed", "not-analysed", "failed", "not-routed"):
        texts = texts_of_kind(session, study.id, kind)
        if texts:
            said = texts[-1].split(": ", 1)[-1]
            return said if kind == "analysed" else f"not analysed: {said}"
    return "no model wants it"


def _seconds_to_flag(session: Session, study: StudyRow) -> float | None:
    flagged_at = session.scalars(
        select(PriorityEventRow.at).where(
            PriorityEventRow.study_id == study.id, PriorityEventRow.source == "ai"
        )
    ).first()
    return None if flagged_at is None else (flagged_at - study.last_instance_at).total_seconds()


def _objects(session: Session, study: StudyRow) -> str:
    roles = session.scalars(
        select(ResultObjectRow.role)
        .join(AnalysisRunRow, AnalysisRunRow.id == ResultObjectRow.run_id)
        .where(AnalysisRunRow.study_id == study.id)
        .order_by(ResultObjectRow.id)
    ).all()
    return ", ".join(role.upper() for role in roles) or "-"


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(title="The reading list, most urgent first", title_justify="left")
    for heading in ("patient", "sent", "what the AI said", "priority"):
        table.add_column(heading)
    for heading in ("place before", "place after", "s to flag"):
        table.add_column(heading, justify="right")
    table.add_column("objects")
    for o in sorted(outcomes, key=lambda o: o.place_after):
        style = "bold red" if o.patient.kind is Kind.HEMORRHAGE else ""
        flag = "-" if o.seconds_to_flag is None else f"{o.seconds_to_flag:.1f}"
        table.add_row(
            o.patient.family_name,
            o.patient.sent,
            shorten(o.said, _WIDTH_OF_WORDS, placeholder=" …"),
            o.priority,
            str(o.place_before),
            str(o.place_after),
            flag,
            o.objects,
            style=style,
        )
    return table


def _hemorrhages_are_first(outcomes: list[Outcome]) -> bool:
    def places(kind: Kind) -> list[int]:
        return [o.place_after for o in outcomes if o.patient.kind is kind]

    return max(places(Kind.HEMORRHAGE)) < min(places(Kind.NORMAL))


def _verdict(*, succeeded: bool) -> str:
    if succeeded:
        return "[green]Every simulated hemorrhage stands above every normal study.[/]"
    return "[red]A normal study stands above a simulated hemorrhage.[/]"


def _serve_until_interrupted(system: subprocess.Popen[bytes]) -> None:
    status = system.wait()
    raise DemoError(f"Triage ended with status {status}")
