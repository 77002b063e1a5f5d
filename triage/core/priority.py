"""How urgent a study is, and the rule that AI only ever raises it."""

from __future__ import annotations

from enum import IntEnum


class Priority(IntEnum):
    """Reading priority; a greater value is read earlier.

    The names follow Requested Procedure Priority (0040,1003), DICOM PS3.3 C.4.11, and map to
    HL7 v2 table 0485 (S stat, A asap, R routine).
    """

    LOW = 0
    ROUTINE = 1
    HIGH = 2
    STAT = 3

    @property
    def label(self) -> str:
        """The word that the worklist shows."""
        return self.name.capitalize() if self is not Priority.STAT else "STAT"

    @classmethod
    def parse(cls, word: str) -> Priority:
        """Return the priority named `word`, in any case.

        >>> Priority.parse("stat")
        <Priority.STAT: 3>

        Raises:
            ValueError: `word` names no priority.
        """
        try:
            return cls[word.strip().upper()]
        except KeyError:
            names = ", ".join(p.name.lower() for p in cls)
            raise ValueError(f"priority {word!r} is unknown; use one of {names}") from None

    @classmethod
    def of_order(cls, requested_procedure_priority: str | None) -> Priority:
        """Return the order's own priority; what is missing or unknown is ROUTINE.

        MEDIUM (0040,1003) is read with the routine studies.
        """
        word = (requested_procedure_priority or "").strip().upper()
        if word == "MEDIUM":
            return cls.ROUTINE
        return cls.__members__.get(word, cls.ROUTINE)


def effective_priority(order: Priority, ai: Priority | None) -> Priority:
    """Return the higher of what the order says and what the AI says: AI never lowers a study."""
    return order if ai is None else max(order, ai)
