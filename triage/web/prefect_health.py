"""Whether Prefect answers, asked for all pages together."""

from __future__ import annotations

import threading
import time

import httpx

_ASKED_EVERY_S = 15.0
_TIMEOUT_S = 2.0


class PrefectHealth:
    """Asks Prefect's API whether it is there, at most every fifteen seconds, for all pages."""

    def __init__(self, api_url: str) -> None:
        self._address = api_url.rstrip("/") + "/health"
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._said = ""

    def problem(self) -> str:
        """Return why Prefect cannot be reached, empty where it answers."""
        with self._lock:
            if time.monotonic() - self._asked_at > _ASKED_EVERY_S:
                self._said = self._ask()
                self._asked_at = time.monotonic()
            return self._said

    def _ask(self) -> str:
        try:
            answer = httpx.get(self._address, timeout=_TIMEOUT_S, trust_env=False)
        except httpx.HTTPError as error:
            return type(error).__name__
        return "" if answer.is_success else f"it answers {answer.status_code}"
