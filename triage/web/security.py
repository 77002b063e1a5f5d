"""What every answer carries, and which requests are refused before they reach a page."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from triage.settings import WebSettings
from triage.web.callers import Way, access_of, caller_of
from triage.web.loopback import LOOPBACK
from triage.web.static_files import STATIC_ROOT

_CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_SECURITY_HEADERS = {
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_ONLY_HTTPS = "max-age=31536000"
REQUEST_HEADER = "X-Triage-Request"


class SecurityHeaders:
    """Puts the headers on every answer, and no-store where the answer says nothing of caching."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str] = _SECURITY_HEADERS) -> None:
        self.app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers.setdefault("Strict-Transport-Security", _ONLY_HTTPS)
                if scope["path"].startswith(f"{STATIC_ROOT}/"):
                    headers["Cache-Control"] = "public, max-age=31536000, immutable"
                elif scope["path"].startswith("/static/"):
                    # Revalidated each time, so that a new version is never mixed with an old one.
                    headers["Cache-Control"] = "no-cache"
                else:
                    headers.setdefault("Cache-Control", "private, no-store")
            await send(message)

        await self.app(scope, receive, send_with_headers)


class KnownHost:
    """Refuses requests whose Host header names a host that is not this one (DNS rebinding)."""

    def __init__(self, app: ASGIApp, settings: WebSettings, url: str = "") -> None:
        self.app = app
        self._names = {name.lower() for name in settings.allowed_hosts} | LOOPBACK
        self._names |= {urlsplit(url).hostname or "localhost"}
        self._is_loopback = settings.host in LOOPBACK
        if not self._is_loopback:
            names = (settings.host, socket.gethostname(), socket.getfqdn())
            self._names |= {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        is_asked = scope["type"] in ("http", "websocket")
        if not is_asked or self._is_known(Headers(scope=scope).get("host", "")):
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await receive()  # what asks for the connection
            await send({"type": "websocket.close", "code": 1008})  # before accepting: it gets 403
            return
        answer = PlainTextResponse(
            "This host name is not one of Triage's; add it to allowed_hosts in [web].\n", 421
        )
        await answer(scope, receive, send)

    def _is_known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._names:
            return True
        # A rebound name is never an address, so one that was typed as an address is safe.
        return not self._is_loopback and _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def require_same_origin(request: Request) -> None:
    """Refuse a change that another site's page asks for in the name of this browser's user.

    Browsers state the origin of every POST; what states none is no browser and must say so with
    the header X-Triage-Request, which a foreign page cannot set without being asked first.

    What brings a token needs neither: no page can make a browser send one for it.

    Raises:
        HTTPException: 403.
    """
    if access_of(request).is_identified:
        caller = caller_of(request)
    else:
        caller = await run_in_threadpool(caller_of, request)
    if caller is not None and caller.way in (Way.TOKEN, Way.PROGRAM):
        return
    fetched_from = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    if origin is None:
        is_ours = REQUEST_HEADER in request.headers
    else:
        is_ours = urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()
    if not is_ours or fetched_from not in ("same-origin", "none"):
        raise HTTPException(403, "this change was asked for by another site's page")


def refuse_other_sites(request: Request) -> None:
    """Refuse what another site's page sends through a browser; let programs in.

    A program states no origin. A browser always does with a POST to another site, and may send
    multipart/related there only after it has asked, which is not answered here.

    Raises:
        HTTPException: 403.
    """
    origin = request.headers.get("origin")
    is_ours = (
        origin is None or urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()
    )
    fetched_from = request.headers.get("sec-fetch-site", "none")
    if not is_ours or fetched_from not in ("same-origin", "none"):
        raise HTTPException(403, "this was sent by another site's page")
