"""The OHIF viewer on an origin of its own: its files, its configuration, and our DICOMweb.

Its assets are addressed from the root, so it has a port of its own. What it shows of a patient
comes from that port and from nowhere else, and its pages may talk to nobody else.
"""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from triage.core.audit import AuditKind
from triage.core.permissions import Permission
from triage.settings import Settings
from triage.web.access import LogInFirstError, may
from triage.web.audited import AuditedRequests
from triage.web.context import WebContext
from triage.web.dicomweb.access import require_enabled
from triage.web.dicomweb.routes import reading_routes
from triage.web.security import KnownHost, SecurityHeaders
from triage.web.viewer_files import FIRST_LINE

_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_CONFIGURATION = (
    f"{FIRST_LINE}\n"
    + """\
window.config = {
  routerBasename: null,
  extensions: [],
  modes: [],
  // No guided tour: it lies over the images of whoever opens the first study.
  customizationService: [{ 'ohif.tours': { $set: [] } }],
  showStudyList: true,
  // What a model outlined is laid over the images when it is opened, without a question.
  disableConfirmationPrompts: true,
  maxNumberOfWebWorkers: 3,
  showWarningMessageForCrossOrigin: true,
  showCPUFallbackMessage: true,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  groupEnabledModesFirst: true,
  maxNumRequests: { interaction: 100, thumbnail: 5, prefetch: 25 },
  defaultDataSourceName: 'triage',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'triage',
      configuration: {
        friendlyName: 'Triage',
        name: 'triage',
        wadoUriRoot: window.location.origin + '/dicom-web',
        qidoRoot: window.location.origin + '/dicom-web',
        wadoRoot: window.location.origin + '/dicom-web',
        qidoSupportsIncludeField: true,
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        omitQuotationForMultipartRequest: true,
        singlepart: 'bulkdata,video',
        bulkDataURI: { enabled: false },
      },
    },
  ],
};
"""
)
# What the system's own table may lack or have wrong; a browser runs nothing else.
_TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
}


def viewer_address(settings: Settings, request: Request) -> str:
    """Return where a browser that has asked for `request` finds the viewer."""
    if settings.viewer.url:
        return settings.viewer.url
    host = request.url.hostname or settings.web.host
    named = f"[{host}]" if ":" in host else host
    return f"{request.url.scheme}://{named}:{settings.viewer.port}"


def create_viewer(context: WebContext, folder: Path) -> FastAPI:
    """Return the application of the viewer's port.

    Nobody is asked for the Authorization header of programs here, but everybody for what the pages
    ask for: a browser sends the cookie of a session to all ports of a host.
    """
    app = FastAPI(title="Viewer", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.context = context
    seeing = [Depends(may(Permission.SEE_PATIENTS)), Depends(require_enabled)]
    opening = [Depends(may(Permission.SEE_PATIENTS, is_audited=False))]
    app.include_router(reading_routes(seeing, AuditKind.INSTANCES_ACCESSED))
    app.add_api_route("/app-config.js", _configuration, dependencies=opening)
    files = ViewerFiles(folder)

    async def file(request: Request, path: str) -> Response:
        return await files.get_response(path or "index.html", request.scope)

    app.add_api_route("/{path:path}", file, methods=["GET", "HEAD"], dependencies=opening)
    app.add_exception_handler(HTTPException, _refusal)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(AuditedRequests, trail=context.trail)
    app.add_middleware(KnownHost, settings=context.settings.web, url=context.settings.viewer.url)
    app.add_middleware(SecurityHeaders, headers=_headers(folder))
    return app


def _configuration() -> Response:
    headers = {"Cache-Control": "no-cache"}
    return Response(_CONFIGURATION, media_type="text/javascript", headers=headers)


def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    is_page = "text/html" in request.headers.get("accept", "")
    if isinstance(error, LogInFirstError) and is_page:
        return RedirectResponse(f"{_pages_address(request)}/login", status_code=303)
    return JSONResponse({"detail": str(error.detail)}, error.status_code, error.headers)


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # The value itself is not repeated: it came from outside.
    return PlainTextResponse("This address is not valid.\n", 400)


def _pages_address(request: Request) -> str:
    """Return where the browser that came to the viewer finds the pages."""
    web = request.app.state.context.settings.web
    if web.public_url:
        return str(web.public_url)
    host = request.url.hostname or web.host
    named = f"[{host}]" if ":" in host else host
    return f"{request.url.scheme}://{named}:{web.port}"


class ViewerFiles(StaticFiles):
    """The viewer's files; what is none of them is an address within the viewer."""

    def __init__(self, folder: Path) -> None:
        for suffix, kind in _TYPES.items():
            mimetypes.add_type(kind, suffix)
        self._index = folder / "index.html"
        super().__init__(directory=folder)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file; the viewer's page where the address has no suffix of a file."""
        try:
            answer = await super().get_response(path, scope)
        except HTTPException as error:
            if error.status_code != 404 or PurePosixPath(path).suffix in _TYPES:
                raise
            answer = FileResponse(self._index, media_type="text/html")
        # Revalidated each time, so that a new version is never mixed with an old one.
        answer.headers["Cache-Control"] = "no-cache"
        return answer


def _headers(folder: Path) -> Mapping[str, str]:
    """Return what every answer of the viewer's port carries.

    COOP and COEP isolate the page, so that its workers may share memory. It runs its own scripts
    only: those of its files, and those that stand in its page, by their digests. What comes from
    elsewhere is neither loaded nor told anything.
    """
    scripts = _INLINE_SCRIPT.findall((folder / "index.html").read_bytes())
    digests = [base64.b64encode(hashlib.sha256(one).digest()).decode() for one in scripts]
    policy = (
        "default-src 'none'",
        # Its reader of segmentations compiles functions from text (ndarray).
        " ".join(("script-src 'self' 'unsafe-eval'", *(f"'sha256-{d}'" for d in digests))),
        "worker-src 'self' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' blob: data:",
        "font-src 'self' data:",
        "connect-src 'self' blob: data:",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    }


class ByPort:
    """Hands each connection to the application of the port on which it came."""

    def __init__(self, pages: ASGIApp, viewer: ASGIApp, viewer_port: int) -> None:
        self._pages = pages
        self._viewer = viewer
        self._viewer_port = viewer_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; the start and the end of the process are the pages' affair."""
        # The port of the socket: no client can say another.
        _, port = scope.get("server") or ("", None)
        is_viewer = scope["type"] == "http" and port == self._viewer_port
        await (self._viewer if is_viewer else self._pages)(scope, receive, send)
