"""Several receiver processes share the worklist, and a killed receiver forgets nothing of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.receiver.test_processes import Receivers
from tests.receiver.ups.workstation import EVERYTHING, Workstation, creation
from tests.tools import wait_until


@pytest.fixture
def workstation() -> Iterator[Workstation]:
    one = Workstation()
    yield one
    one.stop()


@pytest.fixture
def receivers(tmp_path: Path, workstation: Workstation) -> Iterator[Receivers]:
    running = Receivers(
        tmp_path,
        TRIAGE_RECEIVER__PROCESSES="2",
        TRIAGE_REMOTES=json.dumps([workstation.as_remote()]),
        TRIAGE_UPS__FIRST_RETRY_S="0.2",
        TRIAGE_UPS__LONGEST_RETRY_S="0.2",
        TRIAGE_UPS__MAXIMUM_ATTEMPTS="10000",
    )
    yield running
    running.process.terminate()
    running.process.wait(timeout=30)
    running.database.close()


def test_claims_at_several_processes_and_events_after_a_kill(
    receivers: Receivers, workstation: Workstation
) -> None:
    with workstation.at(receivers.port) as ups:
        assert ups.subscribe(EVERYTHING) == 0x0000
        _, uid = ups.create(creation())

    def claim(number: int) -> int:
        with Workstation(ae_title=f"READER{number}").at(receivers.port) as ups:
            return ups.change_state(uid, "IN PROGRESS", f"1.9.{number}")

    with ThreadPoolExecutor(3) as threads:
        assert sorted(threads.map(claim, range(3))) == [0x0000, 0xC301, 0xC301]
    for process in (receivers.process.pid, *receivers.children()):
        os.kill(process, signal.SIGKILL)
    receivers.process.wait()
    workstation.listen()
    receivers.process = receivers.start()
    wait_until(lambda: len(workstation.told) >= 3, "the workstation was told", timeout_s=60)
    states = [told[2].ProcedureStepState for told in workstation.told if told[1] == uid]
    assert states == ["SCHEDULED", "IN PROGRESS"]
    assert [told[2].SCPStatus for told in workstation.told if told[0] == 4] == ["RESTARTED"]
