"""The benchmark of the worklist, on a small hospital."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.tools import PROJECT


def test_benchmark_measures_every_part_of_the_list(tmp_path: Path) -> None:
    figures = tmp_path / "worklist.json"
    program = [sys.executable, "-W", "ignore", str(PROJECT / "benchmarks" / "worklist.py")]
    size = ["--open", "60", "--past", "40", "--requests", "2", "--clients", "3", "--flags", "1"]
    where = ["--databases", "sqlite", "--folder", str(tmp_path), "--json", str(figures)]
    subprocess.run([*program, *size, *where], check=True, capture_output=True, timeout=300)
    measured = json.loads(figures.read_text())
    for part in ("floor", "page", "filtered", "search", "counts", "next", "events", "read_page"):
        assert measured[f"sqlite_{part}_p95_ms"] > 0
    assert measured["flag_on_screen_p95_s"] > 0
