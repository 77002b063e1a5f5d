"""The folder of a job: what was uploaded, what was ordered, what came of it.

    DATA/jobs/NAME/in/        uploads; gone once the job is over
                   work/      unpacked archives; gone after each attempt
                   out/       what a person may look at and download
                   order.json, progress.txt, outcome.json, log.txt

The process that does the job writes files here and nothing into the database: it runs at the lowest
priority, and a process that is not scheduled must not hold a lock that others wait for.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FOLDER_NAME = re.compile(r"[0-9a-f]{32}")
_LONGEST_PROGRESS = 200
_LONGEST_LAST_WORDS = 500


@dataclass(frozen=True, slots=True)
class JobFolder:
    """The files of one job."""

    path: Path

    @staticmethod
    def of(data_directory: Path, name: str) -> JobFolder:
        """Return the folder of the job whose row names it."""
        return JobFolder(_home(data_directory) / name)

    @staticmethod
    def create(data_directory: Path) -> JobFolder:
        """Make the folder of a new job."""
        folder = JobFolder(_home(data_directory) / uuid4().hex)
        # Uploads and previews may be of patients: nobody but this user may look.
        folder.path.mkdir(parents=True, mode=0o700)
        folder.uploads.mkdir()
        return folder

    @property
    def name(self) -> str:
        """What the job's row calls it."""
        return self.path.name

    @property
    def uploads(self) -> Path:
        """Where uploads lie."""
        return self.path / "in"

    @property
    def work(self) -> Path:
        """Where archives are unpacked."""
        return self.path / "work"

    @property
    def out(self) -> Path:
        """Where results lie."""
        return self.path / "out"

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.path / "log.txt"

    def begin(self, order: BaseModel) -> None:
        """Make the folder ready for an attempt: nothing of an earlier one is left."""
        for leftover in (self.work, self.out):
            shutil.rmtree(leftover, ignore_errors=True)
            leftover.mkdir(mode=0o700)
        for name in ("progress.txt", "outcome.json"):
            (self.path / name).unlink(missing_ok=True)
        self._write("order.json", order.model_dump_json())

    def order(self) -> Any:
        """Return the order as it was written, for `triage.core.jobs.ORDERS`."""
        return json.loads((self.path / "order.json").read_bytes())

    def tell(self, progress: str) -> None:
        """Say how far the work is."""
        self._write("progress.txt", progress[:_LONGEST_PROGRESS])

    def progress(self) -> str:
        """Return how far the work is, "" where nothing was said."""
        return self._read("progress.txt")

    def end(self, *, outcome: BaseModel | None = None, refusal: str = "") -> None:
        """Write what came of it, or in words why nothing did."""
        content = {"outcome": outcome.model_dump(mode="json") if outcome else None}
        self._write("outcome.json", json.dumps(content | {"refusal": refusal}))

    def outcome(self) -> tuple[Any, str] | None:
        """Return what `end` wrote, or None where the process did not come that far."""
        try:
            content = json.loads(self._read("outcome.json") or "null")
        except ValueError:
            return None
        return (content["outcome"], content["refusal"]) if content else None

    def last_words(self) -> str:
        """Return the last line that the process printed."""
        lines = self._read("log.txt").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "")[-_LONGEST_LAST_WORDS:]

    def drop_inputs(self) -> None:
        """Remove uploads and what was unpacked of them."""
        for folder in (self.uploads, self.work):
            shutil.rmtree(folder, ignore_errors=True)

    def drop_results(self) -> None:
        """Remove what came of it."""
        shutil.rmtree(self.out, ignore_errors=True)

    def remove(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.path, ignore_errors=True)

    def results(self) -> list[Path]:
        """Return the files that a person may download, by name."""
        try:
            found = sorted(self.out.iterdir())
        except OSError:
            return []
        return [path for path in found if _is_plain(path)]

    def result(self, name: str) -> Path | None:
        """Return one of them, None where there is no such file."""
        path = self.out / name
        return path if _FILE_NAME.fullmatch(name) and _is_plain(path) else None

    def _write(self, name: str, text: str) -> None:
        # Renamed into place: whoever reads meanwhile gets the whole of one or of the other.
        partial = self.path / f"{name}.part"
        partial.write_text(text, encoding="utf-8")
        partial.replace(self.path / name)

    def _read(self, name: str) -> str:
        try:
            return (self.path / name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""


def abandoned_folders(
    data_directory: Path, known: frozenset[str], *, now: float, after: timedelta
) -> Iterator[JobFolder]:
    """Yield folders that no row names and that are older than `after`.

    An upload that was cut off leaves one; a younger one may still get its row.
    """
    try:
        found = [*os.scandir(_home(data_directory))]
    except FileNotFoundError:
        return
    for entry in found:
        is_old = now - entry.stat(follow_symlinks=False).st_mtime > after.total_seconds()
        if _FOLDER_NAME.fullmatch(entry.name) and entry.name not in known and is_old:
            yield JobFolder(Path(entry.path))


def _home(data_directory: Path) -> Path:
    return data_directory.absolute() / "jobs"


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
