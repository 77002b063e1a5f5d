"""The naive ways from "something is due" to the first line of code, one by one, through Prefect.

`python benchmarks/dispatch_alternatives.py WAY COUNT` prints seconds, one number a line. The
address of Prefect comes from the environment; each way runs in a process of its own, as a user of
Prefect would write it.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from prefect import flow, task
from prefect.deployments import run_deployment
from prefect.task_worker import serve as serve_tasks

_MARKS = Path(tempfile.mkdtemp(prefix="triage-dispatch-"))
_numbers = itertools.count()


@flow(name="dispatch-async")
async def async_flow() -> float:
    """Return the moment at which the flow's first line ran."""
    return time.time()


@flow(name="dispatch-sync")
def sync_flow() -> float:
    """Return the moment at which the flow's first line ran."""
    return time.time()


@flow(name="dispatch-marking")
def marking_flow(mark: str) -> None:
    """Write the moment at which the flow's first line ran into the file `mark`."""
    now = time.time()
    _write(Path(mark), now)


@task(name="dispatch-task")
def marking_task(mark: str) -> None:
    """Write the moment at which the task's first line ran into the file `mark`."""
    now = time.time()
    _write(Path(mark), now)


def _write(mark: Path, moment: float) -> None:
    unfinished = mark.with_suffix(".part")
    unfinished.write_text(repr(moment))
    unfinished.replace(mark)


async def async_flows(count: int) -> AsyncIterator[float]:
    """An async flow called in a warm process; the first call, which imports, is left out."""
    await async_flow()
    for _ in range(count):
        started = time.time()
        yield await async_flow() - started


async def sync_flows(count: int) -> AsyncIterator[float]:
    """A sync flow called in a warm process: the whole call, as its caller has to wait for it."""
    sync_flow()
    for _ in range(count):
        started = time.time()
        await asyncio.to_thread(sync_flow)
        yield time.time() - started


async def background_tasks(count: int) -> AsyncIterator[float]:
    """`task.delay()` to a warm task worker."""
    worker = subprocess.Popen([sys.executable, __file__, "serve-tasks"], stdout=subprocess.DEVNULL)
    try:
        await _first(_delay, timeout_s=60)
        for _ in range(count):
            yield await _first(_delay, timeout_s=60)
    finally:
        worker.terminate()
        worker.wait()


def _delay(mark: Path) -> None:
    marking_task.delay(str(mark))


async def deployments(count: int) -> AsyncIterator[float]:
    """`run_deployment` of a flow that is served: a new process for each run."""
    server = subprocess.Popen([sys.executable, __file__, "serve-flow"], stdout=subprocess.DEVNULL)
    name = "dispatch-marking/dispatch-benchmark"
    try:
        await _when_served(name)
        for _ in range(count):
            yield await _first(lambda mark: _deploy(name, mark), timeout_s=120)
    finally:
        server.terminate()
        server.wait()


def _deploy(name: str, mark: Path) -> None:
    run_deployment(name, parameters={"mark": str(mark)}, timeout=0)


async def _when_served(name: str) -> None:
    until = time.monotonic() + 60
    while True:
        mark = _new_mark()
        try:
            await asyncio.to_thread(_deploy, name, mark)
        except Exception:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.5)
        else:
            await _moment_in(mark, 120)
            return


async def _first(start: Callable[[Path], None], *, timeout_s: float) -> float:
    mark = _new_mark()
    started = time.time()
    await asyncio.to_thread(start, mark)
    return await _moment_in(mark, timeout_s) - started


def _new_mark() -> Path:
    # A run that comes late must not be taken for the next one.
    return _MARKS / str(next(_numbers))


async def _moment_in(mark: Path, timeout_s: float) -> float:
    until = time.monotonic() + timeout_s
    while not mark.exists():
        if time.monotonic() > until:
            raise TimeoutError(f"nothing ran within {timeout_s:g} s")
        await asyncio.sleep(0.002)
    return float(mark.read_text())


WAYS = {
    "async-flow": async_flows,
    "sync-flow": sync_flows,
    "background-task": background_tasks,
    "deployment": deployments,
}


async def _print(way: str, count: int) -> None:
    async for seconds in WAYS[way](count):
        print(f"{seconds:.4f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve-tasks":
        serve_tasks(marking_task)
    elif sys.argv[1] == "serve-flow":
        marking_flow.serve(name="dispatch-benchmark")
    else:
        asyncio.run(_print(sys.argv[1], int(sys.argv[2])))
