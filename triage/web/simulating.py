"""Simulations for pages and API: one at a time, in a thread of their own, few waiting."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from fastapi import HTTPException

from triage.simulation.compare import WaitComparison, compare
from triage.simulation.scenario import Scenario, ScenarioError
from triage.web.refusals import RefusedRequestError

MOST_STUDIES = 100_000
"""So many studies are read in a few seconds, twice."""

_MOST_AT_ONCE = 4
_TRY_AGAIN_S = 5


class Simulations:
    """Plays scenarios. A thread shares the processor with the pages, so there is one."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="simulate")
        self._running = 0

    async def play(self, scenario: Scenario, seed: int = 1) -> WaitComparison:
        """Play a scenario, after those that wait.

        Raises:
            HTTPException: 422, it is too large for a page; 503, too many wait already.
        """
        if self._running >= _MOST_AT_ONCE:
            raise HTTPException(
                503,
                "Other simulations are under way; try again in a few seconds.",
                {"Retry-After": str(_TRY_AGAIN_S)},
            )
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: compare(scenario, seed=seed, most_studies=MOST_STUDIES)
            )
        except ScenarioError as error:
            raise RefusedRequestError(422, str(error), error.field) from error
        finally:
            self._running -= 1

    def close(self) -> None:
        """End with what is under way."""
        self._thread.shutdown(wait=False, cancel_futures=True)
