"""Model hosts: warm, contained when a model misbehaves, and gone with their worker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.models.tiny import (
    CRASH_HU,
    FULL_HU,
    HANG_HU,
    KILL_HU,
    LESION_FROM_HU,
    STUCK_HU,
    WRONG_SHAPE_SLICES,
    make_segmentation,
)
from tests.tools import wait_until
from triage.core.analysis import AnalysisFailedError, NotTheModelsFaultError
from triage.models.host import ModelHosts
from triage.models.packages import ModelPackage, PackageError
from triage.models.stopping import StopSignal
from triage.models.tensors import ModelInput
from triage.settings import WorkerSettings

AFFINE = np.diag([0.5, 0.5, 5.0, 1.0])


def volume(greatest: float = 200.0, slices: int = 4) -> ModelInput:
    values = np.full((slices, 9, 8), 30.0, np.float32)
    values[1, 2, 3] = greatest
    return ModelInput(values, AFFINE)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def pid_of(hosts: ModelHosts, package: ModelPackage) -> int:
    return hosts.process_ids()[package.manifest.identity]


def test_answer_lies_on_the_voxels_that_were_sent(
    hosts: ModelHosts, segmentation: ModelPackage
) -> None:
    sent = volume()
    output = hosts.infer_now(segmentation, sent)
    assert output.labels is None
    assert output.probabilities is not None
    assert output.probabilities.dtype == np.float32
    expected = sent.values > LESION_FROM_HU
    np.testing.assert_array_equal(output.probabilities[0] > 0.5, expected)


def test_host_stays_warm(hosts: ModelHosts, segmentation: ModelPackage) -> None:
    hosts.infer_now(segmentation, volume())
    before = pid_of(hosts, segmentation)
    hosts.infer_now(segmentation, volume())
    assert pid_of(hosts, segmentation) == before


async def test_event_loop_goes_on_while_models_run(
    hosts: ModelHosts, segmentation: ModelPackage, classification: ModelPackage
) -> None:
    image = ModelInput(np.full((1, 1, 32, 32), 0.25, np.float32))
    runs = asyncio.gather(
        hosts.infer(segmentation, volume()),
        hosts.infer(classification, image),
        hosts.infer(segmentation, volume()),
    )
    longest, last = 0.0, time.perf_counter()
    while not runs.done():
        await asyncio.sleep(0.01)
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    _, classified, _ = await runs
    np.testing.assert_allclose(classified.probabilities, [0.25, 0.25])
    assert classified.heat_maps is not None
    assert classified.heat_maps.shape == (2, 4, 4)
    assert longest < 1.0


@pytest.mark.parametrize(
    ("greatest", "words"),
    [(CRASH_HU, "exited with status 3"), (KILL_HU, "ended by SIGKILL, perhaps for want of memory")],
)
def test_crash_fails_the_run_and_the_next_one_has_a_new_host(
    hosts: ModelHosts, segmentation: ModelPackage, greatest: float, words: str
) -> None:
    hosts.infer_now(segmentation, volume())
    before = pid_of(hosts, segmentation)
    with pytest.raises(AnalysisFailedError, match=f"tiny-segmentation 1.0.0 ended: .*{words}"):
        hosts.infer_now(segmentation, volume(greatest))
    assert hosts.infer_now(segmentation, volume()).probabilities is not None
    assert pid_of(hosts, segmentation) != before


def test_hang_is_stopped_at_its_time_limit(hosts: ModelHosts, segmentation: ModelPackage) -> None:
    hosts.infer_now(segmentation, volume())
    before = pid_of(hosts, segmentation)
    with pytest.raises(AnalysisFailedError, match=r"took longer than 0\.5 s and was stopped"):
        hosts.infer_now(segmentation, volume(HANG_HU), 0.5)
    assert not is_running(before)


def test_error_of_a_model_is_stated(hosts: ModelHosts, segmentation: ModelPackage) -> None:
    with pytest.raises(AnalysisFailedError, match=r"the prediction has the shape .*add Invertd"):
        hosts.infer_now(segmentation, volume(slices=WRONG_SHAPE_SLICES))


def test_least_recently_used_host_is_evicted_when_memory_is_short(
    segmentation: ModelPackage, classification: ModelPackage
) -> None:
    # Any process with torch in it holds more than half of this.
    hosts = ModelHosts(WorkerSettings(device="cpu", host_memory_mb=256))
    try:
        hosts.infer_now(segmentation, volume())
        first = pid_of(hosts, segmentation)
        hosts.infer_now(classification, ModelInput(np.zeros((1, 1, 32, 32), np.float32)))
        assert list(hosts.process_ids()) == ["tiny-classification 1.0.0"]
        assert not is_running(first)
    finally:
        hosts.close()


def test_full_device_is_cleared_of_models_that_wait(
    hosts: ModelHosts, segmentation: ModelPackage, classification: ModelPackage
) -> None:
    hosts.infer_now(classification, ModelInput(np.zeros((1, 1, 32, 32), np.float32)))
    with pytest.raises(AnalysisFailedError, match="CUDA out of memory"):
        hosts.infer_now(segmentation, volume(FULL_HU))
    assert hosts.process_ids() == {}


def test_model_that_cannot_be_loaded_says_so(hosts: ModelHosts, tmp_path: Path) -> None:
    # A name of its own: the hosts are shared, and the working tiny model may be warm in them.
    package = make_segmentation(
        tmp_path / "tiny", preprocessing=[{"_target_": "NoSuchThing"}], name="tiny-broken"
    )
    with pytest.raises(PackageError, match=r"cannot be loaded: .*NoSuchThing"):
        hosts.warm_now(package)
    assert package.manifest.identity not in hosts.process_ids()


def test_closing_ends_a_run_that_is_under_way(segmentation: ModelPackage) -> None:
    async def run_and_close() -> None:
        hosts = ModelHosts(WorkerSettings(device="cpu"))
        await hosts.warm(segmentation)
        pid = pid_of(hosts, segmentation)
        run = asyncio.ensure_future(hosts.infer(segmentation, volume(HANG_HU)))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(hosts.close)
        with pytest.raises(AnalysisFailedError, match="stopp"):
            await run
        assert not is_running(pid)

    asyncio.run(run_and_close())


_WORKER = """
import sys
from pathlib import Path
import numpy as np
from triage.models.host import ModelHosts
from triage.models.packages import load_package
from triage.models.tensors import ModelInput
from triage.settings import WorkerSettings

hosts = ModelHosts(WorkerSettings(device="cpu"))
package = load_package(Path(sys.argv[1]))
hosts.warm_now(package)
print(*hosts.process_ids().values(), flush=True)
hosts.infer_now(package, ModelInput(np.full((3, 8, 8), float(sys.argv[2]), np.float32), np.eye(4)))
"""


@pytest.fixture(params=[HANG_HU, STUCK_HU], ids=["sleeps", "holds Python's lock"])
def busy_worker(
    segmentation: ModelPackage, request: pytest.FixtureRequest
) -> Iterator[subprocess.Popen[str]]:
    """A process whose host hangs in a run."""
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(segmentation.path), str(request.param)],
        stdout=subprocess.PIPE,
        text=True,
    )
    yield worker
    worker.kill()
    worker.wait()


def test_no_host_outlives_a_worker_that_was_killed(busy_worker: subprocess.Popen[str]) -> None:
    assert busy_worker.stdout is not None
    lines = (line.split() for line in busy_worker.stdout)
    host = next(int(words[0]) for words in lines if words and words[0].isdigit())
    os.kill(host, signal.SIGINT)  # Ctrl-C reaches hosts too, and is the worker's to answer
    time.sleep(0.2)
    assert is_running(host)
    busy_worker.kill()
    wait_until(lambda: not is_running(host), "the host is gone", timeout_s=5)


def test_run_that_is_stopped_ends_at_once_and_the_next_one_has_a_new_host(
    hosts: ModelHosts, segmentation: ModelPackage
) -> None:
    hosts.infer_now(segmentation, volume())
    before = pid_of(hosts, segmentation)
    stop = StopSignal()
    with ThreadPoolExecutor(2) as threads:
        hanging = threads.submit(hosts.infer_now, segmentation, volume(HANG_HU), 60.0, stop)
        wait_until(lambda: stop.is_computing, "the model computes")
        waiting = threads.submit(hosts.infer_now, segmentation, volume())
        stop.set()
        with pytest.raises(NotTheModelsFaultError, match="its host was stopped"):
            hanging.result()
        assert waiting.result().probabilities is not None
    assert not is_running(before)


def test_run_that_was_stopped_while_it_waited_leaves_the_host_alone(
    hosts: ModelHosts, segmentation: ModelPackage
) -> None:
    hosts.infer_now(segmentation, volume())
    before = pid_of(hosts, segmentation)
    stop = StopSignal()
    stop.set()
    with pytest.raises(NotTheModelsFaultError, match="before the model began"):
        hosts.infer_now(segmentation, volume(), None, stop)
    assert is_running(before)
    assert pid_of(hosts, segmentation) == before
