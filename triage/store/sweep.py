"""Files that no row names: leftovers of writing that was cut off, and what never was indexed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import structlog
from sqlalchemy import select

from triage.store.chunks import chunks
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.tables import InstanceRow, ReturnedObjectRow, SeriesRow, StudyRow

log = structlog.get_logger(__name__)

# Writing takes seconds, and a run indexes its results within minutes.
_LEFTOVER_AFTER = timedelta(hours=1)
_PART = ".part"
_ASIDE = ".unindexed"


@dataclass
class Swept:
    """What a sweep has found.

    Attributes:
        leftovers: temporary files deleted.
        unindexed: files without a row deleted.
        kept: files without a row that are not old enough yet.
        put_back: files that an earlier sweep was cut off with, and that a row names.
    """

    leftovers: int = 0
    unindexed: int = 0
    kept: int = 0
    put_back: int = 0


class Sweep:
    """Looks through the folder of instances.

    A file without a row was never acknowledged: its sender got no success for it. The exception is
    a database that was set back to an older state. So such files stay for `unindexed_after`.
    """

    def __init__(
        self,
        database: Database,
        files: InstanceFiles,
        clock: Clock,
        *,
        unindexed_after: timedelta,
    ) -> None:
        self._database = database
        self._files = files
        self._clock = clock
        self._unindexed_after = max(unindexed_after, _LEFTOVER_AFTER)

    def go_round(self, is_stopping: Callable[[], bool] = lambda: False) -> Swept:
        """Delete what is old enough and return what was found."""
        swept = Swept()
        seen: set[str] = set()
        for known in self._known_paths():
            folders = {path.rpartition("/")[0] for path in known}
            seen |= folders
            for folder in folders:
                if is_stopping():
                    return swept
                self._sweep(self._files.root / folder, known, swept)
        for folder in self._folders():
            if is_stopping():
                return swept
            if folder not in seen:
                self._sweep(self._files.root / folder, set(), swept)
        if swept.kept:
            log.warning("files without a row", files=swept.kept)
        return swept

    def _known_paths(self) -> Iterator[set[str]]:
        """Yield the paths that rows name, those of some studies at a time."""
        last = 0
        while True:
            with self._database.reading() as session:
                ids = session.scalars(
                    select(StudyRow.id).where(StudyRow.id > last).order_by(StudyRow.id).limit(100)
                ).all()
                paths = session.scalars(
                    select(InstanceRow.path)
                    .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
                    .where(SeriesRow.study_id.in_(ids), InstanceRow.path != "")
                ).all()
            if not ids:
                return
            last = ids[-1]
            yield set(paths)

    def _folders(self) -> list[str]:
        with os.scandir(self._files.root) as entries:
            return [entry.name for entry in entries if entry.is_dir()]

    def _sweep(self, folder: Path, known: set[str], swept: Swept) -> None:
        try:
            names = sorted(file.name for file in folder.iterdir())
        except FileNotFoundError:
            return
        unnamed = []
        for name in names:
            file = folder / name
            if name.endswith(_PART):
                if self._is_older(file, _LEFTOVER_AFTER) and _delete(file):
                    swept.leftovers += 1
            elif self._path(file) not in known and self._is_older(file, _LEFTOVER_AFTER):
                unnamed.append(file)  # a younger one may just be about to be indexed
            elif name.endswith(_ASIDE):
                unnamed.append(file)
        named = self._named([self._path(file) for file in unnamed])
        for file in unnamed:
            if file.name.endswith(_ASIDE):
                self._finish(file, swept, is_known=self._path(file) in named)
            elif self._path(file) not in named:
                self._look_at(file, swept)
        if not names and self._is_older(folder, _LEFTOVER_AFTER):
            _remove_empty(folder)

    def _path(self, file: Path) -> str:
        original = file.with_name(file.name.removesuffix(_ASIDE))
        return original.relative_to(self._files.root).as_posix()

    def _named(self, paths: list[str]) -> set[str]:
        """Return those of `paths` that some row names; it is asked for the few that seem not to."""
        found: set[str] = set()
        with self._database.reading() as session:
            for some in chunks(paths):
                for column in (InstanceRow.path, ReturnedObjectRow.path):
                    found |= set(session.scalars(select(column).where(column.in_(some))))
        return found

    def _look_at(self, file: Path, swept: Swept) -> None:
        # One look for both: between two, the file could become another one.
        before = _identity(file)
        if before is None or self._age(before) < self._unindexed_after:
            if before is not None and self._age(before) >= _LEFTOVER_AFTER:
                swept.kept += 1
            return
        aside = file.with_name(file.name + _ASIDE)
        try:
            file.rename(aside)
        except OSError:
            return
        if _identity(aside) != before:
            # The same image came again between the look and the rename: this is its new file.
            _put_back(aside, file)
        elif _delete(aside):
            swept.unindexed += 1

    def _finish(self, aside: Path, swept: Swept, *, is_known: bool) -> None:
        """Do what a sweep that was cut off would have done next."""
        original = aside.with_name(aside.name.removesuffix(_ASIDE))
        if is_known and not original.exists():
            _put_back(aside, original)
            swept.put_back += 1
        elif self._is_older(aside, _LEFTOVER_AFTER) and _delete(aside):
            swept.unindexed += 1

    def _is_older(self, file: Path, age: timedelta) -> bool:
        found = _identity(file)
        return found is not None and self._age(found) >= age

    def _age(self, identity: _Identity) -> timedelta:
        now = self._clock()
        return now - datetime.fromtimestamp(identity.changed_ns / 1e9, now.tzinfo)


class _Identity(NamedTuple):
    """What tells a file from another one that took its name."""

    inode: int
    changed_ns: int


def _identity(file: Path) -> _Identity | None:
    try:
        state = file.stat()
    except OSError:
        return None
    return _Identity(state.st_ino, state.st_mtime_ns)


def _put_back(aside: Path, original: Path) -> None:
    try:
        os.link(aside, original)  # never over a file that has come meanwhile
    except FileExistsError:
        pass
    except OSError as error:
        log.error("file not put back", path=original.name, error=error.strerror)
        return
    _delete(aside)


def _delete(file: Path) -> bool:
    try:
        file.unlink()
    except OSError as error:
        log.warning("file not deleted", path=file.name, error=error.strerror)
        return False
    return True


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:  # something has come into it
        log.debug("folder kept", error=error.strerror)
