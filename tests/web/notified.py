"""A hospital in which people are told of hemorrhages."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from tests.store.notification_scenes import settings_of
from tests.web.hospital import Hospital, hemorrhage
from triage.settings import EmailDestination, Settings, WebSettings
from triage.store.notification_rounds import notify_round
from triage.web.app import create_app

MAIL = EmailDestination(
    name="mail",
    kind="email",
    host="127.0.0.1",
    port=9,
    security="none",
    sender="triage@hospital.example",
    recipients=("results@hospital.example",),
)


def notifying_app(hospital: Hospital, folder: Path, *, user_header: str = "") -> FastAPI:
    """Return the application of a hospital whose rules tell ada, grace, then alan by mail."""
    settings = Settings(
        data_directory=folder,
        destinations=(MAIL,),
        notifications=settings_of(),
        web=WebSettings(user_header=user_header),
    )
    hospital.notifications = settings.notifications
    return create_app(settings, hospital.database, hospital.files, hospital.clock)


def flag(hospital: Hospital) -> str:
    """Flag a new study, let the worker tell people, and return its UID."""
    if not hospital.models:
        hospital.models["hemorrhage"] = hospital.register_model()
    uid = hospital.receive(*hospital.head_ct(rows=128))
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage())
    work(hospital)
    return uid


def work(hospital: Hospital, seconds: float = 0) -> None:
    """Let time pass, with the worker at work at the end of it."""
    hospital.clock.advance(seconds)
    while notify_round(hospital.database, hospital.notifications, hospital.clock, holder="tests"):
        pass
