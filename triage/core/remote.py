"""The life of what a remote model is asked, and of what it sends back."""

from __future__ import annotations

from enum import StrEnum


class RemoteState(StrEnum):
    """Where the analysis of a study by a remote model stands.

    WAITING is to be sent. SENT waits for an answer. ANSWERED has it. REFUSED has a stated reason
    why the study is not sent. FAILED could not be sent. UNANSWERED was sent and has no answer in
    time; one that comes later is still taken.
    """

    WAITING = "waiting"
    SENT = "sent"
    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"
    UNANSWERED = "unanswered"


class ReturnedState(StrEnum):
    """Where an object that came back stands."""

    WAITING = "waiting"
    TAKEN = "taken"
    QUARANTINED = "quarantined"
