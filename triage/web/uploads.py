"""Files that come with a form: bounded before they are read, and durable before they are used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from triage.store.syncing import sync
from triage.web.context import WebContext
from triage.web.refusals import RefusedRequestError

_ROOM_FOR_FIELDS = 64 * 1024
_CHUNK = 1 << 20
_MB = 1024 * 1024


@asynccontextmanager
async def upload_form(
    request: Request, context: WebContext, *, files: Sequence[str], fields: int
) -> AsyncIterator[FormData]:
    """Give the form of a request that may bring `files` and so many other fields.

    Raises:
        RefusedRequestError: 411, 413 or 507, before anything of it is read.
    """
    require_room(request, context, files[0])
    async with request.form(max_files=len(files), max_fields=fields) as form:
        yield form


def require_room(request: Request, context: WebContext, field: str) -> None:
    """Refuse a request that does not say how long it is, is too long, or would fill the disk.

    Raises:
        RefusedRequestError: 411, 413 or 507.
    """
    announced = request.headers.get("content-length", "")
    if not announced.isdecimal():
        raise RefusedRequestError(411, "say how long the request is (Content-Length)", field)
    megabytes = context.settings.web.maximum_package_mb
    if int(announced) > megabytes * _MB + _ROOM_FOR_FIELDS:
        detail = f"{field}: it is longer than {megabytes} MB (web.maximum_package_mb)"
        raise RefusedRequestError(413, detail, field)
    spare = context.files.free_bytes() - context.settings.receiver.minimum_free_mb * _MB
    if int(announced) > spare:
        detail = f"{field}: the disk has no room for it beside the images that are to come"
        raise RefusedRequestError(507, detail, field)


def uploaded(form: FormData, field: str, endings: Sequence[str]) -> UploadFile | None:
    """Return the file in a field, None where none was chosen.

    Raises:
        RefusedRequestError: 422, its name does not end in one of `endings`.
    """
    value = form.get(field)
    if not isinstance(value, UploadFile) or not value.filename:
        return None
    if not ending_of(value, endings):
        detail = f"{field}: send a file that ends in {', '.join(endings)}"
        raise RefusedRequestError(422, detail, field)
    return value


def required_upload(form: FormData, field: str, endings: Sequence[str]) -> UploadFile:
    """Return the file in a field.

    Raises:
        RefusedRequestError: 422, there is none, or its name ends otherwise.
    """
    found = uploaded(form, field, endings)
    if found is None:
        detail = f"{field}: send a file that ends in {', '.join(endings)}"
        raise RefusedRequestError(422, detail, field)
    return found


def ending_of(upload: UploadFile, endings: Sequence[str]) -> str:
    """Return which of `endings` the name of the file has, "" where none."""
    name = (upload.filename or "").lower()
    return next((ending for ending in endings if name.endswith(ending)), "")


def text_in(form: FormData, field: str) -> str:
    """Return what was typed into a field, "" where nothing was."""
    value = form.get(field)
    return value.strip() if isinstance(value, str) else ""


def save(upload: UploadFile, path: Path) -> None:
    """Write the file to `path`; it is durable once its folder is."""
    with path.open("xb") as file:
        while chunk := upload.file.read(_CHUNK):
            file.write(chunk)
    sync(path)
