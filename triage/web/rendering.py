"""The templates, and how they write moments and sizes."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from markupsafe import Markup, escape
from starlette.templating import Jinja2Templates

from triage.web.homes import visitor
from triage.web.static_files import STATIC_ROOT
from triage.worklist.wording import duration

HERE = Path(__file__).parent

templates = Jinja2Templates(directory=HERE / "templates", context_processors=[visitor])
"""Jinja2Templates escapes everything in files named .html; no template marks text as safe."""


def moment(value: datetime | None) -> Markup:
    """Return a moment as a <time>, in the server's time zone until the page rewrites it."""
    if value is None:
        return Markup("–")
    local = value.astimezone()
    return Markup('<time datetime="{}" data-moment>{}</time>').format(
        value.isoformat(timespec="milliseconds"), local.strftime("%Y-%m-%d %H:%M:%S")
    )


def took(start: datetime | None, end: datetime | None) -> str:
    """Return how long it took from `start` to `end`, empty where one is missing."""
    return duration((end - start).total_seconds()) if start and end else ""


def size(value: int) -> str:
    """Return a size in bytes as people say it."""
    return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value / 1e3:.0f} kB"


def finding_and_model(reason: str) -> list[tuple[str, str]]:
    """Return the AI's reason as pairs of what was found and the model that found it.

    The policy writes it as "FINDING, MODEL; FINDING, MODEL".

    >>> finding_and_model("Hemorrhage, 12 mL, confidence 0.97, head-ct-hemorrhage 1.0.0")
    [('Hemorrhage, 12 mL, confidence 0.97', 'head-ct-hemorrhage 1.0.0')]
    """
    pairs = []
    for part in reason.split("; "):
        said, _, model = part.rpartition(", ")
        pairs.append((said, model) if said else (part, ""))
    return pairs


def mark(value: str) -> Markup:
    """Return a status kind as a class name of our own: letters and hyphens, nothing else."""
    return escape("".join(c for c in value if c.isalpha() or c == "-"))


def capital(value: str) -> str:
    """Return a sentence with its first letter great; the names in it stay as they are."""
    return value[:1].upper() + value[1:]


templates.env.filters.update(capital=capital)
templates.env.filters.update(moment=moment, duration=duration, size=size, mark=mark)
templates.env.filters.update(finding_and_model=finding_and_model)
templates.env.globals.update(took=took, static=STATIC_ROOT)
templates.env.trim_blocks = True
templates.env.lstrip_blocks = True
