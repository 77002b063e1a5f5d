"""Many rows in few statements: long lists are cut, and rows that are written are made alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from sqlalchemy.orm.attributes import flag_modified

from triage.store.base import Table

MOST_IN_A_STATEMENT = 500
"""How many values one statement is given: SQLite bounds its parameters."""

Value = TypeVar("Value")


def chunks(values: Sequence[Value]) -> Iterator[Sequence[Value]]:
    """Give `values` in order, as many at a time as one statement may have.

    >>> [len(some) for some in chunks(range(1200))]
    [500, 500, 200]
    """
    for start in range(0, len(values), MOST_IN_A_STATEMENT):
        yield values[start : start + MOST_IN_A_STATEMENT]


def write_in_full(row: Table, columns: Sequence[str]) -> None:
    """Let these columns of a row be written, whether or not they have changed.

    Rows that follow one another are written by one statement only if it names the same columns; in
    turns, each would have one of its own.
    """
    for column in columns:
        flag_modified(row, column)
