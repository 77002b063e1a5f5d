"""The stages of a model version's life."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """Where a model version stands.

    SHADOW runs on today's studies, and nobody but the ML engineer sees what it says. CANARY
    answers for a share of the studies, the version in production for the others. PRODUCTION
    answers for all. RETIRED runs no more; what it said stays.
    """

    SHADOW = "shadow"
    CANARY = "canary"
    PRODUCTION = "production"
    RETIRED = "retired"

    @property
    def counts(self) -> bool:
        """Whether its runs may touch the worklist, the archive and a radiologist's eyes."""
        return self in COUNTING_STAGES


COUNTING_STAGES = frozenset({Stage.CANARY, Stage.PRODUCTION})
RUNNING_STAGES = frozenset({Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION})
