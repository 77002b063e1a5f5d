"""The pages of jobs: forms to ask for one, the list, and how one goes and what came of it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse

from triage.core.permissions import Permission
from triage.models.overview import show_model
from triage.models.stages import version_of
from triage.web import jobs
from triage.web.access import may
from triage.web.context import Context
from triage.web.held_trials import shown_to_caller
from triage.web.jobs import FileName, JobNumber, JobView
from triage.web.jobs_api import answer_with_file, answer_with_zip
from triage.web.models_api import Name, Version
from triage.web.people import asking_person, is_named
from triage.web.refusals import saying_what_is_wrong
from triage.web.rendering import templates
from triage.web.security import require_same_origin

router = APIRouter(include_in_schema=False, dependencies=[Depends(may(Permission.MANAGE_MODELS))])

_SAME_ORIGIN = [Depends(require_same_origin)]
Who = Annotated[str, Form(max_length=100)]


@router.get("/model-jobs")
def job_list(request: Request, context: Context) -> Response:
    """Show all jobs, and the forms for packages that are not registered."""
    with context.database.reading() as session:
        found = jobs.job_views(session, context)
    content = {"jobs": [shown_to_caller(request, one) for one in found]}
    return _render(request, context, "model_jobs.html", content)


@router.get("/model-jobs/{job_id}")
def job(request: Request, job_id: JobNumber, context: Context) -> Response:
    """Show one job."""
    view = shown_to_caller(request, jobs.job_view(context, job_id))
    return _render(request, context, "model_job.html", {"job": view})


@router.get("/models/{name}/versions/{version}")
def version(request: Request, name: Name, version: Version, context: Context) -> Response:
    """Show the forms to check, try and evaluate a version, and what was asked of it."""
    with saying_what_is_wrong(), context.database.reading() as session:
        row = version_of(session, name, version)
        model = show_model(session, name, context.now())
        content = {
            "model": model,
            "version": next(one for one in model.versions if one.version == version),
            "jobs": [
                shown_to_caller(request, one)
                for one in jobs.job_views(session, context, model_id=row.id)
            ],
            "findings": [finding["key"] for finding in row.manifest["findings"]],
        }
    return _render(request, context, "model_version.html", content)


@router.post("/model-jobs/init", dependencies=_SAME_ORIGIN)
async def make_package(request: Request, context: Context) -> Response:
    """Ask for a package, and go to the job's page."""
    return _to(await jobs.ask_for_package(request, context))


@router.post("/model-jobs/check", dependencies=_SAME_ORIGIN)
async def check_package(request: Request, context: Context) -> Response:
    """Ask for a check of an upload, and go to the job's page."""
    return _to(await jobs.ask_for_upload_check(request, context))


@router.post("/models/{name}/versions/{version}/check", dependencies=_SAME_ORIGIN)
def check_version(
    request: Request, name: Name, version: Version, context: Context, who: Who = ""
) -> Response:
    """Ask for a check of a version, and go to the job's page."""
    return _to(jobs.ask_for_check(request, context, name, version, who))


@router.post("/models/{name}/versions/{version}/try", dependencies=_SAME_ORIGIN)
async def try_version(request: Request, name: Name, version: Version, context: Context) -> Response:
    """Ask for a version to be tried, and go to the job's page."""
    return _to(await jobs.ask_for_trial(request, context, name, version))


@router.post("/models/{name}/versions/{version}/evaluate", dependencies=_SAME_ORIGIN)
async def evaluate_version(
    request: Request, name: Name, version: Version, context: Context
) -> Response:
    """Ask for an evaluation, and go to the job's page."""
    return _to(await jobs.ask_for_evaluation(request, context, name, version))


@router.post("/model-jobs/{job_id}/cancel", dependencies=_SAME_ORIGIN)
def cancel(request: Request, job_id: JobNumber, context: Context) -> Response:
    """Give up a job, and go back to its page."""
    return _to(jobs.cancel(context, job_id, asking_person(request, "")))


@router.post("/model-jobs/{job_id}/delete", dependencies=_SAME_ORIGIN)
def delete(job_id: JobNumber, context: Context) -> Response:
    """Delete a job with its files, and go to the list."""
    jobs.remove(context, job_id)
    return RedirectResponse("/model-jobs", status_code=303)


@router.get("/model-jobs/{job_id}/files/{file_name}")
def job_file(
    request: Request, job_id: JobNumber, file_name: FileName, context: Context
) -> Response:
    """Give a file that came of a job."""
    return answer_with_file(request, context, job_id, file_name)


@router.get("/model-jobs/{job_id}/files")
def job_files(request: Request, job_id: JobNumber, context: Context) -> Response:
    """Give all files that came of a job, as a zip."""
    return answer_with_zip(request, context, job_id)


def _to(view: JobView) -> Response:
    return RedirectResponse(f"/model-jobs/{view.job_id}", status_code=303)


def _render(request: Request, context: Context, name: str, content: dict[str, Any]) -> Response:
    shared = {
        "is_named": is_named(request),
        "keep_days": context.settings.jobs.keep_days,
        "maximum_mb": context.settings.web.maximum_package_mb,
        "now": context.now(),
    }
    return templates.TemplateResponse(request, name, {**shared, **content})
