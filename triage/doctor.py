"""`triage doctor`: is everything there and does it answer, and if not, what is to be done."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
from pynetdicom import AE
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from triage.associations import AssociationError
from triage.core.remote import RemoteState
from triage.core.runs import DeliveryState
from triage.core.stages import Stage
from triage.models.confinement import missing_protections
from triage.models.packages import PackageError, load_package
from triage.pausing import lose_no_answer
from triage.receiver.counts import CountError, counter_at
from triage.results.delivery import dicom
from triage.results.delivery.reaching import reach
from triage.results.errors import DeliveryError
from triage.settings import (
    Destination,
    DicomDestination,
    RemoteSettings,
    Settings,
    SettingsError,
)
from triage.store import remote_models
from triage.store.alerts import open_alerts
from triage.store.audit import count_waiting
from triage.store.clock import system_clock
from triage.store.code_approvals import waiting_digests
from triage.store.database import Database, DatabaseError
from triage.store.delivery_decisions import pauses
from triage.store.disk import DiskLevel, disk_level
from triage.store.files import InstanceFiles
from triage.store.model_tables import ModelRow
from triage.store.order_tables import Hl7MessageRow, MessageState
from triage.store.tables import DeliveryRow
from triage.store.workers import alive_workers, clock_ahead_s
from triage.tls import TlsError, own_certificate, server_context
from triage.web.loopback import LOOPBACK, is_for_this_machine_only
from triage.web.viewer_files import FIRST_LINE, viewer_folder
from triage.worklist.intake import intake
from triage.worklist.notification_health import problems_of
from triage.worklist.operations_board import skew_in_words

_VERIFICATION_SOP_CLASS = "1.2.840.10008.1.1"
_RENEW_BEFORE = timedelta(days=30)
_PATIENCE_S = 5.0
_MANY_AUDIT_EVENTS = 1000
_MOST_NAMED = 5
_NO_STUDY = "2.25.0"  # nobody's: the question is what matters


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: what was looked at.
        is_ok: whether it is as it should be.
        text: what was seen, or what to do.
        is_warning: whether it still works, and will not for long.
    """

    name: str
    is_ok: bool
    text: str
    is_warning: bool = False


def examine(settings: Settings) -> Iterable[Check]:
    """Yield the checks of a whole installation, in the order in which a study passes its parts."""
    yield _guarded("disk", lambda: _disk(settings))
    database = Database(settings.database_url)
    try:
        schema = _guarded("database", lambda: _database(database))
        yield schema
        if settings.receiver.plain:
            yield _guarded("receiver", lambda: _receiver(settings))
        if settings.receiver.tls_port is not None:
            yield _guarded("receiver over TLS", lambda: _receiver_over_tls(settings))
        yield from certificate_checks(settings, system_clock())
        yield _guarded("Prefect", lambda: _prefect(settings))
        if schema.is_ok:
            yield _guarded("models", lambda: _models(database))
            yield _guarded("code of models", lambda: _code_of_models(database))
            yield _guarded("worker", lambda: _worker(database))
            yield _guarded("senders", lambda: _senders(database))
            yield _guarded("clocks", lambda: _clocks(database))
            yield _guarded("deliveries", lambda: _deliveries(database))
            yield _guarded("paused destinations", lambda: _pauses(database))
            yield _guarded("model watch", lambda: _model_watch(database))
            if settings.notifications.rules:
                yield _guarded("notifications", lambda: _notifications(settings, database))
            if settings.audit.host:
                yield _guarded("audit record repository", lambda: _audit(database))
            if settings.remote_models:
                yield _guarded("remote models", lambda: _remote_models(database))
        yield _guarded("sandbox", lambda: _sandbox(settings))
        yield _guarded("web", lambda: _web(settings))
        yield from log_in_checks(settings)
        if viewer_folder(settings):
            yield _guarded("viewer", lambda: _viewer(settings))
        if settings.receiver.count_at:
            yield _guarded("count_at", lambda: _count_at(settings))
        if settings.hl7.port is not None:
            yield _guarded("HL7 listener", lambda: _hl7_listener(settings))
            if schema.is_ok:
                yield _guarded("HL7 messages", lambda: _hl7_messages(database))
        yield from _peers(settings)
    finally:
        database.close()


def _peers(settings: Settings) -> Iterable[Check]:
    """Yield the checks of everybody that Triage calls."""
    for archive in settings.archives:
        yield _guarded(f"archive {archive.name}", partial(_archive, settings, archive))
    for destination in settings.destinations:
        if not isinstance(destination, DicomDestination):
            name = f"destination {destination.name}"
            yield _guarded(name, partial(_destination, settings, destination))
    for remote in settings.remotes:
        yield _guarded(f"remote {remote.name}", partial(_archive, settings, remote))
    if settings.priors.remote:
        yield _guarded("priors", lambda: _priors(settings))


class _Wrong(Exception):  # noqa: N818 - not an error: the answer of a check
    pass


class _Warning(Exception):  # noqa: N818 - as above
    pass


def _guarded(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, is_ok=True, text=check())
    except _Wrong as wrong:
        return Check(name, is_ok=False, text=str(wrong))
    except _Warning as warning:
        return Check(name, is_ok=True, text=str(warning), is_warning=True)
    except (AssociationError, DeliveryError, TlsError) as error:
        return Check(name, is_ok=False, text=str(error))
    except (OSError, httpx.HTTPError, SQLAlchemyError, DatabaseError, PackageError) as error:
        return Check(name, is_ok=False, text=f"{type(error).__name__}: {error}")


def _disk(settings: Settings) -> str:
    if not os.access(settings.data_directory.absolute(), os.W_OK):
        raise _Wrong(f"{settings.data_directory} is missing or not writable; create it or chown it")
    free = InstanceFiles(settings.data_directory).free_bytes()
    left = f"{free / 1e9:.1f} GB left on the disk of {settings.data_directory}"
    level = disk_level(free, settings.receiver)
    if level is DiskLevel.REFUSING:
        raise _Wrong(f"only {left}: no image is taken; make room, or let [retention] delete")
    if level is DiskLevel.LOW:
        raise _Warning(f"only {left}; make room, or let [retention] delete")
    return f"{free / 1e9:.0f} GB free"


def _database(database: Database) -> str:
    database.check_schema()
    return "SQLite" if database.is_sqlite else "PostgreSQL"


def _models(database: Database) -> str:
    with database.reading() as session:
        rows = session.scalars(select(ModelRow).where(ModelRow.stage != Stage.RETIRED)).all()
    if not rows:
        raise _Wrong("no model is registered; run `triage models register FOLDER`")
    for row in rows:
        if load_package(Path(row.package_path)).sha256 != row.package_sha256:
            raise _Wrong(f"{row.name} {row.version} was changed after it was registered")
    for row in rows:
        if row.parked_until is not None:
            raise _Wrong(
                f"{row.name} {row.version} is parked and tried again after "
                f"{row.parked_until:%Y-%m-%d %H:%M:%S} UTC, because {row.parked_reason}"
            )
    return ", ".join(f"{row.name} {row.version} ({row.stage})" for row in rows)


def _code_of_models(database: Database) -> str:
    with database.reading() as session:
        waiting = waiting_digests(session)
        rows = session.scalars(select(ModelRow).where(ModelRow.stage != Stage.RETIRED)).all()
    named = [f"{row.name} {row.version}" for row in rows if row.package_sha256 in waiting]
    if named:
        raise _Warning(
            f"{', '.join(named)}: not run, because nobody has approved the code in the package; "
            "read it and run `triage models approve NAME VERSION --who … --reason …`"
        )
    return "approved, where a package has any"


def _sandbox(settings: Settings) -> str:
    mode = settings.trust.sandbox
    if mode == "off":
        raise _Warning('trust.sandbox is "off": a model can do whatever a worker can')
    missing = missing_protections()
    if missing and mode == "require":
        raise _Wrong(f"no model is run, because {'; '.join(missing)}")
    if missing:
        raise _Warning(f"models are not fully confined: {'; '.join(missing)}")
    return "models have no network, start no programs and read only their own files"


def _receiver(settings: Settings) -> str:
    receiver = settings.receiver
    titles = [*receiver.allowed_calling_ae_titles, *(s.ae_title for s in settings.senders)]
    entity = AE(ae_title=titles[0] if titles else "DOCTOR")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _PATIENCE_S
    entity.connection_timeout = _PATIENCE_S
    entity.add_requested_context(_VERIFICATION_SOP_CLASS)
    host = _reached_at(receiver.host)
    association = entity.associate(host, receiver.port, ae_title=receiver.ae_title)
    where = f"{receiver.ae_title} on {receiver.host}:{receiver.port}"
    if association.is_rejected and settings.senders:
        return f"{where} answers, and lets no sender call from this machine"
    if not association.is_established:
        why = "refused the association" if association.is_rejected else "does not answer"
        raise _Wrong(f"{where} {why}")
    status = lose_no_answer(association).send_c_echo()
    association.release()
    if getattr(status, "Status", None) != 0x0000:
        raise _Wrong(f"{where} did not answer C-ECHO with success")
    return f"{receiver.ae_title} answers on {receiver.host}:{receiver.port}"


def _count_at(settings: Settings) -> str:
    named = settings.receiver.count_at
    remote = next((r for r in settings.remotes if r.name == named), None)
    if remote is None:
        raise _Wrong(f"receiver.count_at names {named!r}, which is not among the [[remotes]]")
    counter = counter_at(remote, calling_ae_title=settings.receiver.ae_title)
    try:
        counter.count(_NO_STUDY)
    except CountError as error:
        raise _Wrong(f"{error}; studies become complete without its counts") from error
    return f"{named} counts the images of a study"


def _priors(settings: Settings) -> str:
    try:
        remote = settings.remote(settings.priors.remote)
    except SettingsError as error:
        raise _Wrong(f"priors.remote: {error}") from error
    return f"the last {settings.priors.count} relevant ones are fetched from {remote.name}"


def _reached_at(host: str) -> str:
    # An address that listens everywhere is reached on this machine by loopback.
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104


def _receiver_over_tls(settings: Settings) -> str:
    """Make a handshake with the receiver; whom it shows is looked at by certificate_checks."""
    receiver = settings.receiver
    assert receiver.tls_port is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = (_reached_at(receiver.host), receiver.tls_port)
    with (
        socket.create_connection(address, timeout=_PATIENCE_S) as connection,
        context.wrap_socket(connection) as secured,
    ):
        return f"{secured.version()} on {receiver.host}:{receiver.tls_port}"


def certificate_checks(settings: Settings, now: datetime) -> Iterable[Check]:
    """Yield the check of our own certificate, where there is one."""
    if settings.tls.certificate is not None:
        yield _guarded("certificate", lambda: _certificate(settings, now))


def _certificate(settings: Settings, now: datetime) -> str:
    state = own_certificate(settings.tls)
    file, days = settings.tls.certificate, state.time_left(now).days
    if not state.matches_key:
        raise _Wrong(f"{settings.tls.private_key} is not the private key of {file}")
    if days < 0:
        raise _Wrong(f"{file} ({state.subject}) has expired on {state.not_after:%Y-%m-%d}")
    if state.time_left(now) < _RENEW_BEFORE:
        raise _Warning(f"{file} ({state.subject}) expires in {days} days; renew it")
    server_context(settings.tls)  # the authorities and the chain, too, can be used
    return f"{state.subject}, valid for {days} days"


def _archive(settings: Settings, archive: DicomDestination | RemoteSettings) -> str:
    patience_s = min(archive.timeout_s, _PATIENCE_S)
    peer = archive.model_copy(update={"timeout_s": patience_s})
    return dicom.reach(peer, calling_ae_title=settings.receiver.ae_title)


def _destination(settings: Settings, destination: Destination) -> str:
    patience_s = min(destination.timeout_s, _PATIENCE_S)
    return reach(destination.model_copy(update={"timeout_s": patience_s}), settings)


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


def _senders(database: Database) -> str:
    with database.reading() as session:
        seen = intake(session, system_clock())
    trouble = [f"{one.calling_ae_title} {one.silence}" for one in seen.senders if one.silence]
    trouble += [
        f"{one.calling_ae_title or 'a nameless caller'} at {one.address} was refused {one.times} "
        f"times, because {one.reason}"
        for one in seen.refused
    ]
    if trouble:
        raise _Warning(f"{'; '.join(trouble[:_MOST_NAMED])}; /status says what to do")
    return f"{len(seen.senders)} have sent in the last fourteen days; none is unusually silent"


def _clocks(database: Database) -> str:
    with database.reading() as session:
        now = system_clock()
        ahead = {"this machine's": clock_ahead_s(session, now)}
        ahead |= {f"{w.name}'s": w.clock_ahead_s for w in alive_workers(session, now)}
    wrong = [said for whose, by_s in ahead.items() if (said := skew_in_words(whose, by_s))]
    if wrong:
        raise _Warning("; ".join(wrong))
    return "agree with the database's"


def _hl7_listener(settings: Settings) -> str:
    host, port = settings.hl7.host, settings.hl7.port
    try:
        with socket.create_connection((_reached_at(host), port or 0), _PATIENCE_S):
            return f"listens on {host} port {port}"
    except OSError as error:
        raise _Wrong(
            f"nobody listens for HL7 on {host} port {port} ({error.strerror}); start `triage "
            "receive`, and see its log if it runs"
        ) from error


def _hl7_messages(database: Database) -> str:
    with database.reading() as session:
        refused = session.scalars(
            select(func.count())
            .select_from(Hl7MessageRow)
            .where(Hl7MessageRow.state == MessageState.REFUSED)
        ).one()
    if refused:
        raise _Warning(f"{refused} messages were refused; /hl7 says why")
    return "none was refused"


def _deliveries(database: Database) -> str:
    with database.reading() as session:
        dead = session.scalars(
            select(func.count())
            .select_from(DeliveryRow)
            .where(DeliveryRow.state == DeliveryState.DEAD)
        ).one()
    if dead:
        raise _Wrong(
            f"{dead} deliveries were not taken by their destination; /deliveries says why of each, "
            "sends again and gives up; so does `triage results`"
        )
    return "none is stuck"


def _pauses(database: Database) -> str:
    with database.reading() as session:
        found = pauses(session)
    if not found:
        return "none is paused"
    said = "; ".join(
        f"{name} by {pause.who} since {pause.at:%Y-%m-%d %H:%M} UTC: {pause.reason}"
        for name, pause in found.items()
    )
    raise _Warning(f"{said}; `triage results resume NAME` lets go on what waits there")


def _model_watch(database: Database) -> str:
    with database.reading() as session:
        alerts = open_alerts(session)
    if not alerts:
        return "no rule is broken"
    said = "; ".join(f"{a.model} {a.version}: {a.rule}: {a.text}" for a in alerts)
    raise _Warning(f"{said}; look at /models/{alerts[0].model}/watch")


def _notifications(settings: Settings, database: Database) -> str:
    with database.reading() as session:
        problems = problems_of(session, settings.notifications, system_clock())
    if problems:
        raise _Warning("; ".join(problems))
    return f"{len(settings.notifications.rules)} rules; what was told of late was acknowledged"


def _remote_models(database: Database) -> str:
    with database.reading() as session:
        reasons = remote_models.quarantine_reasons(session)
        states = remote_models.count_by_state(session)
    if reasons:
        raise _Warning(
            f"{sum(reasons.values())} returned objects are in quarantine: "
            + "; ".join(f"{number} because {reason}" for reason, number in reasons.items())
        )
    trouble = [
        f"{states[state]} {state}"
        for state in (RemoteState.UNANSWERED, RemoteState.FAILED)
        if states.get(state)
    ]
    if trouble:
        raise _Warning(f"studies: {', '.join(trouble)}; their histories say more")
    return ", ".join(f"{number} {state}" for state, number in states.items()) or "nothing asked"


def log_in_checks(settings: Settings) -> Iterable[Check]:
    """Yield whether strangers could use the pages, and whether the provider answers."""
    login = settings.web.login
    is_reached = not is_for_this_machine_only(settings.web)
    if login.mode == "off" and is_reached and not settings.web.user_header:
        text = (
            "NOBODY LOGS IN, and others than this machine reach the pages: everybody on the "
            "network sees all patients and may change everything. Set web.login.mode to local, "
            "oidc or proxy (docs/security.md)"
        )
        yield Check("log-in", True, text, is_warning=True)
    if login.mode == "proxy" and settings.web.host not in LOOPBACK:
        text = (
            f"the pages listen on {settings.web.host} and believe {settings.web.user_header} of "
            "whoever calls: see that only the proxy reaches that port, or listen on 127.0.0.1"
        )
        yield Check("log-in", True, text, is_warning=True)
    if login.mode == "oidc":
        yield _guarded("log-in", lambda: _provider(settings))


def _audit(database: Database) -> str:
    with database.reading() as session:
        waiting = count_waiting(session)
    if waiting > _MANY_AUDIT_EVENTS:
        raise _Wrong(
            f"{waiting} audit events were not taken yet; see audit.host, audit.port and the log of "
            "`triage web` for why"
        )
    return f"{waiting} audit events wait to be sent"


def _provider(settings: Settings) -> str:
    # Imported where it is needed: most sites have no provider, and it brings all of the web.
    from triage.web.log_in import LogInError  # noqa: PLC0415
    from triage.web.oidc import discover  # noqa: PLC0415

    try:
        provider = discover(settings.web.login.oidc)
    except LogInError as error:
        raise _Wrong(f"{settings.web.login.oidc.issuer}: {error}") from error
    return f"{provider.issuer} answers"


def _viewer(settings: Settings) -> str:
    host, port = _reached_at(settings.web.host), settings.viewer.port
    answer = httpx.get(f"http://{host}:{port}/app-config.js", timeout=5)
    if not answer.text.startswith(FIRST_LINE):
        raise _Wrong(
            f"another program answers on port {port}, which the viewer needs; stop that program, "
            "or choose another with viewer.port, and start `triage web` again"
        )
    return f"answers on port {port}"


def _web(settings: Settings) -> str:
    host = _reached_at(settings.web.host)
    answer = httpx.get(f"http://{host}:{settings.web.port}/healthz", timeout=5)
    if not answer.is_success:
        raise _Wrong(f"{settings.web_url} answers {answer.status_code}")
    return f"answers on {settings.web_url}"
