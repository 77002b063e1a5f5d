"""What a killed receiver had begun to write does not stay for ever."""

from __future__ import annotations

import os
import time

from triage.receiver.leftovers import remove_leftovers
from triage.store.files import InstanceFiles


def test_unfinished_files_that_nobody_writes_are_removed_and_nothing_else(
    files: InstanceFiles,
) -> None:
    stored = files.absolute(files.write("1.2.3", "1.2.3.4", [b"whole"]).path)
    abandoned = stored.parent / ".0123.77.7f00.part"
    live = stored.parent / ".4567.78.7f00.part"
    for file in (abandoned, live):
        file.write_bytes(b"unfin")
    long_ago = time.time() - 600
    os.utime(abandoned, (long_ago, long_ago))
    os.utime(stored, (long_ago, long_ago))
    assert remove_leftovers(files.root, untouched_s=60) == 1
    assert sorted(stored.parent.iterdir()) == sorted([live, stored])
