"""The JSON API of jobs: packages made and checked, versions tried and evaluated."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from triage.core.permissions import Permission
from triage.store.job_files import JobFolder
from triage.web import jobs
from triage.web.access import may
from triage.web.context import Context, WebContext
from triage.web.held_trials import require_sight_of_files, shown_to_caller
from triage.web.jobs import FileName, JobNumber, JobView
from triage.web.models_api import Name, Version
from triage.web.people import asking_person
from triage.web.refusals import REFUSALS, UPLOAD_REFUSALS, RefusedRequestError
from triage.web.security import require_same_origin

router = APIRouter(
    prefix="/api/v1", tags=["models"], dependencies=[Depends(may(Permission.MANAGE_MODELS))]
)

_SAME_ORIGIN = [Depends(require_same_origin)]
_PICTURE = "image/png"
_CHUNK = 1 << 20
_WHO = {"type": "string", "description": "who asks; web.user_header, where it is set, goes before"}
_FILE = {"type": "string", "format": "binary"}


def _form(required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    """Describe a form in OpenAPI: it is read by hand, so that it is bounded before it is read."""
    schema = {"type": "object", "required": required, "properties": {**properties, "who": _WHO}}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


def _said(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


class Asker(BaseModel):
    """Who asks; where `web.user_header` names the person, that name counts instead."""

    model_config = ConfigDict(extra="forbid")

    who: Annotated[str, Field(max_length=100)] = ""


@router.get("/model-jobs")
def list_jobs(request: Request, context: Context) -> list[JobView]:
    """Give the newest hundred jobs, the newest first."""
    with context.database.reading() as session:
        found = jobs.job_views(session, context)
    return [shown_to_caller(request, one) for one in found]


@router.get("/model-jobs/{job_id}", responses={404: REFUSALS[404]})
def job(request: Request, job_id: JobNumber, context: Context) -> JobView:
    """Give a job: how far it is, and what came of it."""
    return shown_to_caller(request, jobs.job_view(context, job_id))


@router.post(
    "/model-jobs/init",
    status_code=202,
    dependencies=_SAME_ORIGIN,
    responses=UPLOAD_REFUSALS,
    openapi_extra=_form(
        ["source"],
        source={
            **_FILE,
            "description": "a MONAI bundle's folder in an archive (.zip, .tar.gz, .tgz), or a "
            "network's file: torch.export (.pt2), TorchScript (.pt, .pth, .ts), ONNX, Python",
        },
        name=_said("the model's name; without it made from the file's"),
        version=_said("such as 1.0.0"),
        modality=_said("of the images that it accepts, such as CT"),
        size=_said("rows and columns of the image that it takes; not for volumes"),
        labels=_said("what it finds: the channels' names, with commas between them"),
        keep=_said("keep the package until a person deletes it", enum=["true", "false"]),
    ),
)
async def make_package(request: Request, context: Context) -> JobView:
    """Ask for a package as `triage models init` makes it; the job's file is `package.zip`."""
    return await jobs.ask_for_package(request, context)


@router.post(
    "/model-jobs/check",
    status_code=202,
    dependencies=_SAME_ORIGIN,
    responses=UPLOAD_REFUSALS,
    openapi_extra=_form(["package"], package={**_FILE, "description": "an archive of a package"}),
)
async def check_package(request: Request, context: Context) -> JobView:
    """Ask for a check of a package that is not registered; code in it is looked at, and not run."""
    return await jobs.ask_for_upload_check(request, context)


@router.post(
    "/models/{name}/versions/{version}/check",
    status_code=202,
    dependencies=_SAME_ORIGIN,
    responses=REFUSALS,
)
def check_version(
    request: Request,
    name: Name,
    version: Version,
    context: Context,
    body: Annotated[Asker | None, Body()] = None,
) -> JobView:
    """Ask for a check of a registered version: its files, a run on its samples, memory and time."""
    return jobs.ask_for_check(request, context, name, version, body.who if body else "")


@router.post(
    "/models/{name}/versions/{version}/try",
    status_code=202,
    dependencies=_SAME_ORIGIN,
    responses=UPLOAD_REFUSALS,
    openapi_extra=_form(
        [],
        study=_said("Study Instance UID of a study that Triage holds, or its page's address"),
        images={**_FILE, "description": "instead: an archive with the DICOM files of one study"},
    ),
)
async def try_version(request: Request, name: Name, version: Version, context: Context) -> JobView:
    """Ask for a version to be run on a study; nothing of it reaches worklist or archive."""
    return await jobs.ask_for_trial(request, context, name, version)


@router.post(
    "/models/{name}/versions/{version}/evaluate",
    status_code=202,
    dependencies=_SAME_ORIGIN,
    responses=UPLOAD_REFUSALS,
    openapi_extra=_form(
        ["labels"],
        labels={**_FILE, "description": "a CSV as `triage models evaluate` takes it"},
        images={
            **_FILE,
            "description": "an archive of PNG or DICOM files; without it studies that Triage holds",
        },
        held_out_only=_said(
            "only patients that training never saw, by recipe/split.csv", enum=["true", "false"]
        ),
    ),
)
async def evaluate_version(
    request: Request, name: Name, version: Version, context: Context
) -> JobView:
    """Ask for a version to be compared with labels; the figures are kept with it."""
    return await jobs.ask_for_evaluation(request, context, name, version)


@router.post(
    "/model-jobs/{job_id}/cancel", dependencies=_SAME_ORIGIN, responses={404: REFUSALS[404]}
)
def cancel_job(
    request: Request,
    job_id: JobNumber,
    context: Context,
    body: Annotated[Asker | None, Body()] = None,
) -> JobView:
    """Give up a job; one that is running ends within a second, and one that is over stays so."""
    who = asking_person(request, body.who if body else "")
    return shown_to_caller(request, jobs.cancel(context, job_id, who))


@router.delete(
    "/model-jobs/{job_id}", status_code=204, dependencies=_SAME_ORIGIN, responses=REFUSALS
)
def delete_job(job_id: JobNumber, context: Context) -> Response:
    """Delete a job that is over, with its files; evaluations stay with their version."""
    jobs.remove(context, job_id)
    return Response(status_code=204)


@router.get(
    "/model-jobs/{job_id}/files/{file_name}",
    response_class=FileResponse,
    responses={404: REFUSALS[404]},
)
def job_file(
    request: Request, job_id: JobNumber, file_name: FileName, context: Context
) -> Response:
    """Give a file that came of a job."""
    return answer_with_file(request, context, job_id, file_name)


@router.get(
    "/model-jobs/{job_id}/files",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/zip": {}}}, 404: REFUSALS[404]},
)
def job_files(request: Request, job_id: JobNumber, context: Context) -> Response:
    """Give all files that came of a job, as a zip."""
    return answer_with_zip(request, context, job_id)


def answer_with_file(
    request: Request, context: WebContext, job_id: int, file_name: str
) -> Response:
    """Answer with a file of a job: a picture to be seen, anything else to be saved.

    Raises:
        RefusedRequestError: 404, there is no such job or file.
        HTTPException: 403, see `triage.web.held_trials`.
    """
    require_sight_of_files(request, jobs.job_view(context, job_id))
    path = jobs.job_folder(context, job_id).result(file_name)
    if path is None:
        raise RefusedRequestError(404, f"job {job_id} has no file of this name", "file_name")
    if path.suffix == ".png":
        return FileResponse(path, media_type=_PICTURE)
    return FileResponse(path, media_type="application/octet-stream", filename=file_name)


def answer_with_zip(request: Request, context: WebContext, job_id: int) -> Response:
    """Answer with all files of a job.

    Raises:
        RefusedRequestError: 404, there is no such job, or it has no files.
        HTTPException: 403, see `triage.web.held_trials`.
    """
    require_sight_of_files(request, jobs.job_view(context, job_id))
    folder = jobs.job_folder(context, job_id)
    packed = _packed(folder, context)
    length = packed.seek(0, 2)
    packed.seek(0)
    headers = {
        "Content-Length": str(length),
        "Content-Disposition": f'attachment; filename="job-{job_id}.zip"',
    }
    return StreamingResponse(_pieces(packed), media_type="application/zip", headers=headers)


def _packed(folder: JobFolder, context: WebContext) -> BinaryIO:
    spool = context.settings.data_directory.absolute() / "spool"
    spool.mkdir(parents=True, exist_ok=True)
    file: BinaryIO = tempfile.TemporaryFile(dir=spool)  # noqa: SIM115 - `_pieces` closes it
    with zipfile.ZipFile(file, "w") as archive:  # stored: pictures and weights hardly shrink
        for path in folder.results():
            archive.write(path, path.name)
    return file


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_CHUNK):
            yield piece
