"""Open worklists without a browser: each follows the events and asks for the rows that changed."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress

_PAUSE_S = 0.12
"""How long the page waits for more changes before it asks (static/js/live.js, `calmly`)."""
_SEEN_WITHIN_S = 60.0
_BETWEEN_FLAGS_S = 0.5


class OpenPages:
    """Some number of pages, each with two connections: the events, and what it asks for."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._count = count
        self._wanted = ""
        self._pending = 0
        self._all_have_it = asyncio.Event()
        self._seen: list[float] = []

    def can_connect(self) -> bool:
        """Return whether the server listens."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
            return True
        return False

    async def follow(self, flags: int, flag: Callable[[int], str]) -> list[float]:
        """Open the pages, flag studies one by one, and return each page's seconds for each."""
        ready = asyncio.Semaphore(0)
        pages = [asyncio.create_task(self._page(ready)) for _ in range(self._count)]
        for _ in pages:
            await asyncio.wait_for(ready.acquire(), _SEEN_WITHIN_S)
        seconds: list[float] = []
        for number in range(flags):
            await asyncio.sleep(_BETWEEN_FLAGS_S)
            self._seen, self._pending = [], self._count
            self._all_have_it.clear()
            self._wanted = await asyncio.to_thread(flag, number)
            committed = time.perf_counter()
            await asyncio.wait_for(self._all_have_it.wait(), _SEEN_WITHIN_S)
            seconds += [at - committed for at in self._seen]
        for page in pages:
            page.cancel()
        await asyncio.gather(*pages, return_exceptions=True)
        return seconds

    async def _page(self, ready: asyncio.Semaphore) -> None:
        events, writer = await self._connect()
        writer.write(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        asking = await self._connect()
        tag, had = "", ""
        is_first = True
        while line := await events.readline():
            if not line.startswith(b"data: "):
                continue
            await asyncio.sleep(_PAUSE_S)
            tag, content = await self._ask(*asking, tag)
            if is_first:
                is_first = False
                ready.release()
            wanted = self._wanted
            if wanted and had != wanted and wanted in content:
                had = wanted
                self._seen.append(time.perf_counter())
                self._pending -= 1
                if not self._pending:
                    self._all_have_it.set()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tag: str
    ) -> tuple[str, str]:
        """Ask for the rows; return the tag of the list and the rows that were sent."""
        body = json.dumps({"tag": tag}).encode()
        head = (
            "POST /worklist/rows HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Triage-Request: benchmark\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        said = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if said.startswith("http/1.1 304"):
            return tag, ""
        if not said.startswith("http/1.1 200"):
            raise SystemExit(f"the server answers {said.splitlines()[0]}")
        length = int(said.split("content-length: ")[1].split("\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        return answer["tag"], " ".join(answer["rows"])
