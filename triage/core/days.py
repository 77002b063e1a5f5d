"""Days as they are written in requests."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated

from pydantic import BeforeValidator

_WRITTEN = re.compile(r"\d{4}-\d{2}-\d{2}")


def _written_as_day(value: object) -> object:
    """Refuse the numbers that pydantic takes for seconds since 1970."""
    if isinstance(value, date) or (isinstance(value, str) and _WRITTEN.fullmatch(value)):
        return value
    raise ValueError("write the day as YYYY-MM-DD")


Day = Annotated[date, BeforeValidator(_written_as_day)]
"""A day in a request (ISO 8601)."""
