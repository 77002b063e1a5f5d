"""How requests are sent: identity, time limits, retries, and refusals as errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import httpx

from triage.client.errors import TriageClientError, UnavailableError, error_of
from triage.core.backoff import pause_s

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_UNAVAILABLE = 503
_IDEMPOTENT = frozenset({"GET", "PUT", "DELETE"})


class Connection:
    """A connection to one server.

    What the server answers with 503 it has not done, so it is asked again, up to `retries` times,
    after what Retry-After says or after doubling pauses. What was not answered at all is asked
    again only where doing it twice is doing it once (GET, PUT, DELETE).
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        timeout_s: float = 30.0,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Make a connection; nothing is sent yet.

        Args:
            url: of the pages, such as `https://triage.hospital.example`.
            token: sent as `Authorization: Bearer`; made at /account or by `triage users token`.
            timeout_s: for each step of a request.
            retries: how often is asked again.
            transport: of httpx, for certificates or proxies of one's own.
            sleep: waits for so many seconds.
        """
        headers = {"Accept": "application/json", "X-Triage-Request": "client"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx.Client(
            base_url=url.rstrip("/"), headers=headers, timeout=timeout_s, transport=transport
        )
        self._retries = retries
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open to the server."""
        self._http.close()

    def send(
        self, method: str, address: str, content: Callable[[ExitStack], dict[str, Any]]
    ) -> httpx.Response:
        """Return the answer of success.

        `content` makes what is sent, for each attempt anew: a file is read from its beginning.

        Raises:
            TriageClientError: it was refused, or there was no answer.
        """
        for attempt in range(1, self._retries + 2):
            is_last = attempt > self._retries
            try:
                with ExitStack() as files:
                    answer = self._http.request(method, address, **content(files))
            except httpx.TransportError as error:
                if is_last or method not in _IDEMPOTENT:
                    raise UnavailableError(
                        f"no answer from {self._http.base_url}: {error}"
                    ) from error
                self._sleep(_pause_s(attempt))
                continue
            if answer.is_success:
                return answer
            if answer.status_code != _UNAVAILABLE or is_last:
                raise _refusal(answer)
            self._sleep(_pause_s(attempt, answer.headers.get("retry-after", "")))
        raise AssertionError("the last attempt returns or raises")


def _pause_s(attempt: int, retry_after: str = "") -> float:
    """Return how long to wait; Retry-After in seconds goes before (RFC 9110 10.2.3)."""
    if retry_after.isdecimal():
        return min(float(retry_after), _LONGEST_PAUSE_S)
    return pause_s(attempt, first_s=_FIRST_PAUSE_S, longest_s=_LONGEST_PAUSE_S)


def _refusal(answer: httpx.Response) -> TriageClientError:
    try:
        said = answer.json()
    except ValueError:
        said = None
    detail, field = "", ""
    if isinstance(said, dict):
        detail, field = str(said.get("detail") or ""), str(said.get("field") or "")
    detail = detail or f"the server answered {answer.status_code} {answer.reason_phrase}"
    return error_of(answer.status_code, detail, field)
