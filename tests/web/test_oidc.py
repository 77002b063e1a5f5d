"""Logging in at an OpenID Connect provider that answers over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient
from joserfc.jwk import RSAKey

from tests.web.access import HTML, OURS, pages, trail
from tests.web.hospital import Hospital
from tests.web.provider import CLIENT_ID, CLIENT_SECRET, Provider, running_provider
from triage.settings import LoginSettings, OidcSettings
from triage.settings.login import RoleGroups
from triage.store.users import disable, users
from triage.web.callers import SESSION_COOKIE
from triage.web.oidc import PENDING_COOKIE

ADA = {"sub": "a-1", "preferred_username": "ada", "groups": ["staff", "radiology"]}


@pytest.fixture(scope="module")
def one_provider() -> Iterator[Provider]:
    """A provider that all tests of this file share."""
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(one_provider: Provider) -> Provider:
    """The same as it was at first, with Ada at the browser."""
    one_provider.forget()
    one_provider.person = dict(ADA)
    return one_provider


def login_at(provider: Provider, **oidc: Any) -> LoginSettings:
    return LoginSettings(
        mode="oidc",
        groups=RoleGroups(radiologist=("radiology",), auditor=("privacy",)),
        oidc=OidcSettings(
            issuer=provider.issuer, client_id=CLIENT_ID, client_secret=CLIENT_SECRET, **oidc
        ),
    )


@pytest.fixture
def browser(hospital: Hospital, provider: Provider) -> Iterator[TestClient]:
    """A browser on pages that send people to the provider."""
    with pages(hospital, login_at(provider)) as client:
        yield client


def go_to_provider(browser: TestClient, path: str = "/login/oidc") -> str:
    """Follow the browser to the provider, and return the address where it sends it back to."""
    there = browser.get(path, headers=HTML).headers["location"]
    back = httpx.get(there).headers["location"]
    parts = urlsplit(back)
    assert parts.path == "/login/callback"
    return f"{parts.path}?{parts.query}"


def log_in_there(browser: TestClient) -> Any:
    return browser.get(go_to_provider(browser), headers=HTML)


def test_person_logs_in_at_the_provider_and_is_led_back(
    browser: TestClient, hospital: Hospital
) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    asked = browser.get(f"/studies/{uid}", headers=HTML).headers["location"]
    assert f"/login/oidc?next=/studies/{uid}" in browser.get(asked, headers=HTML).text
    back = go_to_provider(browser, f"/login/oidc?next=/studies/{uid}")
    answer = browser.get(back, headers=HTML)
    assert answer.headers["location"] == f"/studies/{uid}"
    assert browser.get(f"/studies/{uid}", headers=HTML).status_code == 200
    account = browser.get("/api/v1/account").json()
    assert (account["name"], account["roles"]) == ("ada", ["radiologist"])
    assert browser.get("/audit", headers=HTML).status_code == 403
    assert ("log-in", "ada") in [(e.event.type, e.event.who) for e in trail(browser)]


def test_roles_are_those_of_the_groups_at_each_log_in(
    browser: TestClient, provider: Provider
) -> None:
    log_in_there(browser)
    browser.post("/logout", headers=OURS)
    provider.person["groups"] = ["privacy"]
    log_in_there(browser)
    account = browser.get("/api/v1/account").json()
    assert (account["name"], account["roles"]) == ("ada", ["auditor"])


def test_claims_may_be_nested_or_come_from_userinfo(hospital: Hospital, provider: Provider) -> None:
    provider.person = {"sub": "a-2"}
    provider.told = {"preferred_username": "bob", "realm": {"roles": ["radiology"]}}
    with pages(hospital, login_at(provider, groups_claim="realm.roles")) as browser:
        log_in_there(browser)
        assert browser.get("/api/v1/account").json()["name"] == "bob"


def test_who_has_no_role_is_told_why(browser: TestClient, provider: Provider) -> None:
    provider.person["groups"] = ["kitchen"]
    answer = log_in_there(browser)
    assert answer.status_code == 403
    assert "none of your groups (kitchen) has a role" in answer.text
    assert SESSION_COOKIE not in browser.cookies


@pytest.mark.parametrize(
    "spoiled",
    [
        {"nonce": "another"},
        {"aud": "another client"},
        {"iss": "https://evil.example"},
        {"exp": 1},
    ],
)
def test_id_token_for_something_else_is_not_believed(
    browser: TestClient, provider: Provider, spoiled: dict[str, Any]
) -> None:
    provider.spoiled = spoiled
    answer = log_in_there(browser)
    assert answer.status_code == 403
    assert "cannot be believed" in answer.text
    assert browser.get("/api/v1/worklist").status_code == 401


def test_id_token_of_another_key_is_not_believed(browser: TestClient, provider: Provider) -> None:
    provider.key = RSAKey.generate_key(2048, {"kid": "one"}, auto_kid=False)
    assert "cannot be believed" in log_in_there(browser).text


def test_answer_counts_once_and_in_the_browser_that_asked(
    browser: TestClient, hospital: Hospital, provider: Provider
) -> None:
    back = go_to_provider(browser)
    with pages(hospital, login_at(provider)) as of_eve:
        stolen = of_eve.get(back, headers=HTML)
        assert stolen.status_code == 400
        assert "was not begun in this browser" in stolen.text
    pending = browser.cookies[PENDING_COOKIE]
    forged = back.replace(parse_qs(urlsplit(back).query)["state"][0], "forged")
    assert browser.get(forged, headers=HTML).status_code == 400
    browser.cookies.set(PENDING_COOKIE, pending, path="/login")
    assert browser.get(back, headers=HTML).status_code == 400  # it was used up


def test_log_in_takes_ten_minutes_at_most(browser: TestClient, hospital: Hospital) -> None:
    back = go_to_provider(browser)
    hospital.clock.advance(601)
    assert browser.get(back, headers=HTML).status_code == 400


def test_code_without_its_verifier_is_of_no_use(browser: TestClient, provider: Provider) -> None:
    back = go_to_provider(browser)
    code = parse_qs(urlsplit(back).query)["code"][0]
    provider.codes[code]["code_challenge"] = "of another browser"
    answer = browser.get(back, headers=HTML)
    assert answer.status_code == 403
    assert "did not take the code" in answer.text


def test_refusal_of_the_provider_is_said(browser: TestClient) -> None:
    back = go_to_provider(browser)
    state = parse_qs(urlsplit(back).query)["state"][0]
    refused = f"/login/callback?error=access_denied&state={state}"
    assert "did not let you in (access_denied)" in browser.get(refused, headers=HTML).text


def test_provider_that_is_away_or_another_is_said(
    hospital: Hospital, provider: Provider, free_port: int
) -> None:
    away = login_at(provider).model_copy(
        update={"oidc": OidcSettings(issuer=f"http://127.0.0.1:{free_port}", client_id="x")}
    )
    with pages(hospital, away) as browser:
        answer = browser.get("/login/oidc", headers=HTML)
        assert answer.status_code == 503
        assert "The provider does not answer" in answer.text
        assert browser.get("/login", headers=HTML).status_code == 200
    other = provider.issuer.replace("127.0.0.1", "localhost")
    moved = away.model_copy(update={"oidc": OidcSettings(issuer=other, client_id="x")})
    with pages(hospital, moved) as browser:
        assert "calls itself" in browser.get("/login/oidc", headers=HTML).text


def test_log_out_offers_that_of_the_provider(browser: TestClient, provider: Provider) -> None:
    log_in_there(browser)
    left = browser.post("/logout", headers=OURS).headers["location"]
    page = browser.get(left, headers=HTML).text
    assert "You are logged out." in page
    assert f"{provider.issuer}/leave?client_id=triage" in page
    assert browser.get("/api/v1/worklist").status_code == 401


def test_disabled_account_stays_out(browser: TestClient, hospital: Hospital) -> None:
    log_in_there(browser)
    with hospital.database.transaction() as session:
        disable(session, users(session)[0].id)
    assert browser.get("/api/v1/worklist").status_code == 401
    assert "is disabled" in log_in_there(browser).text
