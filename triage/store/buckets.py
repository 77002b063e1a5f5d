"""Days, hours and bins in SQL, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from sqlalchemy import Integer, String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class Bucket(IntEnum):
    """How much of a moment is kept: the characters of `2026-11-28 18`."""

    DAY = 10
    HOUR = 13


class bucket_of(FunctionElement[str]):  # noqa: N801 - it is written as an SQL function is
    """The day or hour, in UTC, of a moment: `2026-11-28` or `2026-11-28 18`."""

    type = String()
    inherit_cache = True


class bin_of(FunctionElement[int]):  # noqa: N801 - as above
    """The number of the bin, from 0, that a value from 0 to 1 is in, of so many equal ones."""

    type = Integer()
    inherit_cache = True


def _arguments(element: FunctionElement[Any], compiler: SQLCompiler, **kw: Any) -> list[str]:
    return [compiler.process(clause, **kw) for clause in element.clauses]


@compiles(bucket_of, "sqlite")
def _bucket_on_sqlite(element: bucket_of, compiler: SQLCompiler, **kw: Any) -> str:
    moment, length = _arguments(element, compiler, **kw)
    return f"substr({moment}, 1, {length})"


@compiles(bucket_of, "postgresql")
def _bucket_on_postgresql(element: bucket_of, compiler: SQLCompiler, **kw: Any) -> str:
    moment, length = _arguments(element, compiler, **kw)
    return f"left(to_char(timezone('UTC', {moment}), 'YYYY-MM-DD HH24'), {length})"


@compiles(bin_of, "sqlite")
def _bin_on_sqlite(element: bin_of, compiler: SQLCompiler, **kw: Any) -> str:
    value, bins = _arguments(element, compiler, **kw)
    return f"min(CAST({value} * {bins} AS INTEGER), {bins} - 1)"


@compiles(bin_of, "postgresql")
def _bin_on_postgresql(element: bin_of, compiler: SQLCompiler, **kw: Any) -> str:
    value, bins = _arguments(element, compiler, **kw)
    return f"least(floor({value} * {bins})::integer, {bins} - 1)"
