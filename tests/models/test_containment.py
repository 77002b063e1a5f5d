"""What goes wrong in a model stays in its host: floods, junk, leaks, full devices."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.models.test_host import is_running, pid_of, volume
from tests.models.tiny import (
    CRASH_HU,
    FLOOD_HU,
    JUNK_HU,
    LARGE_HU,
    LAST_WORDS,
    LEAK_HU,
    make_segmentation,
)
from tests.tools import wait_until
from triage.core.analysis import AnalysisFailedError
from triage.models.channel import Channel, Message, channel_pair
from triage.models.host import ModelHosts
from triage.models.memory import DeviceMemory, HostMemory, full_devices
from triage.models.packages import ModelPackage
from triage.models.room import run_within_memory
from triage.models.tensors import ModelInput, ModelOutput
from triage.settings import WorkerSettings

GB = 1 << 30


@pytest.fixture
def hosts_with() -> Iterator[Callable[..., ModelHosts]]:
    """Hosts with settings of their own."""
    made: list[ModelHosts] = []

    def make(**settings: object) -> ModelHosts:
        made.append(ModelHosts(WorkerSettings.model_validate({"device": "cpu"} | settings)))
        return made[-1]

    yield make
    for hosts in made:
        hosts.close()


def test_flood_of_words_blocks_no_host_and_the_last_ones_are_told(
    hosts: ModelHosts, segmentation: ModelPackage
) -> None:
    with pytest.raises(AnalysisFailedError, match=f"status 4; its last words: {LAST_WORDS}"):
        hosts.infer_now(segmentation, volume(FLOOD_HU))


def test_host_that_talks_nonsense_is_ended(hosts: ModelHosts, segmentation: ModelPackage) -> None:
    hosts.infer_now(segmentation, volume())
    before = pid_of(hosts, segmentation)
    with pytest.raises(AnalysisFailedError, match="broke its channel"):
        hosts.infer_now(segmentation, volume(JUNK_HU))
    assert not is_running(before)


async def test_run_that_waits_behind_a_crash_is_done_in_a_new_host(
    hosts: ModelHosts, segmentation: ModelPackage
) -> None:
    crashed, *others = await asyncio.gather(
        hosts.infer(segmentation, volume(CRASH_HU)),
        hosts.infer(segmentation, volume()),
        hosts.infer(segmentation, volume()),
        return_exceptions=True,
    )
    assert isinstance(crashed, AnalysisFailedError)
    assert [type(output) for output in others] == [ModelOutput, ModelOutput]


def test_host_that_leaks_or_is_old_is_replaced_by_a_warm_one(
    hosts_with: Callable[..., ModelHosts], tmp_path: Path
) -> None:
    hosts = hosts_with(host_growth_factor=1.2)
    package = make_segmentation(tmp_path / "old", runner={"recycle_after_runs": 3})

    def replaced_after(*brightest_hu: float) -> None:
        hosts.warm_now(package)
        before = pid_of(hosts, package)
        for greatest in brightest_hu:
            assert is_running(before)
            hosts.infer_now(package, volume(greatest))
        assert not is_running(before)
        wait_until(lambda: hosts.is_warm(package), "a new host is there", timeout_s=60)

    replaced_after(200, LEAK_HU)
    replaced_after(200, 200, 200)


def test_run_too_large_for_its_device_goes_to_the_cpu_where_the_manifest_lets_it(
    hosts_with: Callable[..., ModelHosts], tmp_path: Path
) -> None:
    # "cpu:0" is a device of its own name, as a GPU would be.
    hosts = hosts_with(device="cpu:0")
    package = make_segmentation(tmp_path / "large", runner={"cpu_fallback": True})
    assert hosts.infer_now(package, volume(LARGE_HU)).probabilities is not None
    assert list(hosts.process_ids()) == ["tiny-segmentation 1.0.0 on cpu"]


@pytest.mark.slow
def test_models_spread_over_the_devices(
    hosts_with: Callable[..., ModelHosts],
    segmentation: ModelPackage,
    classification: ModelPackage,
) -> None:
    hosts = hosts_with(device="cpu,cpu:0")
    hosts.warm_now(segmentation)
    hosts.warm_now(classification)
    hosts.infer_now(segmentation, volume())  # where it is warm already
    assert set(hosts.process_ids()) == {
        "tiny-segmentation 1.0.0",
        "tiny-classification 1.0.0 on cpu:0",
    }


class _Windows:
    """A runner that has room for three windows."""

    window_batch = 16

    def run(self, model_input: ModelInput) -> ModelOutput:
        if self.window_batch > 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return ModelOutput()


def test_full_device_gets_smaller_pieces_and_keeps_to_them() -> None:
    runner = _Windows()
    _, remark = run_within_memory(runner, volume())
    assert runner.window_batch == 2
    assert remark == "from now on 2 windows go through the network at once"
    assert run_within_memory(runner, volume())[1] == ""


def test_device_is_full_until_those_that_ended_have_made_room() -> None:
    small = HostMemory("cuda:0", GB, DeviceMemory(used=70 * GB, total=80 * GB, held=5 * GB))
    large = HostMemory("cuda:0", GB, DeviceMemory(used=75 * GB, total=80 * GB, held=40 * GB))
    other = HostMemory("cuda:1", GB, DeviceMemory(used=10 * GB, total=80 * GB, held=8 * GB))
    assert full_devices([small, other, large], []) == {"cuda:0"}
    assert full_devices([other, large], [small]) == set()
    assert full_devices([HostMemory("cpu", GB)], []) == set()


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """The two ends of a channel."""
    ours, theirs = map(Channel, channel_pair())
    yield ours, theirs
    ours.close()
    theirs.close()


def test_arrays_arrive_in_memory_that_is_used_again(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    for shape in [(3, 4), (2, 2), (300, 500), (0,), (5,)]:
        values = np.random.default_rng(1).random(shape)
        ours.send(Message({"do": "run"}, {"values": values, "other": values[..., ::-1]}))
        message = theirs.receive()
        assert message is not None
        np.testing.assert_array_equal(message.arrays["values"], values)
        np.testing.assert_array_equal(message.arrays["other"], values[..., ::-1])


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"name": "labels", "shape": [4], "dtype": "|O"}, "only numbers"),
        ({"name": "labels", "shape": [5000, 5000], "dtype": "<f4"}, "came in 4096"),
        ({"name": "labels", "shape": [-4], "dtype": "|u1"}, "negative"),
        ({"name": "labels"}, "no message"),
    ],
)
def test_array_that_is_not_what_it_is_said_to_be_is_refused(
    ends: tuple[Channel, Channel], described: dict[str, object], words: str
) -> None:
    memory = os.memfd_create("lie", os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, 4096)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    with pytest.raises(ValueError, match=words):
        refused(ends, memory, described)


def test_array_whose_memory_may_shrink_is_refused(ends: tuple[Channel, Channel]) -> None:
    memory = os.memfd_create("lie")
    os.ftruncate(memory, 4096)
    with pytest.raises(ValueError, match="may still change"):
        refused(ends, memory, {"name": "labels", "shape": [4], "dtype": "|u1"})


def refused(ends: tuple[Channel, Channel], memory: int, described: dict[str, object]) -> None:
    """Send a message as a host does that is not ours."""
    ours, theirs = ends
    envelope = json.dumps({"content": {"ok": True}, "arrays": [described]}).encode()
    socket.send_fds(theirs._socket, [envelope], [memory])
    os.close(memory)
    ours.receive()
