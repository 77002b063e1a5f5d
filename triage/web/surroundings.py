"""What the pages know of the surroundings: version, room on the disk, whether Prefect answers."""

from __future__ import annotations

from importlib.metadata import version

from triage.web.context import WebContext
from triage.worklist.operations_board import Reachability

_MB = 1024 * 1024


def surroundings(context: WebContext) -> Reachability:
    """Return them as the board states them."""
    problem = context.prefect.problem()
    return Reachability(
        version=version("triage"),
        prefect=problem,
        prefect_is_reached=not problem,
        free_bytes=context.files.free_bytes(),
        minimum_free_bytes=context.settings.receiver.minimum_free_mb * _MB,
    )
