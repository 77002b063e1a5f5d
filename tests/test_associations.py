"""Associations that we open: no answer is lost to the thread that looks after them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from triage.pausing import _Checkpoint


class Looker(threading.Thread):
    """Passes the checkpoint again and again, and notes whether it looked while it should pause."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.checkpoint = _Checkpoint(self)
        self.is_ended = False
        self.must_not_look = False
        self.looked = 0
        self.looked_wrongly = 0

    def run(self) -> None:
        while not self.is_ended:
            self.checkpoint.wait()
            time.sleep(0.0002)  # between passing and looking, others run
            self.looked += 1
            self.looked_wrongly += self.must_not_look


@pytest.fixture
def looker() -> Iterator[Looker]:
    looker = Looker()
    looker.start()
    yield looker
    looker.is_ended = True
    looker.checkpoint.set()
    looker.join(5)


def test_who_has_paused_the_thread_is_alone_until_it_lets_it_go(looker: Looker) -> None:
    for _ in range(200):
        looker.checkpoint.clear()
        looker.must_not_look = True
        time.sleep(0.0005)
        looker.must_not_look = False
        looker.checkpoint.set()
    before = looker.looked
    time.sleep(0.05)
    assert looker.looked > before, "it goes on between the pauses"
    assert looker.looked_wrongly == 0


def test_thread_that_has_ended_is_not_waited_for(looker: Looker) -> None:
    looker.is_ended = True
    looker.join(5)
    looker.checkpoint.clear()
    assert not looker.checkpoint.wait(0.01)
