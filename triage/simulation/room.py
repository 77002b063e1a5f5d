"""The reading room as a discrete-event simulation: a list by priority, and those who read it.

Readers are processes of SimPy. The list is in the order of Triage's own (`READING_ORDER`):
priority, then waiting time. A study is on it from its arrival; a flag of the AI moves it up when it
comes. An interrupted study keeps its place and goes on where it was left (preemptive resume).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import numpy as np
from simpy import Environment, Event, Interrupt, Process

from triage.core.priority import Priority
from triage.simulation.cohorts import Cohort, Flag, Floats

Steps = Generator[Event, Any, None]


@dataclass(frozen=True)
class Reading:
    """What became of a cohort. Arrays: `(studies,)`.

    Attributes:
        wait: minutes that a study lay unread in all; also between interruptions.
        opened: minutes until it was first opened.
    """

    wait: Floats
    opened: Floats


def read_cohort(
    cohort: Cohort,
    hourly_readers: tuple[int, ...],
    *,
    interrupting_from: Priority | None = None,
    with_ai: bool,
) -> Reading:
    """Let all studies be read, and return how long each waited.

    A reader whose shift ends finishes what is open.
    """
    room = _Room(Environment(), cohort, hourly_readers, interrupting_from)
    room.play(cohort.flags if with_ai else ())
    # Sums of minutes are rounded: never let that make somebody wait less than not at all.
    return Reading(
        wait=np.maximum(np.array(room.finished) - cohort.arrives - cohort.reading, 0.0),
        opened=np.maximum(np.array(room.opened) - cohort.arrives, 0.0),
    )


@dataclass(eq=False)
class _Reader:
    """Somebody who reads: what is open before them, and what wakes them while nothing is."""

    number: int
    process: Process | None = None
    study: int | None = None
    call: Event | None = field(default=None)


class _Room:
    def __init__(
        self,
        environment: Environment,
        cohort: Cohort,
        hourly_readers: tuple[int, ...],
        interrupting_from: Priority | None,
    ) -> None:
        self._environment = environment
        self._arrives: list[float] = cohort.arrives.tolist()
        self._remaining: list[float] = cohort.reading.tolist()
        self._priority: list[int] = cohort.order.tolist()
        self._hourly = hourly_readers
        self._is_steady = len(set(hourly_readers)) == 1
        self._interrupting_from = interrupting_from
        self._list: list[tuple[int, int]] = []
        self._is_listed = [False] * len(self._arrives)
        self._idle: list[_Reader] = []
        self._readers = [_Reader(number) for number in range(max(hourly_readers))]
        self.opened = [-1.0] * len(self._arrives)
        self.finished = [0.0] * len(self._arrives)

    def play(self, flags: tuple[Flag, ...]) -> None:
        """Go on until nothing is left to be read."""
        for reader in self._readers:
            reader.process = self._environment.process(self._read(reader))
        self._environment.process(self._arrive())
        self._environment.process(self._flag(flags))
        # Readers never end by themselves: those of an empty room wait for an event, off duty for
        # the next shift. So it is over when all are read.
        self._left = len(self._arrives)
        self._over = self._environment.event()
        if self._left:
            self._environment.run(until=self._over)

    def _arrive(self) -> Steps:
        for study, at in enumerate(self._arrives):
            yield self._environment.timeout(at - self._environment.now)
            self._put(study)

    def _flag(self, flags: tuple[Flag, ...]) -> Steps:
        for flag in flags:
            yield self._environment.timeout(flag.at - self._environment.now)
            self._raise(flag)

    def _raise(self, flag: Flag) -> None:
        if flag.priority <= self._priority[flag.study]:
            return
        self._priority[flag.study] = flag.priority
        if self._is_listed[flag.study]:
            self._put(flag.study)  # a second time; the first is passed over when it comes up

    def _put(self, study: int) -> None:
        self._is_listed[study] = True
        heappush(self._list, (-self._priority[study], study))
        while self._idle:
            reader = self._idle.pop()
            assert reader.call is not None
            reader.call.succeed()
            if self._is_on_duty(reader):
                return
        self._interrupt_for(self._priority[study])

    def _take(self) -> int | None:
        while self._list:
            rank, study = heappop(self._list)
            if self._is_listed[study] and -rank == self._priority[study]:
                self._is_listed[study] = False
                return study
        return None

    def _interrupt_for(self, priority: int) -> None:
        if self._interrupting_from is None or priority < self._interrupting_from:
            return
        reading = [
            (self._priority[reader.study], -reader.study, reader.number)
            for reader in self._readers
            if reader.study is not None and self._is_on_duty(reader)
        ]
        if reading and min(reading)[0] < priority:
            reader = self._readers[min(reading)[2]]
            reader.study = None
            assert reader.process is not None
            reader.process.interrupt()

    def _read(self, reader: _Reader) -> Steps:
        while True:
            if not self._is_on_duty(reader):
                yield self._environment.timeout(self._until_shift(reader))
                continue
            study = self._take()
            if study is None:
                reader.call = self._environment.event()
                self._idle.append(reader)
                yield reader.call
                continue
            yield from self._read_study(reader, study)

    def _read_study(self, reader: _Reader, study: int) -> Steps:
        begun = self._environment.now
        if self.opened[study] < 0:
            self.opened[study] = begun
        reader.study = study
        try:
            yield self._environment.timeout(self._remaining[study])
        except Interrupt:
            self._remaining[study] = max(
                0.0, self._remaining[study] - self._environment.now + begun
            )
            self._is_listed[study] = True
            heappush(self._list, (-self._priority[study], study))
            return
        reader.study = None
        self.finished[study] = self._environment.now
        self._left -= 1
        if not self._left:
            self._over.succeed()

    def _is_on_duty(self, reader: _Reader) -> bool:
        return self._is_steady or reader.number < self._hourly[self._hour()]

    def _hour(self) -> int:
        return int(self._environment.now // 60) % len(self._hourly)

    def _until_shift(self, reader: _Reader) -> float:
        """Return the minutes until the next hour in which the reader is on duty."""
        hours = len(self._hourly)
        next_hour = (self._environment.now // 60 + 1) * 60
        ahead = next(
            ahead
            for ahead in range(hours)
            if reader.number < self._hourly[(self._hour() + 1 + ahead) % hours]
        )
        # A hair later, so that rounding never leaves it in the hour before.
        return next_hour + ahead * 60 - self._environment.now + 1e-6
