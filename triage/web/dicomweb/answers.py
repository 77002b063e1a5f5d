"""Answers: bodies of several parts, ranges of bytes, tags for caches (DICOM PS3.18 8.6, 8.7)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from secrets import token_hex

from fastapi import HTTPException, Request, Response
from fastapi.responses import StreamingResponse

from triage.web.dicomweb.accept import MULTIPART

# What is stored never changes, and its digest is the tag; private, because it is a patient's.
IMMUTABLE = "private, max-age=3600, immutable"
# What is below a series or study does.
REVALIDATED = "private, no-cache"

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """One part of a multipart body: what it is, where it is from, and its bytes."""

    media_type: str
    location: str
    content: Iterable[bytes]


def multipart(
    parts: Iterable[AnswerPart], media_type: str, status_code: int, headers: dict[str, str]
) -> Response:
    """Return a multipart/related body that is made while it is sent (RFC 2387).

    An error on the way breaks the connection off before the last boundary, so that no client takes
    what it has for the whole.
    """
    boundary = token_hex(16)

    def body() -> Iterator[bytes]:
        for part in parts:
            head = f"--{boundary}\r\nContent-Type: {part.media_type}\r\n"
            yield f"{head}Content-Location: {part.location}\r\n\r\n".encode()
            yield from part.content
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode()

    kind = f'{MULTIPART}; type="{media_type}"; boundary={boundary}'
    return StreamingResponse(body(), status_code, headers, media_type=kind)


def tag_of(*what: object) -> str:
    """Return an entity tag (RFC 9110 8.8.3) for an answer that depends on `what` alone."""
    said = "\n".join(str(one) for one in what)
    return f'"{hashlib.sha256(said.encode()).hexdigest()[:32]}"'


def not_modified(request: Request, tag: str, caching: str) -> Response | None:
    """Return the answer to a client that has what `tag` stands for already."""
    given = {one.strip().removeprefix("W/") for one in _if_none_match(request).split(",")}
    if tag in given or "*" in given:
        return Response(status_code=304, headers={"ETag": tag, "Cache-Control": caching})
    return None


def _if_none_match(request: Request) -> str:
    return str(request.headers.get("if-none-match", ""))


def byte_range(request: Request, size: int, tag: str) -> tuple[int, int] | None:
    """Return the first byte and the number of bytes that are asked for, None for all.

    Several ranges at once are answered with all, as RFC 9110 14.2 allows.

    Raises:
        HTTPException: 416, the range lies behind the end.
    """
    said = request.headers.get("range", "")
    found = _RANGE.fullmatch(said.strip())
    if not found or found.groups() == ("", "") or request.headers.get("if-range", tag) != tag:
        return None
    first, last = found.groups()
    if not first:  # the last so many
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= end:
        raise HTTPException(
            416, "the range is not within it", headers={"Content-Range": f"bytes */{size}"}
        )
    return start, end - start


def bytes_of(
    content: Iterable[bytes],
    *,
    media_type: str,
    size: int,
    part: tuple[int, int] | None,
    headers: dict[str, str],
) -> Response:
    """Return an answer of known length, or of a part of it (RFC 9110 15.3.7)."""
    headers = headers | {"Accept-Ranges": "bytes"}
    if part is None:
        return StreamingResponse(
            content, 200, headers | {"Content-Length": str(size)}, media_type=media_type
        )
    start, length = part
    headers |= {
        "Content-Length": str(length),
        "Content-Range": f"bytes {start}-{start + length - 1}/{size}",
    }
    return StreamingResponse(content, 206, headers, media_type=media_type)
