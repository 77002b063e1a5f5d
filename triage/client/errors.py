"""What can go wrong with a request: each kind of refusal has a class."""

from __future__ import annotations

from triage.core.errors import TriageError


class TriageClientError(TriageError):
    """A request was refused or not answered.

    Attributes:
        detail: what is wrong and what to do, as the server says it.
        field: the field of the request that it is about, "" where it is about none.
        status: HTTP status, 0 where there was no answer.
    """

    def __init__(self, detail: str, field: str = "", status: int = 0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.status = status


class InvalidRequestError(TriageClientError):
    """A field is missing or wrong (422, and 400, 411, 413)."""


class NotFoundError(TriageClientError):
    """There is no such study, model, job or the like (404)."""


class ConflictError(TriageClientError):
    """It cannot be done as things stand (409)."""


class NotAllowedError(TriageClientError):
    """Nobody is logged in, or they may not do this (401, 403)."""


class UnavailableError(TriageClientError):
    """The server does not answer or cannot now (503, 507); nothing was done. Try again later.

    Where no answer came to something that changes, it may have been done all the same.
    """


class UnexpectedAnswerError(TriageClientError):
    """The answer is none of this API: another server, or a version that does not fit."""


def error_of(status: int, detail: str, field: str) -> TriageClientError:
    """Return the error for a status of refusal."""
    kinds: dict[int, type[TriageClientError]] = {
        400: InvalidRequestError,
        401: NotAllowedError,
        403: NotAllowedError,
        404: NotFoundError,
        409: ConflictError,
        411: InvalidRequestError,
        413: InvalidRequestError,
        422: InvalidRequestError,
        503: UnavailableError,
        507: UnavailableError,
    }
    return kinds.get(status, UnexpectedAnswerError)(detail, field, status)
