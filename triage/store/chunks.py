"""Long lists of parameters, cut into what one statement may have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

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
