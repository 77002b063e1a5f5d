"""Jobs about models as pages and API show them, and the ways to ask for one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import Path, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from triage.core.jobs import (
    ORDERS,
    OUTCOMES,
    CheckOrder,
    EvaluateOrder,
    InitOrder,
    JobKind,
    JobOrder,
    JobOutcome,
    JobState,
    TryOrder,
)
from triage.models.archives import ARCHIVE_ENDINGS
from triage.models.stages import version_of
from triage.store.code_approvals import check_code_approved
from triage.store.job_files import JobFolder
from triage.store.model_jobs import (
    add_job,
    cancel_job,
    count_open_jobs,
    delete_job,
    find_job,
    newest_jobs,
    studies_are_analysed,
)
from triage.store.model_tables import ModelJobRow
from triage.store.studies import find_study
from triage.store.syncing import sync
from triage.store.workers import alive_workers
from triage.web.callers import note_studies
from triage.web.context import UID_PATTERN, WebContext
from triage.web.people import asking_person
from triage.web.refusals import RefusedRequestError, saying_what_is_wrong
from triage.web.uploads import ending_of, required_upload, save, text_in, upload_form, uploaded

MODEL_ENDINGS = (*ARCHIVE_ENDINGS, ".pt2", ".pt", ".pth", ".ts", ".onnx", ".py")
"""A MONAI bundle in an archive; torch.export, TorchScript, ONNX, a Python model."""

JobNumber = Annotated[int, Path(ge=1, le=2**63 - 1, description="Number of the job")]
FileName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]

_MOST_SHOWN = 100
_MOST_OPEN = 20
_STUDY_LINK = re.compile(r"/studies/([0-9.]+)/?(?:[?#].*)?$")


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class JobFile(_View):
    """A file that came of a job."""

    name: str
    size_bytes: int


class JobView(_View):
    """A job: what was asked, by whom, how far it is, and what came of it."""

    job_id: int
    kind: JobKind
    model: str
    version: str
    asked: JobOrder
    who: str
    state: JobState
    waits_for: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    cancelled_by: str
    progress: str
    reason: str
    outcome: JobOutcome | None
    files: tuple[JobFile, ...]
    delete_after: datetime | None


class PackageWanted(BaseModel):
    """What a form says of a package that is to be made; what is empty is taken from the file."""

    model_config = ConfigDict(frozen=True)

    name: Annotated[str, Field(pattern=r"^([a-z][a-z0-9-]{1,62})?$")] = ""
    version: Annotated[str, Field(pattern=r"^(\d+\.\d+\.\d+)?$")] = ""
    modality: Annotated[str, Field(pattern=r"^[A-Z]{0,16}$")] = ""
    size: Annotated[int, Field(ge=1, le=16384)] | None = None
    labels: Annotated[tuple[str, ...], Field(max_length=256)] = ()


def view_of(session: Session, context: WebContext, row: ModelJobRow) -> JobView:
    """Return a job as it is shown."""
    folder = JobFolder.of(context.settings.data_directory, row.folder)
    return JobView(
        job_id=row.id,
        kind=row.kind,
        model=row.model.name if row.model else "",
        version=row.model.version if row.model else "",
        asked=ORDERS.validate_python(row.order),
        who=row.who,
        state=row.state,
        waits_for=_waits_for(session, row, context.now()),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        attempts=row.attempts,
        cancelled_by=row.cancelled_by,
        progress=row.progress,
        reason=row.reason,
        outcome=OUTCOMES.validate_python(row.outcome) if row.outcome else None,
        files=tuple(
            JobFile(name=path.name, size_bytes=path.stat().st_size)
            for path in (folder.results() if row.state is JobState.DONE else ())
        ),
        delete_after=row.delete_after,
    )


def job_views(
    session: Session, context: WebContext, *, model_id: int | None = None
) -> list[JobView]:
    """Return the newest jobs: all, or those of one model version."""
    rows = newest_jobs(session, model_id=model_id, most=_MOST_SHOWN)
    return [view_of(session, context, row) for row in rows]


def job_view(context: WebContext, job_id: int) -> JobView:
    """Return one job.

    Raises:
        RefusedRequestError: 404, there is none.
    """
    with saying_what_is_wrong(), context.database.reading() as session:
        return view_of(session, context, find_job(session, job_id))


def job_folder(context: WebContext, job_id: int) -> JobFolder:
    """Return the folder of a job that is done.

    Raises:
        RefusedRequestError: 404, there is none.
    """
    with saying_what_is_wrong(), context.database.reading() as session:
        row = find_job(session, job_id)
    if row.state is not JobState.DONE:
        raise RefusedRequestError(404, f"job {job_id} is {row.state} and has no files", "job")
    return JobFolder.of(context.settings.data_directory, row.folder)


def cancel(context: WebContext, job_id: int, who: str) -> JobView:
    """Let a job be given up, and return it.

    Raises:
        RefusedRequestError: 404, there is none.
    """
    keep_for = timedelta(days=context.settings.jobs.keep_days)
    with saying_what_is_wrong(), context.database.transaction() as session:
        row = cancel_job(session, job_id, who=who, keep_for=keep_for, now=context.now())
        if row.state is JobState.CANCELLED:
            JobFolder.of(context.settings.data_directory, row.folder).drop_inputs()
        return view_of(session, context, row)


def remove(context: WebContext, job_id: int) -> None:
    """Delete a job that is over, with its files.

    Raises:
        RefusedRequestError: 404, there is none; 409, it is not over.
    """
    with saying_what_is_wrong(), context.database.transaction() as session:
        folder = delete_job(session, job_id)
    JobFolder.of(context.settings.data_directory, folder).remove()


async def ask_for_package(request: Request, context: WebContext) -> JobView:
    """Ask for a package of the file in the field `source`."""
    async with upload_form(request, context, files=["source"], fields=8) as form:
        source = required_upload(form, "source", MODEL_ENDINGS)
        wanted = _package_wanted(form)
        name = f"{_plain_stem(source)}{ending_of(source, MODEL_ENDINGS)}"
        order = InitOrder(source=name, **wanted.model_dump())
        return await run_in_threadpool(
            _put,
            context,
            order,
            {name: source},
            who=asking_person(request, text_in(form, "who")),
            is_kept=text_in(form, "keep").lower() in ("1", "on", "true", "yes"),
        )


async def ask_for_upload_check(request: Request, context: WebContext) -> JobView:
    """Ask for a check of the archive in the field `package`."""
    async with upload_form(request, context, files=["package"], fields=1) as form:
        package = required_upload(form, "package", ARCHIVE_ENDINGS)
        name = f"package{ending_of(package, ARCHIVE_ENDINGS)}"
        who = asking_person(request, text_in(form, "who"))
        order = CheckOrder(package=name)
        return await run_in_threadpool(_put, context, order, {name: package}, who=who)


def ask_for_check(
    request: Request, context: WebContext, name: str, version: str, who: str
) -> JobView:
    """Ask for a check of a registered version."""
    order = CheckOrder(model=name, version=version)
    return _put(context, order, {}, who=asking_person(request, who))


async def ask_for_trial(request: Request, context: WebContext, name: str, version: str) -> JobView:
    """Ask for a version to be run on the study in the field `study`, or on those in `images`."""
    async with upload_form(request, context, files=["images"], fields=2) as form:
        images = uploaded(form, "images", ARCHIVE_ENDINGS)
        study = text_in(form, "study")
        if bool(study) == (images is not None):
            what = "either a study that Triage holds or an archive of DICOM files"
            raise RefusedRequestError(422, f"study: give {what}", "study")
        files = {f"images{ending_of(images, ARCHIVE_ENDINGS)}": images} if images else {}
        order = TryOrder(
            model=name,
            version=version,
            study_instance_uid=_study_uid(study) if study else "",
            images=next(iter(files), ""),
        )
        note_studies(request, [order.study_instance_uid] if study else [])
        who = asking_person(request, text_in(form, "who"))
        return await run_in_threadpool(_put, context, order, files, who=who)


async def ask_for_evaluation(
    request: Request, context: WebContext, name: str, version: str
) -> JobView:
    """Ask for a version to be compared with the table in `labels`, on `images` where given."""
    async with upload_form(request, context, files=["labels", "images"], fields=2) as form:
        labels = required_upload(form, "labels", [".csv"])
        images = uploaded(form, "images", ARCHIVE_ENDINGS)
        files = {"labels.csv": labels}
        if images is not None:
            files[f"images{ending_of(images, ARCHIVE_ENDINGS)}"] = images
        order = EvaluateOrder(
            model=name,
            version=version,
            labels="labels.csv",
            labels_name="".join(c for c in labels.filename or "" if c.isprintable())[:200],
            images=next((one for one in files if one != "labels.csv"), ""),
            held_out_only=text_in(form, "held_out_only").lower() in ("1", "on", "true", "yes"),
        )
        who = asking_person(request, text_in(form, "who"))
        return await run_in_threadpool(_put, context, order, files, who=who)


def _put(
    context: WebContext,
    order: JobOrder,
    files: Mapping[str, UploadFile],
    *,
    who: str,
    is_kept: bool = False,
) -> JobView:
    """Write the uploads into a folder of the job's own, and then its row."""
    with saying_what_is_wrong(), context.database.reading() as session:
        model_id = _check_order(session, order)
    folder = JobFolder.create(context.settings.data_directory)
    try:
        for name, upload in files.items():
            save(upload, folder.uploads / name)
        _make_durable(folder)
        with context.database.transaction() as session:
            row = add_job(
                session,
                order,
                model_id=model_id,
                who=who,
                folder=folder.name,
                is_kept=is_kept,
                now=context.now(),
            )
            session.refresh(row)
            return view_of(session, context, row)
    except BaseException:
        folder.remove()
        raise


def _make_durable(folder: JobFolder) -> None:
    for path in (folder.uploads, folder.path, folder.path.parent):
        sync(path)


def _check_order(session: Session, order: JobOrder) -> int | None:
    """Return the model version that the order is about, None of an upload.

    Raises:
        StageError: there is no such version.
        CodeNotApprovedError: it may not be run.
        RefusedRequestError: there is no such study, or too much is asked for already.
    """
    if count_open_jobs(session) >= _MOST_OPEN:
        detail = f"{_MOST_OPEN} jobs wait already; cancel one, or wait until one is done"
        raise RefusedRequestError(409, detail, "job")
    if isinstance(order, InitOrder) or (isinstance(order, CheckOrder) and order.package):
        return None
    row = version_of(session, order.model, order.version)
    if not isinstance(order, CheckOrder):
        check_code_approved(session, row)
    if isinstance(order, TryOrder) and order.study_instance_uid:
        study = find_study(session, order.study_instance_uid)
        if study is None or study.purged_at is not None:
            raise RefusedRequestError(404, "study: Triage holds no images of it", "study")
    return row.id


def _study_uid(text: str) -> str:
    """Return the UID in what was typed: the UID itself, or the address of the study's page."""
    link = _STUDY_LINK.search(text)
    uid = link[1] if link else text
    if not re.fullmatch(UID_PATTERN, uid) or len(uid) > 64:
        detail = "study: give a Study Instance UID, or the address of the study's page"
        raise RefusedRequestError(422, detail, "study")
    return uid


def _package_wanted(form: FormData) -> PackageWanted:
    said = {name: text_in(form, name) for name in ("name", "version", "modality")}
    labels = [label.strip() for label in text_in(form, "labels").split(",")]
    try:
        return PackageWanted.model_validate(
            {
                **said,
                "modality": said["modality"].upper(),
                "size": text_in(form, "size") or None,
                "labels": tuple(label for label in labels if label),
            }
        )
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        raise RefusedRequestError(422, f"{field}: {_HINTS[field]}", field) from error


_HINTS: Mapping[str, str] = {
    "name": "small letters, digits and hyphens, such as lung-nodules",
    "version": "three numbers, such as 1.0.0",
    "modality": "as DICOM writes it, such as CT",
    "size": "a number of rows",
    "labels": "what it finds, with commas between them; 256 at most",
}


def _plain_stem(upload: UploadFile) -> str:
    stem = (upload.filename or "").rpartition("/")[2].rpartition("\\")[2].partition(".")[0]
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:60] or "model"


def _waits_for(session: Session, row: ModelJobRow, now: datetime) -> str:
    """Return in words what a waiting job waits for."""
    if row.state is not JobState.WAITING:
        return ""
    reasons: Sequence[tuple[Callable[[], bool], str]] = (
        (lambda: not alive_workers(session, now), "a worker: none is alive"),
        (lambda: studies_are_analysed(session, now), "studies to be analysed first"),
        (lambda: count_open_jobs(session, before=row.id) > 0, "the jobs before it"),
    )
    return next((words for holds, words in reasons if holds()), "its turn")
