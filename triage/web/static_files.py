"""Scripts, styles and pictures of the pages, under an address that changes with their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

STATIC_FOLDER = Path(__file__).parent / "static"


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


STATIC_ROOT = f"/static/{_digest(STATIC_FOLDER)}"
"""Where browsers may keep the files for ever: a script imports the others beside it, so versions
are never mixed, and going from study to study asks for none of them again."""
