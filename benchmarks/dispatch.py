"""How long from "study complete" to the first line of model code, beside the naive ways.

Runs Triage as `triage up` does, with a model so small that its own time does not count, sends small
studies one by one, and reads two moments of each: when the database made it complete, and when the
model's first line ran. Then it measures, against the same Prefect server, what else one could do:

    python benchmarks/dispatch.py --studies 30 --json dispatch.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from benchmarks.tiny_model import TINY_MODEL, write_tiny_model, write_tiny_study  # noqa: E402
from tests.end_to_end.system import RunningSystem  # noqa: E402
from triage.demo.sending import send_study  # noqa: E402
from triage.settings import ReceiverSettings  # noqa: E402
from triage.store.database import Database  # noqa: E402
from triage.store.tables import StudyRow  # noqa: E402

_WAYS = {
    "async-flow": "async flow, called in a warm process",
    "sync-flow": "sync flow, called in a warm process (whole call)",
    "background-task": "background task: task.delay() to a warm task worker",
    "deployment": "deployment: run_deployment() to flow.serve()",
}
_RUNS_WITHIN_S = 30.0


def main() -> None:
    """Measure, print the table, and write the figures."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="triage-dispatch-") as name:
        folder = Path(name)
        marks = folder / "marks"
        write_tiny_model(folder / "registry", marks)
        system = RunningSystem(
            folder,
            {
                "TRIAGE_MODEL_REGISTRY": str(folder / "registry"),
                "TRIAGE_RECEIVER__QUIET_PERIOD_BY_MODALITY_S": '{"CT": 0.2}',
                # The model tells when it runs by writing to a file, which is forbidden to models.
                "TRIAGE_TRUST__SANDBOX": "off",
            },
        )
        system.start()
        try:
            _approve(system)
            ours = [_dispatch(system, marks, number) for number in range(arguments.studies + 1)]
            others = {way: _alternative(system, way, arguments.alternatives) for way in _WAYS}
        finally:
            system.stop()
    figures = _figures(ours[1:], others)  # the first study fills caches
    _print(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=30)
    parser.add_argument("--alternatives", type=int, default=5, help="runs of each other way")
    parser.add_argument("--json", type=Path, help="write one flat object of the figures")
    return parser.parse_args()


def _approve(system: RunningSystem) -> None:
    """Let the code of the tiny model run."""
    approve = ["models", "approve", TINY_MODEL, "1.0.0", "--who", "benchmark", "--reason", "ours"]
    subprocess.run(
        [sys.executable, "-m", "triage.cli", *approve],
        env=system.environment,
        cwd=system.folder,
        check=True,
        capture_output=True,
    )


def _dispatch(system: RunningSystem, marks: Path, number: int) -> float:
    """Send a study and return the seconds from complete to the model's first line."""
    study_instance_uid = write_tiny_study(number, system.folder / f"study-{number}")
    before = _lines(marks)
    receiver = ReceiverSettings(port=system.port)
    send_study(system.folder / f"study-{number}", receiver, calling_ae_title="BENCHMARK")
    until = time.monotonic() + _RUNS_WITHIN_S
    while len(_lines(marks)) == len(before):
        if time.monotonic() > until:
            raise SystemExit(f"the model did not run within {_RUNS_WITHIN_S:g} s")
        time.sleep(0.01)
    database = Database(f"sqlite:///{system.folder / 'data' / 'triage.sqlite'}")
    with database.reading() as session:
        completed_at = session.scalars(
            select(StudyRow.completed_at).where(StudyRow.study_instance_uid == study_instance_uid)
        ).one()
    database.close()
    assert completed_at is not None
    time.sleep(0.5)  # let the run end, so that the next study is alone
    return _lines(marks)[-1] - completed_at.timestamp()


def _lines(marks: Path) -> list[float]:
    return [float(line) for line in marks.read_text().splitlines()] if marks.exists() else []


def _alternative(system: RunningSystem, way: str, count: int) -> list[float]:
    address = f"http://127.0.0.1:{system.environment['TRIAGE_PREFECT__PORT']}/api"
    program = Path(__file__).with_name("dispatch_alternatives.py")
    ran = subprocess.run(
        [sys.executable, str(program), way, str(count)],
        env={
            **system.environment,
            "PREFECT_API_URL": address,
            "PREFECT_HOME": str(system.folder / "prefect-client"),
            "PREFECT_LOGGING_LEVEL": "ERROR",
        },
        check=True,
        capture_output=True,
        text=True,
    )
    return [float(line) for line in ran.stdout.split()]


def _figures(ours: Sequence[float], others: dict[str, list[float]]) -> dict[str, float]:
    median = statistics.median(ours)
    figures = {
        "studies": float(len(ours)),
        "median_s": median,
        "p95_s": statistics.quantiles(ours, n=20)[-1] if len(ours) > 1 else median,
        "goal_s": 0.3,
    }
    for way, seconds in others.items():
        key = way.replace("-", "_")
        figures[f"{key}_median_s"] = statistics.median(seconds)
        figures[f"ratio_to_{key}"] = median / statistics.median(seconds)
    return {name: round(value, 4) for name, value in figures.items()}


def _print(figures: dict[str, float]) -> None:
    print(f"from study complete to the first line of model code, {figures['studies']:.0f} studies")
    ours = "Triage: the study's way, claim and decoding included"
    print(f"{ours:<56}{figures['median_s']:>8.3f} s  (p95 {figures['p95_s']:.3f} s, goal 0.3 s)")
    print("the same beside what Prefect alone takes to a first line:")
    for way, words in _WAYS.items():
        key = way.replace("-", "_")
        seconds, ratio = figures[f"{key}_median_s"], figures[f"ratio_to_{key}"]
        print(f"{words:<56}{seconds:>8.3f} s  (Triage / this: {ratio:.2f})")


if __name__ == "__main__":
    main()
