"""What all tables are made of."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Enum,
    Integer,
    MetaData,
    SmallInteger,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase

from triage.core.priority import Priority


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite keeps no time zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a moment without a time zone, which could mean any hour."""
        del dialect
        if value is not None and value.tzinfo is None:
            raise ValueError("a moment without a time zone cannot be stored")
        return value if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment in UTC."""
        del dialect
        return value if value is None else value.replace(tzinfo=value.tzinfo or UTC)


class PriorityColumn(TypeDecorator[Priority]):
    """A Priority as its number, so that the database can sort by it."""

    impl = SmallInteger
    cache_ok = True

    def process_bind_param(self, value: Priority | None, dialect: Dialect) -> int | None:
        """Return the number of the priority."""
        del dialect
        return None if value is None else int(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> Priority | None:
        """Return the priority of the number."""
        del dialect
        return None if value is None else Priority(value)


def state_of(enum: type[StrEnum]) -> Enum:
    return Enum(
        enum,
        native_enum=False,
        length=16,
        values_callable=lambda states: [s.value for s in states],
        create_constraint=False,
    )


Key = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers INTEGER keys by itself


class Table(DeclarativeBase):
    """Base of all tables, with stable names for every constraint (migrations need them)."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a class attribute
        datetime: UtcDateTime,
        Priority: PriorityColumn,
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }
