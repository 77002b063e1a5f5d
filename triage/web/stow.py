"""STOW-RS: studies come in over HTTP (DICOM PS3.18 10.5)."""

from __future__ import annotations

from asyncio import Task, create_task, gather
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydicom.dataset import Dataset
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from triage.core.audit import AuditKind
from triage.core.permissions import Permission
from triage.receiver.encoded import EncodedInstance, read_instance
from triage.receiver.entrance import Visit
from triage.receiver.headers import Header
from triage.receiver.multipart import (
    ContentTypeError,
    MultipartError,
    Part,
    PartCutter,
    dicom_boundary,
)
from triage.receiver.refusals import RefusedInstanceError, StorageStatus
from triage.web.access import may
from triage.web.callers import note_studies
from triage.web.context import Context, Uid, WebContext
from triage.web.dicomweb.access import check_authorization, root_of
from triage.web.security import refuse_other_sites

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/dicom-web", include_in_schema=False)

DICOM_JSON = "application/dicom+json"
SENDER = "STOW-RS"
_AT_ONCE = 4
_ANSWERED_TYPES = frozenset({"", "*/*", "application/*", DICOM_JSON, "application/json"})


class RequestTooLongError(Exception):
    """More bytes came than a request may have."""


@dataclass(slots=True)
class Outcome:
    """What became of the instances of one request (DICOM PS3.18 annex I.1)."""

    stored: list[Header] = field(default_factory=list)
    failed: list[tuple[Header, RefusedInstanceError]] = field(default_factory=list)
    unidentified: list[RefusedInstanceError] = field(default_factory=list)

    @property
    def refusals(self) -> list[RefusedInstanceError]:
        """Why each of those that are not stored is not."""
        return [*(refusal for _, refusal in self.failed), *self.unidentified]

    @property
    def status_code(self) -> int:
        """The HTTP status (table 10.5.3-1); 503 where all would be taken at another time."""
        if not self.refusals:
            return 200
        if self.stored:
            return 202
        retry = all(r.status is StorageStatus.OUT_OF_RESOURCES for r in self.refusals)
        return 503 if retry else 409

    def as_json(self, root: str) -> str:
        """Return the Store Instances Response Module as DICOM JSON.

        `root` is where DICOMweb is; empty where nothing can be retrieved from there. Then it has
        no Retrieve URL (0008,1190).
        """
        answer = Dataset()
        studies = {header.study_instance_uid for header in self.stored}
        if root and len(studies) == 1:
            answer.RetrieveURL = f"{root}/studies/{studies.pop()}"
        if self.stored:
            answer.ReferencedSOPSequence = [_stored_at(root, header) for header in self.stored]
        if self.failed:
            answer.FailedSOPSequence = [
                _reference(header, int(refusal.status)) for header, refusal in self.failed
            ]
        if self.unidentified:
            answer.OtherFailuresSequence = [_failure(int(r.status)) for r in self.unidentified]
        return answer.to_json()


def _reference(header: Header, failure_reason: int | None = None) -> Dataset:
    item = Dataset() if failure_reason is None else _failure(failure_reason)
    item.ReferencedSOPClassUID = header.sop_class_uid
    item.ReferencedSOPInstanceUID = header.sop_instance_uid
    return item


def _stored_at(root: str, header: Header) -> Dataset:
    item = _reference(header)
    if root:
        item.RetrieveURL = (
            f"{root}/studies/{header.study_instance_uid}/series/{header.series_instance_uid}"
            f"/instances/{header.sop_instance_uid}"
        )
    return item


def _failure(reason: int) -> Dataset:
    item = Dataset()
    item.FailureReason = reason
    return item


@dataclass(slots=True)
class Storing:
    """The storing of one request's parts: by whom, of which study alone, and what became of it."""

    visit: Visit
    study: str | None
    outcome: Outcome = field(default_factory=Outcome)

    def store(self, part: Part) -> None:
        """Store one part, and note what became of it."""
        try:
            instance = _instance_in(part)
        except RefusedInstanceError as refusal:
            self._refuse(None, refusal)
            return
        finally:
            part.close()
        header = instance.header
        if self.study is not None and header.study_instance_uid != self.study:
            text = "it is of another study than the address"
            self._refuse(header, RefusedInstanceError(StorageStatus.DOES_NOT_MATCH_SOP_CLASS, text))
            return
        try:
            self.visit.store(instance, sender=SENDER)
        except RefusedInstanceError as refusal:
            self._refuse(header, refusal)
        except Exception as error:
            log.exception("instance not stored", error=type(error).__name__)
            text = "internal error of the receiver"
            self._refuse(header, RefusedInstanceError(StorageStatus.PROCESSING_FAILURE, text))
        else:
            self.outcome.stored.append(header)

    def _refuse(self, header: Header | None, refusal: RefusedInstanceError) -> None:
        log.warning(
            "instance refused",
            sop_instance_uid=header.sop_instance_uid if header else "",
            status=f"0x{refusal.status:04X}",
            reason=refusal.comment,
        )
        if header is None:
            self.outcome.unidentified.append(refusal)
        else:
            self.outcome.failed.append((header, refusal))


def _instance_in(part: Part) -> EncodedInstance:
    if part.is_too_large:
        raise RefusedInstanceError(
            StorageStatus.PROCESSING_FAILURE, "longer than stow.maximum_instance_mb"
        )
    if part.media_type not in ("", "application/dicom"):
        raise RefusedInstanceError(
            StorageStatus.CANNOT_UNDERSTAND, "the part is not application/dicom"
        )
    return read_instance(part.content())


def require_authorization(request: Request, context: Context) -> None:
    """Refuse a client without the configured Authorization header.

    Raises:
        HTTPException: 401.
    """
    check_authorization(request, context.settings.stow.authorization)


def require_readable_answer(request: Request) -> None:
    """Refuse a client that could not read the answer, before anything is stored.

    Raises:
        HTTPException: 406.
    """
    accepted = request.headers.get("accept", "").split(",")
    if not any(one.split(";")[0].strip().lower() in _ANSWERED_TYPES for one in accepted):
        raise HTTPException(406, f"the answer is {DICOM_JSON}, which this client does not accept")


_CHECKS: list[Any] = [
    Depends(may(Permission.STORE_IMAGES, program="stow", kind=AuditKind.TRANSFERRED)),
    Depends(refuse_other_sites),
    Depends(require_authorization),
    Depends(require_readable_answer),
]


@router.post("/studies", dependencies=_CHECKS)
async def store_instances(request: Request, context: Context) -> Response:
    """Store instances of any studies."""
    return await _store(request, context, None)


@router.post("/studies/{study_instance_uid}", dependencies=_CHECKS)
async def store_instances_of_study(
    request: Request, context: Context, study_instance_uid: Uid
) -> Response:
    """Store instances of the one study that the address names."""
    return await _store(request, context, study_instance_uid)


async def _store(request: Request, context: WebContext, study: str | None) -> Response:
    boundary = _boundary_of(request, context)
    entrance = context.entrance()
    visit = entrance.enter(request.client.host if request.client else "")
    storing = Storing(visit, study)
    try:
        with _cutter(boundary, context) as cutter:
            await _store_parts(request, cutter, storing, _longest_request(context))
    except ClientDisconnect:
        log.warning("STOW-RS client is gone", stored=len(storing.outcome.stored))
        return Response(status_code=400)  # nobody reads it
    except RequestTooLongError:
        raise HTTPException(413, _too_long(context)) from None
    except MultipartError as error:
        # What came before is stored and kept; it was not acknowledged, so it comes again.
        raise HTTPException(400, str(error)) from error
    finally:
        await run_in_threadpool(entrance.leave, visit)
    note_studies(request, [header.study_instance_uid for header in storing.outcome.stored])
    root = root_of(request) if context.settings.dicomweb.enabled else ""
    return _answer(storing.outcome, root)


def _answer(outcome: Outcome, root: str) -> Response:
    if not outcome.stored and not outcome.refusals:
        raise HTTPException(400, "the request has no instance")
    log.info("STOW-RS", stored=len(outcome.stored), refused=len(outcome.refusals))
    headers = {"Retry-After": "30"} if outcome.status_code == 503 else None
    return Response(outcome.as_json(root), outcome.status_code, headers, media_type=DICOM_JSON)


def _boundary_of(request: Request, context: WebContext) -> bytes:
    if not context.settings.stow.enabled:
        raise HTTPException(404, "STOW-RS is switched off (stow.enabled)")
    try:
        boundary = dicom_boundary(request.headers.get("content-type", ""))
    except ContentTypeError as error:
        raise HTTPException(415, str(error)) from error
    except MultipartError as error:
        raise HTTPException(400, str(error)) from error
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > _longest_request(context):
        raise HTTPException(413, _too_long(context))
    return boundary


def _longest_request(context: WebContext) -> int:
    return context.settings.stow.maximum_request_mb * 1024 * 1024


def _too_long(context: WebContext) -> str:
    megabytes = context.settings.stow.maximum_request_mb
    return f"the request is longer than {megabytes} MB (stow.maximum_request_mb)"


@contextmanager
def _cutter(boundary: bytes, context: WebContext) -> Iterator[PartCutter]:
    folder = context.settings.data_directory.absolute() / "spool"
    folder.mkdir(parents=True, exist_ok=True)
    cutter = PartCutter(
        boundary,
        largest_part_bytes=context.settings.stow.maximum_instance_mb * 1024 * 1024,
        folder=Path(folder),
    )
    try:
        yield cutter
    finally:
        cutter.close()


async def _store_parts(
    request: Request, cutter: PartCutter, storing: Storing, longest_bytes: int
) -> None:
    """Store the parts as they become whole, a few at once: each waits for the disk by itself."""
    under_way: deque[Task[None]] = deque()
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > longest_bytes:
                raise RequestTooLongError
            # What goes to the disk goes in a thread. The rest would wait longer for one than it
            # takes.
            if cutter.is_writing_to_disk:
                parts = await run_in_threadpool(cutter.feed, chunk)
            else:
                parts = cutter.feed(chunk)
            for part in parts:
                at_once = 1 if part.is_on_disk else _AT_ONCE
                while len(under_way) >= at_once:
                    await under_way.popleft()
                under_way.append(create_task(run_in_threadpool(storing.store, part)))
        cutter.finish()
    finally:
        # Whatever happened to the request: the stay must not end before the last is stored.
        await gather(*under_way)
