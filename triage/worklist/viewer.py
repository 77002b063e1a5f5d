"""Who looks at the worklist, and when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Viewer:
    """A person at a moment; `who` is empty where nobody is named."""

    now: datetime
    who: str = ""
