"""The web application: a list of routes, and the server that answers them."""

from __future__ import annotations

import gc
import socket
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from http import HTTPStatus
from types import FrameType
from urllib.parse import quote

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from triage.core.audit import AuditKind
from triage.core.errors import TriageError
from triage.settings import Settings
from triage.store.clock import Clock, system_clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.web import (
    account,
    answers,
    api,
    audit_pages,
    code_approvals,
    deliveries_api,
    delivery_pages,
    feedback,
    heat_maps,
    hl7,
    images,
    job_pages,
    jobs_api,
    login_pages,
    metrics,
    model_pages,
    models_api,
    notification_pages,
    notifications_api,
    operations_api,
    operations_pages,
    pages,
    policy_api,
    policy_pages,
    priority_api,
    simulation,
    stow,
    studies_api,
    study_history,
    ups,
    ups_events,
    users_pages,
    watch,
    withdrawals,
    worklist_api,
    worklist_pages,
)
from triage.web.access import ChangePasswordFirstError, LogInFirstError
from triage.web.audit_sender import AuditSender
from triage.web.audited import AuditedRequests
from triage.web.board import Board
from triage.web.context import WebContext
from triage.web.dicomweb.access import READING
from triage.web.dicomweb.routes import reading_routes
from triage.web.live import LiveUpdates
from triage.web.openapi import describe_refusals
from triage.web.prefect_health import PrefectHealth
from triage.web.refusals import RefusedRequestError
from triage.web.rendering import templates
from triage.web.security import KnownHost, SecurityHeaders
from triage.web.static_files import STATIC_FOLDER, STATIC_ROOT, KeptFiles
from triage.web.trail import Trail
from triage.web.viewer import ByPort, create_viewer
from triage.web.viewer_files import viewer_folder

log = structlog.get_logger()

_DECODERS = 4


class WebError(TriageError):
    """The pages cannot be served; the message says why and what to do."""


def create_app(
    settings: Settings, database: Database, files: InstanceFiles, clock: Clock = system_clock
) -> FastAPI:
    """Return the application; it owns neither the database nor the files."""
    live = LiveUpdates(database)
    trail = Trail(database, files.root.parent / "audit", settings.audit, clock)
    decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
    board = Board(database, clock, live.told_up_to, templates.env)
    prefect = PrefectHealth(settings.prefect_api_url)
    context = WebContext(settings, database, files, clock, live, decoders, trail, board, prefect)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        trail.start()
        yield
        live.close()
        context.close_entrance()
        context.simulations.close()
        decoders.shutdown(wait=False, cancel_futures=True)
        trail.close()

    app = FastAPI(
        title="Triage",
        lifespan=lifespan,
        docs_url=None,  # both documentation pages load their scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.state.context = context
    app.mount(STATIC_ROOT, KeptFiles(), name="kept")  # before all that a path is compared with
    for router in _routers():
        app.include_router(router)
    app.add_api_route("/healthz", healthz, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC_FOLDER), name="static")
    app.add_exception_handler(HTTPException, _refusal)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(SQLAlchemyError, _database_away)
    describe_refusals(app)
    app.add_middleware(AuditedRequests, trail=trail)
    app.add_middleware(KnownHost, settings=settings.web)
    app.add_middleware(SecurityHeaders)
    return app


def _routers() -> list[APIRouter]:
    return [
        worklist_pages.router,
        pages.router,
        images.router,
        heat_maps.router,
        worklist_api.router,
        api.router,
        models_api.router,
        model_pages.router,
        jobs_api.router,
        job_pages.router,
        code_approvals.api_router,
        code_approvals.page_router,
        stow.router,
        ups.router,
        ups_events.router,
        reading_routes(READING, AuditKind.TRANSFERRED),
        feedback.router,
        answers.router,
        deliveries_api.router,
        delivery_pages.router,
        watch.router,
        hl7.router,
        withdrawals.router,
        simulation.api_router,
        simulation.page_router,
        notifications_api.router,
        notification_pages.router,
        studies_api.router,
        operations_api.router,
        operations_pages.router,
        metrics.router,
        study_history.router,
        priority_api.router,
        priority_api.page_router,
        policy_api.router,
        policy_pages.router,
        login_pages.router,
        account.router,
        users_pages.router,
        audit_pages.router,
    ]


def healthz(request: Request) -> Response:
    """Say whether the pages can be served: the database answers."""
    context: WebContext = request.app.state.context
    with context.database.reading() as session:
        session.execute(text("SELECT 1"))
    return PlainTextResponse("ok\n")


def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if (to := _where_to_first(request, error)) is not None:
        return RedirectResponse(to, status_code=303)
    field = error.field if isinstance(error, RefusedRequestError) else ""
    answer = _say(request, error.status_code, str(error.detail), field)
    answer.headers.update(error.headers or {})
    return answer


def _where_to_first(request: Request, error: HTTPException) -> str | None:
    """Return where a person's browser has to go before it gets what it asked for."""
    if request.method != "GET" or "text/html" not in request.headers.get("accept", ""):
        return None
    context: WebContext = request.app.state.context
    if isinstance(error, ChangePasswordFirstError):
        return "/account"
    has_page = context.settings.web.login.mode in ("local", "oidc")
    if not isinstance(error, LogInFirstError) or not has_page:
        return None
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return "/login" if asked == "/" else f"/login?next={quote(asked, safe='/')}"


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # The value itself is not repeated: it came from outside.
    wrong = {_field_of(e["loc"]): e for e in error.errors()}
    is_api = request.url.path.startswith("/api/")
    said = {name: e["msg"] for name, e in wrong.items() if is_api or e["loc"][0] == "body"}
    if said:
        detail = "; ".join(f"{name}: {why}" for name, why in sorted(said.items()))
        return _say(request, 422, detail, min(said))
    # DICOMweb has a status of its own for it (DICOM PS3.18 table 8.5-1).
    status = 400 if request.url.path.startswith("/dicom-web/") else 422
    return _say(request, status, f"This address is not valid ({', '.join(sorted(wrong))}).")


def _field_of(place: Sequence[str | int]) -> str:
    """Return the field of a place in a request; of a list that is the list.

    >>> _field_of(("body", "roles", 0))
    'roles'
    """
    return [part for part in place if isinstance(part, str)][-1]


def _database_away(request: Request, error: Exception) -> Response:
    log.error("web.database", path=request.url.path, error=type(error).__name__)
    return _say(request, 503, "The database does not answer. Studies are not lost; try again.")


def _say(request: Request, status: int, detail: str, field: str = "") -> Response:
    if "text/html" not in request.headers.get("accept", ""):
        said = {"detail": detail, "field": field} if field else {"detail": detail}
        return JSONResponse(said, status)
    title = HTTPStatus(status).phrase
    content = {"status": status, "title": title, "detail": detail}
    return templates.TemplateResponse(request, "error.html", content, status)


class _Server(uvicorn.Server):
    """A server that ends the event streams when it stops; by themselves they never end."""

    def __init__(self, config: uvicorn.Config, live: LiveUpdates) -> None:
        super().__init__(config)
        self._live = live

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._live.close()


def run_web(settings: Settings) -> None:
    """Serve the pages, the API and, where its files are there, the viewer until a signal.

    Raises:
        WebError: the address of the pages cannot be listened on.
        DatabaseError: the schema is not the one that this version needs.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(settings.web.host, settings.web.port))
        sockets = [listener]
        if viewer_folder(settings):
            try:
                port = settings.viewer.port
                sockets.append(stack.enter_context(_listen(settings.web.host, port, "VIEWER")))
            except WebError as error:
                # The worklist does not wait for a viewer.
                log.warning("web.no_viewer", reason=str(error))
                settings = _without_viewer(settings)
        database = Database(settings.database_url)
        stack.callback(database.close)
        database.check_schema()
        pages = create_app(settings, database, InstanceFiles(settings.data_directory))
        config = uvicorn.Config(
            with_viewer(pages, settings),
            log_level="warning",
            access_log=False,
            server_header=False,
            forwarded_allow_ips=[str(network) for network in settings.web.trusted_proxies],
            timeout_graceful_shutdown=5,
        )
        viewer = f"port {settings.viewer.port}" if len(sockets) > 1 else ""
        log.info("web.listening", url=settings.web_url, viewer=viewer)
        pages.state.context.trail.announce()
        if settings.audit.host:
            sender = AuditSender(database, settings.audit, system_clock)
            stack.callback(sender.close)
            sender.start()
        spare_what_stays()
        _Server(config, pages.state.context.live).run(sockets=sockets)


def spare_what_stays() -> None:
    """Let the garbage collector go past what is loaded now: it stays as long as the process.

    To go through all modules and routes took it 0.25 s of processor time, at every third change
    that 200 open pages asked for.
    """
    gc.collect()
    gc.freeze()


def with_viewer(pages: FastAPI, settings: Settings) -> ASGIApp:
    """Return the pages, together with the viewer on its port where its files are there."""
    folder = viewer_folder(settings)
    if folder is None:
        return pages
    return ByPort(pages, create_viewer(pages.state.context, folder), settings.viewer.port)


def _without_viewer(settings: Settings) -> Settings:
    viewer = settings.viewer.model_copy(update={"enabled": False})
    return settings.model_copy(update={"viewer": viewer})


def _listen(host: str, port: int, section: str = "WEB") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        other = port + 1 if port < 65535 else 8080
        raise WebError(
            f"cannot listen on {host} port {port}: {error.strerror}; stop the program that uses "
            f"it, or choose another port with TRIAGE_{section}__PORT={other}"
        ) from error
    listener.listen(128)
    return listener
