"""What engineers ask of models on the pages: the commands of `triage models`, done for a job.

A worker starts `triage models job FOLDER` for each. The process does what the command of the same
name does, with the same functions, and writes files into the job's folder and nothing elsewhere.
"""

from __future__ import annotations

import os
from pathlib import Path

from triage.core.errors import TriageError
from triage.core.jobs import ORDERS, CheckOrder, InitOrder, JobOrder, JobOutcome, TryOrder
from triage.settings import Settings
from triage.store.job_files import JobFolder


def carry_out(folder: JobFolder, settings: Settings) -> None:
    """Do the job whose order lies in `folder`, and write there what came of it.

    What the command would refuse with a message is an outcome; any other error leaves this process.
    """
    order = ORDERS.validate_python(folder.order())
    try:
        outcome = _done(order, folder, settings)
    except TriageError as error:
        folder.end(refusal=_without_paths(str(error), folder))
        return
    folder.end(outcome=outcome)


def _done(order: JobOrder, folder: JobFolder, settings: Settings) -> JobOutcome:
    # Imported when it is needed: a package is made without what runs models.
    if isinstance(order, InitOrder | CheckOrder):
        from triage.jobs import packages  # noqa: PLC0415

        if isinstance(order, InitOrder):
            return packages.scaffold_upload(order, folder, settings)
        return packages.check(order, folder, settings)
    from triage.jobs import cases  # noqa: PLC0415

    if isinstance(order, TryOrder):
        return cases.try_version(order, folder, settings)
    return cases.evaluate(order, folder, settings)


def give_way(niceness: int) -> None:
    """Let everything else on this machine go first: its processors, and its memory.

    The model's processes are children of this one and inherit both.
    """
    os.nice(niceness)
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        return  # another system: then the kernel chooses


def _without_paths(text: str, folder: JobFolder) -> str:
    """Return a message without the place of the folder, which is of no use to who asked."""
    for place in (folder.out, folder.work, folder.uploads, folder.path):
        text = text.replace(f"{place}/", "").replace(str(place), "the upload")
    return text
