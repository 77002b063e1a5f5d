"""What begins with a text, found by an index, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType, TypeEngine

_LAST = "\U0010ffff"


class begins_between(FunctionElement[bool]):  # noqa: N801 - it is written as an SQL function is
    """Whether a text lies from a first one to before a last one, byte by byte.

    PostgreSQL compares by the rules of a language; these operators do not, and an index of the
    class text_pattern_ops serves them.
    """

    type: TypeEngine[Any] = NullType()  # of a Boolean, SQLAlchemy would write "= 1" for SQLite
    inherit_cache = True


def begins_with(column: Any, prefix: str) -> ColumnElement[bool]:
    """Return the condition that a column begins with `prefix`, in the same case."""
    return begins_between(column, prefix, prefix + _LAST)


def _arguments(element: FunctionElement[Any], compiler: SQLCompiler, **kw: Any) -> list[str]:
    return [compiler.process(clause, **kw) for clause in element.clauses]


@compiles(begins_between, "sqlite")
def _on_sqlite(element: begins_between, compiler: SQLCompiler, **kw: Any) -> str:
    column, first, last = _arguments(element, compiler, **kw)
    return f"({column} >= {first} AND {column} < {last})"


@compiles(begins_between, "postgresql")
def _on_postgresql(element: begins_between, compiler: SQLCompiler, **kw: Any) -> str:
    column, first, last = _arguments(element, compiler, **kw)
    return f"({column} ~>=~ {first} AND {column} ~<~ {last})"
