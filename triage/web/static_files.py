"""Scripts, styles and pictures of the pages, under an address that changes with their content."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from pathlib import Path

from fastapi import HTTPException
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

STATIC_FOLDER = Path(__file__).parent / "static"


def _contents(folder: Path) -> Mapping[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _digest(contents: Mapping[str, bytes]) -> str:
    found = hashlib.sha256()
    for name, content in contents.items():
        found.update(name.encode() + b"\0" + content)
    return found.hexdigest()[:16]


_CONTENTS = _contents(STATIC_FOLDER)
STATIC_ROOT = f"/static/{_digest(_CONTENTS)}"
"""Where browsers may keep the files for ever: a script imports the others beside it, so versions
are never mixed, and going from study to study asks for none of them again."""


class KeptFiles:
    """The files as they were when the address was made of them, from memory.

    A new browser asks for two dozen of them before it draws the first image; from the disk, each
    takes a thread three times. What an installer puts in their place while this process runs is
    never served under an address that says otherwise.
    """

    def __init__(self, contents: Mapping[str, bytes] = _CONTENTS) -> None:
        self._answers = {name: _answer(name, content) for name, content in contents.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; its path begins with the mount's."""
        assert scope["type"] == "http"
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        name = scope["path"].removeprefix(scope.get("root_path", "")).removeprefix("/")
        answer = self._answers.get(name)
        if answer is None:
            raise HTTPException(404)
        await answer(scope, receive, send)


def _answer(name: str, content: bytes) -> Response:
    kind, _ = mimetypes.guess_type(name)
    return Response(content, media_type=kind or "text/plain")
