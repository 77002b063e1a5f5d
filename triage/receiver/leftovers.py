"""Files that a killed receiver had begun to write: nobody will finish them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

_SUFFIX = ".part"


def remove_leftovers(root: Path, *, untouched_s: float) -> int:
    """Remove unfinished files below `root` that nobody has written to for `untouched_s` seconds.

    Age, and not the process in the name, says that a file is abandoned: processes of other
    machines write to a shared disk, and after a restart of a container all have the old numbers.

    Returns:
        How many were removed.
    """
    removed = 0
    oldest_kept = time.time() - untouched_s
    for entry in _unfinished(root):
        try:
            if entry.stat(follow_symlinks=False).st_mtime < oldest_kept:
                Path(entry.path).unlink()
                removed += 1
        except FileNotFoundError:
            continue  # finished and renamed meanwhile
    return removed


def _unfinished(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _unfinished(entry.path)
            elif entry.name.endswith(_SUFFIX):
                yield entry


class LeftoverRemoval:
    """Removes leftovers once after a start, when they are old enough to be told from live files."""

    def __init__(self, root: Path, *, untouched_s: float) -> None:
        self._root = root
        self._untouched_s = untouched_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="triage-leftovers", daemon=True)

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def stop(self) -> None:
        """Give up waiting; the next start begins anew."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        # One more second: file systems keep times in steps of up to that.
        if self._stopping.wait(self._untouched_s + 1.0):
            return
        try:
            removed = remove_leftovers(self._root, untouched_s=self._untouched_s)
        except OSError as error:
            log.warning("unfinished files could not be looked for", error=str(error))
            return
        if removed:
            log.info("unfinished files of an earlier receiver removed", files=removed)
