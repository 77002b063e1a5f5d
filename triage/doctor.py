"""`triage doctor`: is everything there and does it answer, and if not, what is to be done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
from pynetdicom import AE
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from triage.core.runs import DeliveryState
from triage.models.packages import PackageError, load_package
from triage.settings import ArchiveSettings, RemoteSettings, Settings, SettingsError
from triage.store.clock import system_clock
from triage.store.database import Database, DatabaseError
from triage.store.files import InstanceFiles
from triage.store.tables import DeliveryRow, ModelRow
from triage.store.workers import alive_workers

_VERIFICATION_SOP_CLASS = "1.2.840.10008.1.1"
_LOW_DISK_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: what was looked at.
        is_ok: whether it is as it should be.
        text: what was seen, or what to do.
    """

    name: str
    is_ok: bool
    text: str


def examine(settings: Settings) -> Iterable[Check]:
    """Yield the checks of a whole installation, in the order in which a study passes its parts."""
    yield _guarded("disk", lambda: _disk(settings))
    database = Database(settings.database_url)
    try:
        schema = _guarded("database", lambda: _database(database))
        yield schema
        yield _guarded("receiver", lambda: _receiver(settings))
        yield _guarded("Prefect", lambda: _prefect(settings))
        if schema.is_ok:
            yield _guarded("models", lambda: _models(database))
            yield _guarded("worker", lambda: _worker(database))
            yield _guarded("deliveries", lambda: _deliveries(database))
        yield _guarded("web", lambda: _web(settings))
        for archive in settings.destinations:
            yield _guarded(f"archive {archive.name}", partial(_archive, settings, archive))
        for remote in settings.remotes:
            yield _guarded(f"remote {remote.name}", partial(_archive, settings, remote))
        if settings.priors.remote:
            yield _guarded("priors", lambda: _priors(settings))
    finally:
        database.close()


class _Wrong(Exception):  # noqa: N818 - not an error: the answer of a check
    pass


def _guarded(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, is_ok=True, text=check())
    except _Wrong as wrong:
        return Check(name, is_ok=False, text=str(wrong))
    except (OSError, httpx.HTTPError, SQLAlchemyError, DatabaseError, PackageError) as error:
        return Check(name, is_ok=False, text=f"{type(error).__name__}: {error}")


def _disk(settings: Settings) -> str:
    if not os.access(settings.data_directory.absolute(), os.W_OK):
        raise _Wrong(f"{settings.data_directory} is missing or not writable; create it or chown it")
    free = InstanceFiles(settings.data_directory).free_bytes()
    if free < _LOW_DISK_BYTES:
        raise _Wrong(f"only {free / 1e9:.1f} GB left on the disk of {settings.data_directory}")
    return f"{free / 1e9:.0f} GB free"


def _database(database: Database) -> str:
    database.check_schema()
    return "SQLite" if database.is_sqlite else "PostgreSQL"


def _models(database: Database) -> str:
    with database.reading() as session:
        rows = session.scalars(select(ModelRow).where(ModelRow.stage != "retired")).all()
    if not rows:
        raise _Wrong("no model is registered; run `triage models register FOLDER`")
    for row in rows:
        if load_package(Path(row.package_path)).sha256 != row.package_sha256:
            raise _Wrong(f"{row.name} {row.version} was changed after it was registered")
    return ", ".join(f"{row.name} {row.version} ({row.stage})" for row in rows)


def _receiver(settings: Settings) -> str:
    receiver = settings.receiver
    # An address that listens everywhere is reached on this machine by loopback.
    host = "127.0.0.1" if receiver.host == "0.0.0.0" else receiver.host  # noqa: S104
    allowed = receiver.allowed_calling_ae_titles
    _echo(host, receiver.port, receiver.ae_title, calling=allowed[0] if allowed else "DOCTOR")
    return f"{receiver.ae_title} answers on {receiver.host}:{receiver.port}"


def _priors(settings: Settings) -> str:
    try:
        remote = settings.remote(settings.priors.remote)
    except SettingsError as error:
        raise _Wrong(f"priors.remote: {error}") from error
    return f"the last {settings.priors.count} relevant ones are fetched from {remote.name}"


def _archive(settings: Settings, archive: ArchiveSettings | RemoteSettings) -> str:
    _echo(archive.host, archive.port, archive.ae_title, calling=settings.receiver.ae_title)
    return f"{archive.ae_title} answers on {archive.host}:{archive.port}"


def _echo(host: str, port: int, called: str, *, calling: str) -> None:
    """C-ECHO (DICOM PS3.4 Annex A)."""
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 5
    entity.connection_timeout = 5
    entity.add_requested_context(_VERIFICATION_SOP_CLASS)
    association = entity.associate(host, port, ae_title=called)
    if not association.is_established:
        why = "refused the association" if association.is_rejected else "does not answer"
        raise _Wrong(f"{called} on {host}:{port} {why}")
    status = association.send_c_echo()
    association.release()
    if getattr(status, "Status", None) != 0x0000:
        raise _Wrong(f"{called} on {host}:{port} did not answer C-ECHO with success")


def _prefect(settings: Settings) -> str:
    answer = httpx.get(f"{settings.prefect_api_url}/health", timeout=5)
    if not answer.is_success:
        raise _Wrong(f"{settings.prefect_api_url} answers {answer.status_code}")
    return f"answers on {settings.prefect_api_url}"


def _worker(database: Database) -> str:
    with database.reading() as session:
        workers = alive_workers(session, system_clock())
    if not workers:
        raise _Wrong("no worker is alive; start one with `triage work`")
    troubled = [w for w in workers if w.prefect_error]
    if troubled:
        raise _Wrong(f"{troubled[0].name} does not reach Prefect: {troubled[0].prefect_error}")
    return "; ".join(f"{w.name} on {w.device}, warm: {w.warm_models or 'nothing'}" for w in workers)


def _deliveries(database: Database) -> str:
    with database.reading() as session:
        dead = session.scalars(
            select(func.count())
            .select_from(DeliveryRow)
            .where(DeliveryRow.state == DeliveryState.DEAD)
        ).one()
    if dead:
        raise _Wrong(f"{dead} results were not taken by their archive; resend them on /status")
    return "none is stuck"


def _web(settings: Settings) -> str:
    host = "127.0.0.1" if settings.web.host == "0.0.0.0" else settings.web.host  # noqa: S104
    answer = httpx.get(f"http://{host}:{settings.web.port}/healthz", timeout=5)
    if not answer.is_success:
        raise _Wrong(f"{settings.web_url} answers {answer.status_code}")
    return f"answers on {settings.web_url}"
