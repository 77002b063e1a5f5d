"""The worklist that is made once for all pages which ask for it at the same moment."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from tests.web.hospital import Hospital
from triage.web.app import spare_what_stays
from triage.web.board import Asked, Board, look
from triage.web.rendering import templates
from triage.worklist.changes import ChangeToken, change_token

LIST = Asked()


class Looks:
    """Stands between the board and the database: counts the looks, and can hold or break them."""

    def __init__(self) -> None:
        self.number = 0
        self.has_begun = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()
        self.error: Exception | None = None

    def __call__(self, *given: Any) -> Any:
        self.number += 1
        part = look(*given)
        self.has_begun.set()
        assert self.may_end.wait(30)
        if self.error is not None:
            raise self.error
        return part


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Looks]:
    """The looks of the board at the database."""
    looks = Looks()
    monkeypatch.setattr("triage.web.board.look", looks)
    yield looks
    looks.may_end.set()


def token_now(hospital: Hospital) -> ChangeToken:
    with hospital.database.reading() as session:
        return change_token(session)


def board_of(hospital: Hospital) -> Board:
    return Board(hospital.database, hospital.clock, lambda: token_now(hospital), templates.env)


def test_pages_that_ask_at_the_same_moment_share_one_look(hospital: Hospital, looks: Looks) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    board = board_of(hospital)

    async def all_ask() -> list[Any]:
        return await asyncio.gather(*(board.answer(LIST) for _ in range(50)))

    given = asyncio.run(all_ask())
    assert looks.number == 1
    assert {each.studies for each in given} == {(uid,)}
    assert len({id(each.content) for each in given}) == 1


def test_page_that_asks_after_a_change_does_not_get_the_look_from_before(
    hospital: Hospital, looks: Looks
) -> None:
    first = hospital.receive(*hospital.head_ct(slices=1))
    board = board_of(hospital)
    looks.may_end.clear()

    async def ask_around_a_change() -> tuple[tuple[str, ...], list[tuple[str, ...]], str]:
        early = asyncio.create_task(board.answer(LIST))
        await asyncio.to_thread(looks.has_begun.wait, 30)
        second = hospital.receive(*hospital.head_ct(slices=1))
        late = [asyncio.create_task(board.answer(LIST)) for _ in range(20)]
        await asyncio.sleep(0)
        looks.may_end.set()
        given = await asyncio.gather(*late)
        return (await early).studies, [each.studies for each in given], second

    early, late, second = asyncio.run(ask_around_a_change())
    assert early == (first,)
    assert late == [(first, second)] * 20
    assert looks.number == 2


def test_what_is_loaded_is_left_out_of_the_collectors_rounds() -> None:
    try:
        spare_what_stays()
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()


def test_look_that_failed_is_not_what_the_next_page_gets(hospital: Hospital, looks: Looks) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    board = board_of(hospital)

    async def ask() -> list[Any]:
        looks.error = OperationalError("", {}, Exception())
        failed = await asyncio.gather(
            *(board.answer(LIST) for _ in range(3)), return_exceptions=True
        )
        looks.error = None
        return [*failed, await board.answer(LIST)]

    *failed, given = asyncio.run(ask())
    assert [type(each) for each in failed] == [OperationalError] * 3
    assert given.studies == (uid,)


def test_page_that_goes_away_takes_the_list_from_nobody(hospital: Hospital, looks: Looks) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    board = board_of(hospital)
    looks.may_end.clear()

    async def ask() -> Any:
        gone = asyncio.create_task(board.answer(LIST))
        await asyncio.to_thread(looks.has_begun.wait, 30)
        stays = asyncio.create_task(board.answer(LIST))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        looks.may_end.set()
        return await stays

    assert asyncio.run(ask()).studies == (uid,)
    assert looks.number == 1
