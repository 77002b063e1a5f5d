"""The web application: a list of routes, and the server that answers them."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from http import HTTPStatus
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from triage.core.errors import TriageError
from triage.settings import Settings
from triage.store.clock import Clock, system_clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.web import (
    api,
    code_approvals,
    deliveries_api,
    delivery_pages,
    feedback,
    hl7,
    images,
    job_pages,
    jobs_api,
    model_pages,
    models_api,
    pages,
    stow,
    ups,
    ups_events,
    watch,
    withdrawals,
    worklist_api,
    worklist_pages,
)
from triage.web.board import Board
from triage.web.context import WebContext
from triage.web.dicomweb.access import READING
from triage.web.dicomweb.routes import reading_routes
from triage.web.live import LiveUpdates
from triage.web.refusals import RefusedRequestError
from triage.web.rendering import HERE, templates
from triage.web.security import KnownHost, SecurityHeaders
from triage.web.viewer import ByPort, create_viewer, viewer_folder

log = structlog.get_logger()

_DECODERS = 4


class WebError(TriageError):
    """The pages cannot be served; the message says why and what to do."""


def create_app(
    settings: Settings, database: Database, files: InstanceFiles, clock: Clock = system_clock
) -> FastAPI:
    """Return the application; it owns neither the database nor the files."""
    live = LiveUpdates(database)
    decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
    board = Board(database, clock, live.told_up_to)
    context = WebContext(settings, database, files, clock, live, decoders, board)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        live.close()
        context.close_entrance()
        decoders.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title="Triage",
        lifespan=lifespan,
        docs_url=None,  # both documentation pages load their scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.state.context = context
    app.include_router(worklist_pages.router)
    app.include_router(pages.router)
    app.include_router(images.router)
    app.include_router(worklist_api.router)
    app.include_router(api.router)
    app.include_router(models_api.router)
    app.include_router(model_pages.router)
    app.include_router(jobs_api.router)
    app.include_router(job_pages.router)
    app.include_router(code_approvals.api_router)
    app.include_router(code_approvals.page_router)
    app.include_router(stow.router)
    app.include_router(ups.router)
    app.include_router(ups_events.router)
    app.include_router(reading_routes(READING))
    app.include_router(feedback.router)
    app.include_router(deliveries_api.router)
    app.include_router(delivery_pages.router)
    app.include_router(watch.router)
    app.include_router(hl7.router)
    app.include_router(withdrawals.router)
    app.add_api_route("/healthz", healthz, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    app.add_exception_handler(HTTPException, _refusal)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(SQLAlchemyError, _database_away)
    app.add_middleware(KnownHost, settings=settings.web)
    app.add_middleware(SecurityHeaders)
    return app


def healthz(request: Request) -> Response:
    """Say whether the pages can be served: the database answers."""
    context: WebContext = request.app.state.context
    with context.database.reading() as session:
        session.execute(text("SELECT 1"))
    return PlainTextResponse("ok\n")


def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    field = error.field if isinstance(error, RefusedRequestError) else ""
    answer = _say(request, error.status_code, str(error.detail), field)
    answer.headers.update(error.headers or {})
    return answer


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # The value itself is not repeated: it came from outside.
    wrong = {str(e["loc"][-1]): e for e in error.errors()}
    in_body = {name: e["msg"] for name, e in wrong.items() if e["loc"][0] == "body"}
    if in_body:
        detail = "; ".join(f"{name}: {said}" for name, said in sorted(in_body.items()))
        return _say(request, 422, detail, min(in_body))
    # DICOMweb has a status of its own for it (DICOM PS3.18 table 8.5-1).
    status = 400 if request.url.path.startswith("/dicom-web/") else 422
    return _say(request, status, f"This address is not valid ({', '.join(sorted(wrong))}).")


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
            timeout_graceful_shutdown=5,
        )
        viewer = f"port {settings.viewer.port}" if len(sockets) > 1 else ""
        log.info("web.listening", url=settings.web_url, viewer=viewer)
        _Server(config, pages.state.context.live).run(sockets=sockets)


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
