"""Associations that take too long."""

from __future__ import annotations

import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from pynetdicom import AE

from tests.datasets import ct_slice
from tests.receiver.conftest import StartReceiver, associate, port_of
from tests.tools import wait_until
from triage.receiver.deadlines import Deadlines
from triage.receiver.provider import ArrivingMessage
from triage.store.database import Database


@dataclass
class Scene:
    """An association whose state a test sets."""

    message: object | None = None
    busy: bool = False
    over: bool = False
    ends: list[str] = field(default_factory=list)

    def arriving(self) -> object | None:
        return self.message

    def is_busy(self) -> bool:
        return self.busy

    def abort(self) -> None:
        self.ends.append("abort")

    def cut(self) -> None:
        self.ends.append("cut")

    def is_over(self) -> bool:
        return self.over


class Seconds:
    """A monotonic clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def watched(**limits: float) -> tuple[Deadlines, Scene, Seconds]:
    """Return deadlines that watch one association, and what moves them."""
    seconds, scene = Seconds(), Scene()
    defaults = {"message_s": 10.0, "association_s": 100.0}
    deadlines = Deadlines(**{**defaults, **limits}, monotonic=seconds)
    deadlines.watch(scene)
    return deadlines, scene, seconds


def go(deadlines: Deadlines, seconds: Seconds, to: float) -> None:
    seconds.now = to
    deadlines.go_round()


def test_message_that_never_ends_is_aborted_and_then_cut() -> None:
    deadlines, scene, seconds = watched()
    scene.message = ArrivingMessage()
    go(deadlines, seconds, 1)
    go(deadlines, seconds, 10.9)
    assert scene.ends == []
    go(deadlines, seconds, 11)
    go(deadlines, seconds, 11.1)
    assert scene.ends == ["abort"]
    go(deadlines, seconds, 13)
    assert scene.ends == ["abort", "cut"]
    scene.over = True
    go(deadlines, seconds, 13.1)
    assert len(deadlines) == 0


def test_each_message_has_its_own_time() -> None:
    deadlines, scene, seconds = watched()
    for second in range(0, 90, 3):
        scene.message = ArrivingMessage()
        go(deadlines, seconds, second)
    assert scene.ends == []


def test_long_association_is_ended_between_two_messages() -> None:
    deadlines, scene, seconds = watched(association_s=5)
    scene.message = ArrivingMessage()
    go(deadlines, seconds, 6)
    scene.message, scene.busy = None, True
    go(deadlines, seconds, 7)
    assert scene.ends == []
    scene.busy = False
    go(deadlines, seconds, 8)
    assert scene.ends == ["abort"]


def test_peer_that_dribbles_a_pdu_is_cut_off(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database, message_timeout_s=0.5)
    with socket.create_connection(("127.0.0.1", port_of(receiver)), timeout=20) as connection:
        connection.sendall(struct.pack(">BBL", 0x01, 0, 1000))
        began = time.monotonic()
        while time.monotonic() < began + 15:
            try:
                connection.sendall(b"\x00")
                connection.settimeout(0.1)
                if connection.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert time.monotonic() - began < 10


def test_long_association_is_aborted_and_its_images_are_kept(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database, maximum_association_s=1.0)
    one = ct_slice()
    association = associate(receiver, one)
    assert association.send_c_store(one).Status == 0
    wait_until(lambda: association.is_aborted, "the association is aborted")


@pytest.mark.parametrize("limit", ["message_timeout_s", "maximum_association_s"])
def test_time_that_we_take_to_answer_is_not_the_senders(
    sqlite_database: Database, start_receiver: StartReceiver, limit: str
) -> None:
    receiver = start_receiver(sqlite_database, **{limit: 0.5})
    one = ct_slice()
    association = associate(receiver, one)
    with ThreadPoolExecutor(1) as pool:
        with receiver._intake._indexer._committing:
            answer = pool.submit(association.send_c_store, one)
            with pytest.raises(TimeoutError):
                answer.result(timeout=4.0)  # the limit, and the grace before a cut
            assert not association.is_aborted
        assert answer.result().Status == 0


def test_instance_that_is_too_large_is_refused_with_a_comment(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database, maximum_instance_mb=1)
    one = ct_slice(Rows=800, Columns=800, PixelData=bytes(800 * 800 * 2))
    association = associate(receiver, one)
    answer: Any = association.send_c_store(one)
    assert (answer.Status, "larger" in answer.ErrorComment) == (0xA700, True)
    association.release()


def test_echo_still_works_after_many_associations(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database)
    entity = AE()
    entity.add_requested_context("1.2.840.10008.1.1")
    for _ in range(5):
        association = entity.associate("127.0.0.1", port_of(receiver))
        assert association.send_c_echo().Status == 0
        association.release()
    wait_until(lambda: len(receiver._deadlines) == 0, "ended associations are forgotten")
