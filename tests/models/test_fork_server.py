"""Hosts that are forked: as confined and as separate as those started afresh, and sooner there."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.test_host import volume
from tests.tools import wait_until
from triage.models import starting
from triage.models.confinement import Launch, host_environment, launch_of
from triage.models.forked import ForkedProcess, ForkServer, ForkServerError, fork_server
from triage.models.host import ModelHosts
from triage.models.packages import ModelPackage


@pytest.fixture
def server() -> Iterator[ForkServer]:
    server = ForkServer(imported=())  # what models need takes seconds, and none is run
    yield server
    server.close()


class Forked:
    """A forked process that waits to be told what to load, and the worker's ends of it."""

    def __init__(self, server: ForkServer, environment: dict[str, str] | None = None) -> None:
        self.channel, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.printed, output = os.pipe()
        lifeline, self.lifeline = os.pipe()
        given = environment or host_environment(os.environ, None)
        order = {"policy": None, "environment": {**given, "HOME": "/of/this/host"}}
        try:
            self.process = server.fork(order, (channel.fileno(), lifeline, output), given)
        finally:
            channel.close()
            os.close(output)
            os.close(lifeline)

    def end(self) -> None:
        self.channel.close()
        os.close(self.printed)
        os.close(self.lifeline)


def test_exit_status_is_told_as_a_parent_would_know_it(server: ForkServer) -> None:
    first, second = Forked(server), Forked(server)
    assert first.process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        first.process.wait(0.01)
    first.channel.close()  # what a host takes for the worker's goodbye
    assert first.process.wait(10) == 0
    second.process.kill()
    assert second.process.wait(10) == second.process.poll() == -signal.SIGKILL
    second.process.kill()  # nothing is there to be ended any more


def test_forked_process_holds_no_descriptor_of_the_server_or_another_host(
    server: ForkServer,
) -> None:
    first, second = Forked(server), Forked(server)
    # Standard input, output and error; the channel and the lifeline. Nothing of the server's.
    ends = ["/dev/null", "pipe", "pipe", "pipe", "socket"]
    wait_until(lambda: _open_files(second.process) == ends, "it holds its own ends only")
    for forked in (first, second):
        forked.end()
        forked.process.wait(10)


def _open_files(process: ForkedProcess) -> list[str]:
    links = [str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
    return sorted(link.partition(":")[0] for link in links)


def test_server_that_was_killed_is_started_again(server: ForkServer) -> None:
    forked = Forked(server)
    assert server._running is not None
    killed = server._running.process
    killed.kill()
    killed.wait()
    assert forked.process.poll() is None, "a host does not end with its server"
    another = Forked(server)
    assert server._running.process.pid != killed.pid
    for process in (forked.process, another.process):
        process.kill()
        assert process.wait(10) == -signal.SIGKILL


def test_server_with_another_environment_is_replaced(server: ForkServer) -> None:
    given = host_environment(os.environ, None)
    Forked(server, given).end()
    assert server._running is not None
    before = server._running.process
    Forked(server, given).end()
    assert server._running.process is before
    Forked(server, {**given, "OMP_NUM_THREADS": "3"}).end()
    assert server._running.process.pid != before.pid
    assert before.poll() is not None


def test_server_that_cannot_start_says_why(server: ForkServer) -> None:
    given = host_environment(os.environ, None)
    with pytest.raises(ForkServerError, match=r"its last words: .*no Python frame"):
        Forked(server, {**given, "PYTHONHOME": "/nonexistent"})


def test_server_ends_when_its_worker_is_gone(server: ForkServer) -> None:
    Forked(server).end()
    assert server._running is not None
    server._running._orders.close()
    assert server._running.process.wait(10) == 0


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> ForkedProcess:
        raise ForkServerError("no process can be made")

    monkeypatch.setattr(fork_server, "fork", refuse)


@pytest.mark.usefixtures("no_server")
def test_host_is_started_afresh_where_forking_fails(
    hosts: ModelHosts, segmentation: ModelPackage
) -> None:
    assert hosts.infer_now(segmentation, volume()).to_arrays()


@pytest.mark.parametrize("device", ["cuda:0", "mps"])
def test_host_on_an_accelerator_is_started_afresh(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not(*_: object) -> ForkedProcess:
        raise AssertionError("it was forked")

    monkeypatch.setattr(fork_server, "fork", must_not)
    launch = launch_of(Path("package"), "off")
    with subprocess.Popen(["true"]) as short:
        short.wait()
    read, write = os.pipe()
    process, words = starting.start_host(launch, device, write, read)
    process.kill()
    process.wait()
    assert words.text() == ""
    launch.clean_up()
    os.close(read)
    os.close(write)


def test_launch_names_what_a_host_is_started_with() -> None:
    assert Launch(None, {}, None).command[-1] == "triage.models.host_process"
    assert Launch("{}", {}, None).command[-2:] == ("triage.models.sandbox", "{}")
