"""The figures of a benchmark as one flat object, easily compared with that of another day."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def flattened(figures: Mapping[str, Any], *, decimals: int = 4) -> dict[str, float]:
    """Return nested figures under their joined names.

    >>> flattened({"next study": {"median_ms": 267.0}, "rounds": 5})
    {'next_study_median_ms': 267.0, 'rounds': 5}
    """
    flat: dict[str, float] = {}
    for name, figure in figures.items():
        key = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        if isinstance(figure, Mapping):
            inner = flattened(figure, decimals=decimals)
            flat |= {f"{key}_{rest}": value for rest, value in inner.items()}
        else:
            flat[key] = round(figure, decimals)
    return flat


def write_figures(file: Path, figures: Mapping[str, Any]) -> None:
    """Write one flat object of the figures to `file`."""
    file.write_text(json.dumps(flattened(figures), indent=2) + "\n", encoding="utf-8")
