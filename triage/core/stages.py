"""The stages of a model version's life."""

from __future__ import annotations

import hashlib
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


def is_in_share(name: str, study_instance_uid: str, share: float) -> bool:
    """Return whether the canary of the model `name` answers for a study.

    The digest of both decides: a study stays on its side however often it is asked, also where
    the share grows, and each model has a share of its own.

    >>> [is_in_share("m", f"1.2.{n}", 0.5) for n in range(4)].count(True)
    2
    """
    digest = hashlib.sha256(f"{name}\0{study_instance_uid}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
