"""Logging in at an OpenID Connect provider: authorization code with PKCE, state and nonce.

OpenID Connect Core 1.0 section 3.1, Discovery 1.0, RP-Initiated Logout 1.0, RFC 7636. Authlib
speaks to the provider, joserfc checks the signature of what it says.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from urllib.parse import urlencode

import httpx
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, KeySetSerialization
from requests import RequestException
from starlette.requests import Request
from starlette.responses import Response

from triage.settings import OidcSettings
from triage.store.log_ins import PendingLogIn, keep_pending, take_pending
from triage.store.secrets import digest_of, new_secret
from triage.store.user_tables import Origin
from triage.store.users import User, keep_user_from_outside
from triage.web.callers import context_of
from triage.web.log_in import LogInError, is_secure
from triage.web.log_in import begin as begin_session

PENDING_COOKIE = "triage-log-in"
_PATIENCE = timedelta(minutes=10)
_LEEWAY_S = 60
# Signatures that only the provider can make; never "none", nor a shared secret.
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]


@dataclass(frozen=True, slots=True)
class Provider:
    """What the provider's discovery document says (Discovery 1.0 section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    end_session_endpoint: str = ""


def discover(settings: OidcSettings) -> Provider:
    """Return the provider.

    Raises:
        LogInError: 503, it does not answer, or is another than the one that is configured.
    """
    found = _get(settings, f"{settings.issuer}/.well-known/openid-configuration")
    if str(found.get("issuer", "")).rstrip("/") != settings.issuer:
        raise LogInError(
            503,
            f"The provider calls itself {found.get('issuer')!r}; if it is the right one, set "
            "web.login.oidc.issuer to that.",
        )
    fields = {name: str(found.get(name, "")) for name in Provider.__dataclass_fields__}
    if missing := [name for name in list(fields)[:4] if not fields[name]]:
        raise LogInError(503, f"The provider's discovery document lacks {', '.join(missing)}.")
    return Provider(**fields)


def _get(settings: OidcSettings, address: str, **headers: str) -> dict[str, Any]:
    try:
        answer = httpx.get(address, timeout=settings.timeout_s, headers=headers)
        answer.raise_for_status()
        content = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise _away(error) from error
    if not isinstance(content, dict):
        raise LogInError(503, f"The provider's answer from {address} is no JSON object.")
    return content


def _away(error: Exception) -> LogInError:
    return LogInError(
        503,
        f"The provider does not answer ({type(error).__name__}). Try again in a moment; if it "
        "stays so, an administrator can see with `triage doctor` what is wrong.",
    )


def begin(request: Request, return_to: str) -> tuple[str, str]:
    """Return where the browser is to go, and the secret that it has to bring back in a cookie.

    Raises:
        LogInError: 503, the provider does not answer.
    """
    context = context_of(request)
    provider = discover(context.settings.web.login.oidc)
    pending = PendingLogIn(
        state=secrets.token_urlsafe(32),
        nonce=secrets.token_urlsafe(32),
        code_verifier=secrets.token_urlsafe(48),
        return_to=return_to,
    )
    secret = new_secret()
    with context.database.transaction() as session:
        keep_pending(
            session,
            digest_of(secret),
            pending,
            until=context.now() + _PATIENCE,
            now=context.now(),
        )
    with _client(request) as client:
        address, _ = client.create_authorization_url(
            provider.authorization_endpoint,
            state=pending.state,
            nonce=pending.nonce,
            code_verifier=pending.code_verifier,
        )
    return address, secret


def _client(request: Request) -> OAuth2Session:
    settings = context_of(request).settings.web.login.oidc
    return OAuth2Session(
        settings.client_id,
        settings.client_secret or None,
        token_endpoint_auth_method="client_secret_basic" if settings.client_secret else "none",
        scope=" ".join(settings.scopes),
        redirect_uri=f"{_our_address(request)}/login/callback",
        code_challenge_method="S256",
        default_timeout=settings.timeout_s,
    )


def _our_address(request: Request) -> str:
    public = context_of(request).settings.web.public_url
    return public or str(request.base_url).rstrip("/")


def finish(request: Request, *, code: str, state: str, error: str) -> tuple[str, str]:
    """Return the secret of the new session, and the page that was asked for.

    Raises:
        LogInError: the answer does not belong to this browser, the provider refuses or does not
            answer, what it says is not to be believed, or the person has no role.
    """
    context = context_of(request)
    with context.database.transaction() as session:
        brought = digest_of(request.cookies.get(PENDING_COOKIE, ""))
        pending = take_pending(session, brought, now=context.now())
    if pending is None or not hmac.compare_digest(pending.state.encode(), state.encode()):
        raise LogInError(400, "This log-in was not begun in this browser, or long ago. Try again.")
    if error or not code:
        said = "".join(c for c in error if c.isalnum() or c in "_- ") or "no code"
        raise LogInError(403, f"The provider did not let you in ({said}).")
    user = _person(request, pending, code)
    return begin_session(request, user), pending.return_to


def _person(request: Request, pending: PendingLogIn, code: str) -> User:
    context = context_of(request)
    login = context.settings.web.login
    provider = discover(login.oidc)
    token = _token(request, provider, pending, code)
    claims = _claims(login.oidc, provider, token, pending.nonce)
    claims = _completed(login.oidc, provider, token, claims)
    name = str(claims.get(login.oidc.name_claim) or claims["sub"])
    groups = _groups(claims, login.oidc.groups_claim)
    roles = login.roles_of(groups)
    if not roles:
        raise LogInError(
            403,
            f"You are {name} at the provider, and none of your groups "
            f"({', '.join(sorted(groups)) or 'it names none'}) has a role in Triage. Ask an "
            "administrator to name one in [web.login.groups].",
        )
    with context.database.transaction() as session:
        user = keep_user_from_outside(
            session,
            Origin.OIDC,
            f"{provider.issuer} {claims['sub']}",
            name,
            roles,
            now=context.now(),
        )
    if user.is_disabled:
        raise LogInError(403, f"The account {name} is disabled; an administrator can enable it.")
    return user


def _token(
    request: Request, provider: Provider, pending: PendingLogIn, code: str
) -> dict[str, Any]:
    try:
        with _client(request) as client:
            token: dict[str, Any] = client.fetch_token(
                provider.token_endpoint, code=code, code_verifier=pending.code_verifier
            )
    except AuthlibBaseError as error:
        raise LogInError(
            403, f"The provider did not take the code ({error.error}). Try again."
        ) from error
    except (RequestException, ValueError) as error:
        raise _away(error) from error
    return token


def _claims(
    settings: OidcSettings, provider: Provider, token: dict[str, Any], nonce: str
) -> dict[str, Any]:
    """Return the claims of the ID token (OpenID Connect Core 1.0, 3.1.3.7)."""
    keys = _get(settings, provider.jwks_uri)
    try:
        decoded = jwt.decode(
            str(token.get("id_token", "")),
            KeySet.import_key_set(cast(KeySetSerialization, keys)),  # it checks what it reads
            algorithms=_ALGORITHMS,
        )
        claims = CodeIDToken(
            decoded.claims,
            decoded.header,
            {
                "iss": {"essential": True, "value": provider.issuer},
                "aud": {"essential": True, "value": settings.client_id},
                "exp": {"essential": True},
                "sub": {"essential": True},
                "nonce": {"essential": True, "value": nonce},
            },
            {"client_id": settings.client_id, "access_token": token.get("access_token")},
        )
        claims.validate(leeway=_LEEWAY_S)
    except (AuthlibBaseError, JoseError, ValueError) as error:
        raise LogInError(
            403,
            f"What the provider says of you cannot be believed ({type(error).__name__}: {error}). "
            "Try again; if it stays so, compare issuer, client_id and the clocks.",
        ) from error
    return dict(claims)


def _completed(
    settings: OidcSettings, provider: Provider, token: dict[str, Any], claims: dict[str, Any]
) -> dict[str, Any]:
    """Return the claims with what only the UserInfo endpoint says, where it is missing."""
    has_groups = _at(claims, settings.groups_claim) is not None
    if (has_groups and settings.name_claim in claims) or not provider.userinfo_endpoint:
        return claims
    authorization = f"Bearer {token.get('access_token', '')}"
    told = _get(settings, provider.userinfo_endpoint, Authorization=authorization)
    if told.get("sub") != claims["sub"]:  # OpenID Connect Core 1.0, 5.3.2
        raise LogInError(403, "The provider speaks of two different persons. Try again.")
    return told | claims


def _groups(claims: dict[str, Any], path: str) -> set[str]:
    found = _at(claims, path)
    if isinstance(found, str):
        return {found}
    return {str(group) for group in found} if isinstance(found, list) else set()


def _at(claims: dict[str, Any], path: str) -> Any:
    if path in claims:
        return claims[path]  # a claim may be an address, with dots in it
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def log_out_address(request: Request) -> str:
    """Return where one logs out at the provider too, "" where it offers that nowhere."""
    settings = context_of(request).settings.web.login.oidc
    try:
        provider = discover(settings)
    except LogInError:
        return ""
    if not provider.end_session_endpoint:
        return ""
    asked = {
        "client_id": settings.client_id,
        "post_logout_redirect_uri": f"{_our_address(request)}/login",
    }
    return f"{provider.end_session_endpoint}?{urlencode(asked)}"


def set_pending_cookie(request: Request, response: Response, secret: str) -> None:
    """Hand the browser what it has to bring back."""
    response.set_cookie(
        PENDING_COOKIE,
        secret,
        max_age=int(_PATIENCE.total_seconds()),
        path="/login",
        httponly=True,
        samesite="lax",
        secure=is_secure(request),
    )


def clear_pending_cookie(request: Request, response: Response) -> None:
    """Take it back."""
    response.delete_cookie(
        PENDING_COOKIE, path="/login", httponly=True, samesite="lax", secure=is_secure(request)
    )
