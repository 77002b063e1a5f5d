"""How the models' API says no: what is wrong, what to do, and which field it is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import HTTPException
from pydantic import BaseModel

from triage.models.packages import PackageError
from triage.models.stages import StageError, UnknownModelError
from triage.store.code_approvals import CodeNotApprovedError
from triage.store.model_jobs import JobNotOverError, UnknownJobError


class Refusal(BaseModel):
    """Why a request was refused: what is wrong and what to do, and the field that it is about."""

    detail: str
    field: str = ""


REFUSALS: dict[int | str, dict[str, Any]] = {
    404: {"model": Refusal, "description": "There is no such model, version or job."},
    409: {"model": Refusal, "description": "It cannot be done so; `field` says what to change."},
}
UPLOAD_REFUSALS: dict[int | str, dict[str, Any]] = {
    **REFUSALS,
    411: {"model": Refusal, "description": "The request does not say how long it is."},
    413: {"model": Refusal, "description": "It is longer than web.maximum_package_mb."},
    422: {"model": Refusal, "description": "A field is missing or wrong; `field` says which."},
    507: {"model": Refusal, "description": "The disk has no room for it."},
}


class RefusedRequestError(HTTPException):
    """A refusal that names the field it is about."""

    def __init__(self, status: int, detail: str, field: str) -> None:
        super().__init__(status, detail)
        self.field = field


@contextmanager
def saying_what_is_wrong() -> Iterator[None]:
    """Turn what registry and jobs refuse into an answer."""
    try:
        yield
    except UnknownModelError as error:
        raise RefusedRequestError(404, str(error), error.field) from error
    except StageError as error:
        raise RefusedRequestError(409, str(error), error.field) from error
    except PackageError as error:
        raise RefusedRequestError(409, str(error), "package") from error
    except CodeNotApprovedError as error:
        raise RefusedRequestError(409, str(error), "version") from error
    except UnknownJobError as error:
        raise RefusedRequestError(404, str(error), "job") from error
    except JobNotOverError as error:
        raise RefusedRequestError(409, str(error), "job") from error
