"""What every part of a manifest is made of."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from triage.core.priority import Priority


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _parse_priority(value: Any) -> Any:
    return Priority.parse(value) if isinstance(value, str) else value


PriorityName = Annotated[
    Priority,
    BeforeValidator(_parse_priority),
    PlainSerializer(lambda p: Priority(p).name.lower(), return_type=str),
    WithJsonSchema({"type": "string", "enum": [p.name.lower() for p in Priority]}),
]
"""A priority that is read and written by its name."""


class Range(Part):
    """A closed range; an end that is not given is open."""

    minimum: float | None = None
    maximum: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum is greater than maximum")
        return self

    def holds(self, value: float) -> bool:
        """Return whether `value` lies in the range, its ends included."""
        return (self.minimum is None or value >= self.minimum) and (
            self.maximum is None or value <= self.maximum
        )
