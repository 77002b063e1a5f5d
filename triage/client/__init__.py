"""A typed client of the JSON API, for programs beside Triage.

    from triage.client import TriageClient

    with TriageClient("https://triage.hospital.example", token="…") as triage:
        for entry in triage.every_worklist_entry():
            print(entry.place, entry.priority, entry.study_instance_uid)

It needs httpx and pydantic, and nothing of the server.
"""

from triage.client.client import TriageClient
from triage.client.errors import (
    ConflictError,
    InvalidRequestError,
    NotAllowedError,
    NotFoundError,
    TriageClientError,
    UnavailableError,
    UnexpectedAnswerError,
)

__all__ = [
    "ConflictError",
    "InvalidRequestError",
    "NotAllowedError",
    "NotFoundError",
    "TriageClient",
    "TriageClientError",
    "UnavailableError",
    "UnexpectedAnswerError",
]
