"""What a DIMSE service adds to the receiver: SOP classes to accept, and who answers requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class DimseService:
    """A service that the receiver provides as an SCP, beside storage.

    Attributes:
        sop_classes: the abstract syntaxes that are accepted, each in the uncompressed transfer
            syntaxes.
        handlers: pynetdicom's (event, handler[, arguments]) that answer the requests.
    """

    sop_classes: tuple[str, ...]
    handlers: tuple[Any, ...]
