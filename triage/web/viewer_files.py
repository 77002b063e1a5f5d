"""Where the viewer's files are; apart from what serves them, so that asking is quick."""

from __future__ import annotations

from pathlib import Path

from triage.settings import Settings

FIRST_LINE = "// Made by Triage from its settings."
"""How the configuration begins that Triage gives the viewer, at `/app-config.js`."""


def viewer_folder(settings: Settings) -> Path | None:
    """Return the folder of the viewer's files, None where it is off or they are not there."""
    folder = settings.viewer.path.absolute()
    is_there = settings.viewer.enabled and (folder / "index.html").is_file()
    return folder if is_there and settings.dicomweb.enabled else None
