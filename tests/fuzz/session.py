"""A number of inputs for an entrance, counted by outcome."""

from __future__ import annotations

import logging
from collections import Counter

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.entrances import Entrance
from tests.fuzz.mutations import mutations_of


def fuzz(entrance: Entrance, *, inputs: int, start: int | None = None) -> Counter[str]:
    """Feed `inputs` mutated inputs and return how often each outcome came.

    Args:
        entrance: where they go in.
        inputs: how many.
        start: the seed of the search; None is the same search each time.

    Raises:
        AssertionError: or whatever the broken promise raised; Hypothesis says the shortest input.
    """
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=inputs,
        derandomize=start is None,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutations_of(entrance.originals()))
    def feed(content: bytes) -> None:
        outcomes[entrance.feed(content)] += 1

    # pynetdicom logs each PDU that it cannot decode; pytest would keep and show them all.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    (feed if start is None else seed(start)(feed))()
    return outcomes
