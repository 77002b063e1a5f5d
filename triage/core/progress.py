"""How far a run is, told by who carries it to whoever asks."""

from __future__ import annotations

from contextvars import ContextVar
from enum import StrEnum


class RunStep(StrEnum):
    """What a worker does for a run at this moment, in the order of the steps."""

    DECODE = "decoding the images"
    INFER = "in the model, or waiting for its host"
    INTERPRET = "reading the output as findings"
    FLAG = "writing findings and priority"
    RESULTS = "building the result objects"
    COMPLETE = "completing"


class RunProgress:
    """The present step of one run."""

    def __init__(self) -> None:
        self.step = RunStep.DECODE


run_progress: ContextVar[RunProgress] = ContextVar("run_progress", default=RunProgress())  # noqa: B039
"""That of the run which this task carries; by default one that nobody looks at."""
