"""An OpenID Connect provider: discovery, authorization code with PKCE, signed ID tokens, UserInfo.

It logs in whoever `person` is without a question, and checks what a client must bring.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlencode

import uvicorn
from fastapi import FastAPI, Form, Header, Request
from fastapi.responses import JSONResponse, RedirectResponse
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.tools import find_free_port, wait_until

CLIENT_ID, CLIENT_SECRET = "triage", "the client's secret"
_KEY = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"}, auto_kid=False)


@dataclass
class Provider:
    """What the provider knows and does; a test changes it.

    Attributes:
        person: the claims of who sits at the browser.
        spoiled: claims that are put into the ID token instead of the right ones.
        key: what ID tokens are signed with.
        told: claims that only UserInfo gives.
        codes: for each code that was given out the request that it answers.
    """

    issuer: str
    person: dict[str, Any] = field(default_factory=dict)
    spoiled: dict[str, Any] = field(default_factory=dict)
    key: RSAKey = field(default_factory=lambda: _KEY)
    told: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def forget(self) -> None:
        """Be as at first."""
        self.person, self.spoiled, self.told, self.key = {}, {}, {}, _KEY

    def id_token(self, nonce: str) -> str:
        """Return the signed ID token of the person (OpenID Connect Core 1.0 section 2)."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
            **self.person,
            **self.spoiled,
        }
        return jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.key)


def create_provider(provider: Provider) -> FastAPI:
    """Return the application of a provider."""
    app = FastAPI()

    @app.get("/.well-known/openid-configuration")
    def discovery() -> dict[str, Any]:
        root = provider.issuer
        return {
            "issuer": root,
            "authorization_endpoint": f"{root}/authorize",
            "token_endpoint": f"{root}/token",
            "jwks_uri": f"{root}/keys",
            "userinfo_endpoint": f"{root}/userinfo",
            "end_session_endpoint": f"{root}/leave",
        }

    @app.get("/keys")
    def keys() -> dict[str, Any]:
        return {"keys": [_KEY.as_dict(private=False)]}

    @app.get("/authorize")
    def authorize(request: Request) -> RedirectResponse:
        asked = dict(request.query_params)
        assert asked["client_id"] == CLIENT_ID
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(16)
        provider.codes[code] = asked
        answer = urlencode({"code": code, "state": asked["state"]})
        return RedirectResponse(f"{asked['redirect_uri']}?{answer}", status_code=303)

    @app.post("/token")
    def token(
        code: Annotated[str, Form()],
        code_verifier: Annotated[str, Form()],
        redirect_uri: Annotated[str, Form()],
        authorization: Annotated[str, Header()],
    ) -> Any:
        secret = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        asked = provider.codes.pop(code, None)
        digest = hashlib.sha256(code_verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            asked is None
            or secret != f"{CLIENT_ID}:{CLIENT_SECRET}"
            or asked["code_challenge"] != challenge
            or asked["redirect_uri"] != redirect_uri
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)  # RFC 6749 5.2
        return {
            "access_token": "for userinfo",
            "token_type": "Bearer",
            "expires_in": 300,
            "id_token": provider.id_token(asked["nonce"]),
        }

    @app.get("/userinfo")
    def userinfo(authorization: Annotated[str, Header()]) -> dict[str, Any]:
        assert authorization == "Bearer for userinfo"
        return {"sub": provider.person["sub"], **provider.told}

    return app


@contextmanager
def running_provider() -> Iterator[Provider]:
    """Give a provider that answers over HTTP until the end."""
    port = find_free_port()
    provider = Provider(f"http://127.0.0.1:{port}")
    server = uvicorn.Server(
        uvicorn.Config(create_provider(provider), port=port, log_level="warning")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the provider listens")
    yield provider
    server.should_exit = True
    thread.join(timeout=10)
