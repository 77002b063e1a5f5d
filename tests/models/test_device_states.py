"""What a worker says of its devices."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from triage.core.devices import DeviceState
from triage.models.device_states import DeviceWatch, device_states


def test_cpu_is_told_with_its_memory() -> None:
    (cpu,) = device_states(["cpu"])
    assert cpu.memory_used_bytes is not None
    assert cpu.memory_total_bytes is not None
    assert 0 < cpu.memory_used_bytes < cpu.memory_total_bytes
    assert cpu.busy is not None
    assert 0 <= cpu.busy <= 1


def test_device_that_is_not_there_is_a_problem_and_no_error() -> None:
    cpu, gpu = device_states(["cpu", "cuda:99"])
    assert cpu.problem == ""
    assert gpu.name == "cuda:99"
    assert gpu.problem


def test_driver_that_hangs_holds_up_nobody_and_is_not_asked_twice_at_once() -> None:
    asked, answer = [], threading.Event()

    def look(names: Sequence[str]) -> list[DeviceState]:
        asked.append(names)
        answer.wait()
        return [DeviceState(name=name, title="there") for name in names]

    watch = DeviceWatch(["cuda:0"], look)
    assert watch.states(0.01)[0].problem == "its driver does not answer"
    assert watch.states(0.01)[0].problem
    assert len(asked) == 1
    answer.set()
    assert watch.states(10)[0].title == "there"
