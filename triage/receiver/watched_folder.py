"""A folder whose DICOM files are taken in: the way for what has no network of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from triage.receiver.encoded import read_instance
from triage.receiver.entrance import Entrance, Visit
from triage.receiver.refusals import RefusedInstanceError, StorageStatus
from triage.settings import ReceiverSettings, SettingsError, WatchedFolderSettings
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.files import InstanceFiles

log = structlog.get_logger(__name__)

DONE = "done"
REJECTED = "rejected"
# Names under which programs write what is not whole yet.
_UNFINISHED_SUFFIXES = frozenset({".part", ".partial", ".tmp", ".filepart", ".crdownload"})
_TAKE_AGAIN = frozenset({StorageStatus.OUT_OF_RESOURCES})


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look at a file saw: it rests when the next look sees the same."""

    size_bytes: int
    changed_ns: int
    inode: int


class WatchedFolder:
    """Takes in what appears in a folder and rests there for a moment.

    A file is removed only after its index row is committed: whatever ends this process, the file
    is either still in the folder or stored, and a file that is taken twice is a quiet duplicate.
    Looking again and again, instead of waiting for the kernel to tell, works on network shares.
    """

    def __init__(
        self,
        settings: WatchedFolderSettings,
        receiver: ReceiverSettings,
        database: Database,
        files: InstanceFiles,
        clock: Clock,
    ) -> None:
        """Prepare.

        Raises:
            SettingsError: the folder and that of the stored instances lie within each other.
        """
        self.folder = Path(settings.path).absolute()
        ours, watched = files.root.resolve(), self.folder.resolve()
        if ours.is_relative_to(watched) or watched.is_relative_to(ours):
            raise SettingsError(
                f"watched_folder.path {watched} would take away what Triage has stored in {ours}; "
                "choose a folder of its own"
            )
        self._settings = settings
        self._entrance = Entrance(database, files, receiver, clock, kind="folder")
        self._looks: dict[Path, tuple[_Look, float]] = {}
        self._was_failing = False
        self._unreadable: set[Path] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="triage-folder", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()
        log.info("folder is watched", folder=str(self.folder))

    def stop(self) -> None:
        """End after the file that is being taken."""
        self._stopping.set()
        self._thread.join()
        self._entrance.close()

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.poll_s):
            try:
                self.look(time.monotonic())
                self._was_failing = False
            except OSError as error:
                self._say_failing(str(error))
            except Exception as error:
                log.exception("watched folder", error=type(error).__name__)

    def _say_failing(self, error: str) -> None:
        if not self._was_failing:  # once: a share that is away would fill the log
            log.warning("watched folder cannot be read or written", error=error)
        self._was_failing = True

    def look(self, now_s: float) -> int:
        """Take what has rested until `now_s` (of any steady clock); return how many were taken.

        Raises:
            OSError: the folder cannot be read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        present = dict(self._present())
        for path in [path for path in self._looks if path not in present]:
            del self._looks[path]
            self._unreadable.discard(path)
        resting = [path for path, look in present.items() if self._rests(path, look, now_s)]
        if not resting:
            return 0
        taken = 0
        with self._entrance.visit() as visit:
            for path in resting:
                if self._stopping.is_set():
                    break
                taken += self._take_or_say(path, present[path], visit)
        return taken

    def _take_or_say(self, path: Path, look: _Look, visit: Visit) -> int:
        """Take one file; one that cannot be read or moved stays, and keeps no other from coming."""
        try:
            taken = self._take(path, look, visit)
        except OSError as error:
            if path not in self._unreadable:  # once, not at every look
                log.warning("file cannot be taken", error=error.strerror, errno=error.errno)
            self._unreadable.add(path)
            return 0
        self._unreadable.discard(path)
        return taken

    def _present(self) -> Iterator[tuple[Path, _Look]]:
        """Yield the files; links are neither files nor folders here, wherever they point."""
        for parent, folders, names in os.walk(self.folder, followlinks=False):
            if Path(parent) == self.folder:
                folders[:] = [name for name in folders if name not in (DONE, REJECTED)]
            folders.sort()
            for name in sorted(names):
                path = Path(parent, name)
                if name.startswith(".") or path.suffix.lower() in _UNFINISHED_SUFFIXES:
                    continue
                with contextlib.suppress(FileNotFoundError):  # taken away meanwhile
                    seen = path.lstat()
                    if _is_regular(seen):
                        yield path, _Look(seen.st_size, seen.st_mtime_ns, seen.st_ino)

    def _rests(self, path: Path, look: _Look, now_s: float) -> bool:
        before = self._looks.get(path)
        if before is None or before[0] != look:
            self._looks[path] = (look, now_s)
            return False
        return now_s - before[1] >= self._settings.rest_s

    def _take(self, path: Path, look: _Look, visit: Visit) -> int:
        """Take one file and return whether it was stored, as 1 or 0."""
        try:
            content = _read(path)
            instance = read_instance(content)
            visit.store(instance, sender=self._settings.sender)
        except FileNotFoundError:
            return 0
        except RefusedInstanceError as refusal:
            if refusal.status in _TAKE_AGAIN:
                self._say_failing(refusal.comment)
                return 0
            self._reject(path, refusal)
            return 0
        # A file that was written to meanwhile is taken again when it rests.
        now = path.lstat()
        if _Look(now.st_size, now.st_mtime_ns, now.st_ino) == look:
            self._put_away(path)
        self._looks.pop(path, None)
        return 1

    def _put_away(self, path: Path) -> None:
        if self._settings.keep_done:
            self._move(path, DONE)
        else:
            path.unlink(missing_ok=True)
        self._remove_empty_folders(path.parent)

    def _reject(self, path: Path, refusal: RefusedInstanceError) -> None:
        log.warning("file rejected", reason=refusal.comment, status=f"0x{refusal.status:04X}")
        moved = self._move(path, REJECTED)
        reason = moved.with_name(moved.name + ".txt")
        reason.write_text(
            f"Triage has not taken this file: {refusal.comment} (0x{refusal.status:04X}).\n"
            "Mend it, and put it into the watched folder again.\n",
            encoding="utf-8",
        )
        self._looks.pop(path, None)
        self._remove_empty_folders(path.parent)

    def _move(self, path: Path, to: str) -> Path:
        """Move a file below `to`, under its own path there; one of that name is not replaced."""
        target = self.folder / to / path.relative_to(self.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while os.path.lexists(target):
            number += 1
            target = target.with_name(f"{path.stem}-{number}{path.suffix}")
        shutil.move(path, target)
        return target

    def _remove_empty_folders(self, folder: Path) -> None:
        """Remove the subfolders that a sender made for what has been taken."""
        while folder != self.folder and self.folder in folder.parents:
            try:
                folder.rmdir()
            except OSError:
                return  # something is in it, or just came
            folder = folder.parent


def _is_regular(seen: os.stat_result) -> bool:
    return (seen.st_mode & 0o170000) == 0o100000


def _read(path: Path) -> bytes:
    # A link that was put in the file's place meanwhile is not followed.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read()
