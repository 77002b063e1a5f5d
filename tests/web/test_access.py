"""Who may do what: every route declares it, and what each role and token may open."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from tests.web.access import HTML, OURS, add_account, log_in, pages
from tests.web.hospital import Hospital
from triage.core.permissions import Permission, Role
from triage.settings import LoginSettings
from triage.settings.login import RoleGroups
from triage.web.access import May
from triage.web.callers import SESSION_COOKIE
from triage.web.static_files import STATIC_ROOT
from triage.web.viewer import create_viewer

# What nobody needs to be anybody for: none of it says anything of a patient.
PUBLIC = {
    "/healthz",
    "/static",
    STATIC_ROOT,
    "/login",
    "/login/oidc",
    "/login/callback",
    "/logout",
    "/api/v1/openapi.json",
}

# What is asked for in a body, because it may name a patient, and what is one's own alone.
LOOKING = {
    "/worklist/rows",
    "/read",
    "/find",
    "/api/v1/worklist/search",
    "/api/v1/worklist/read/search",
    "/api/v1/worklist/views/{name}",
    "/api/v1/studies/search",
    "/notifications/snooze",
    "/api/v1/notifications/snooze",
    "/simulation",
    "/api/v1/simulations",
}


def permissions_of(dependant: Dependant) -> set[Permission]:
    own = {dependant.call.permission} if isinstance(dependant.call, May) else set()
    return own.union(*(permissions_of(one) for one in dependant.dependencies))


def test_every_route_declares_a_permission(app: FastAPI, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<html></html>", "utf-8")
    viewer = create_viewer(app.state.context, tmp_path)
    missing = []
    for route in iter_route_contexts([*app.routes, *viewer.routes]):
        dependant = getattr(route, "dependant", None)
        is_declared = dependant is not None and permissions_of(dependant)
        if route.path not in PUBLIC and not is_declared:
            missing.append(route.path)
    assert missing == []


def test_every_change_needs_more_than_to_look(app: FastAPI) -> None:
    looking = {Permission.SEE_PATIENTS, Permission.SEE_MODELS, Permission.SEE_OPERATIONS}
    weak = [
        route.path
        for route in iter_route_contexts(app.routes)
        if (getattr(route, "methods", None) or set()) & {"POST", "PUT", "PATCH", "DELETE"}
        and route.path not in PUBLIC | LOOKING
        and not permissions_of(route.dependant) - looking
    ]
    assert weak == []


def test_without_log_in_everybody_may_do_everything(client: TestClient, hospital: Hospital) -> None:
    hospital.receive(*hospital.head_ct(slices=1))
    page = client.get("/", headers=HTML).text
    assert "Synthetic, Ada 1" in page
    assert "No log-in" in page
    assert "Nobody logs in here" not in page  # nobody else reaches it
    account = client.get("/api/v1/account").json()
    assert set(account["permissions"]) == {permission.value for permission in Permission}


def test_pages_that_others_reach_without_log_in_say_so(hospital: Hospital) -> None:
    with pages(hospital, LoginSettings(), host="0.0.0.0") as client:
        assert "Nobody logs in here" in client.get("/", headers=HTML).text


def test_who_is_not_logged_in_gets_nothing(hospital: Hospital) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    with pages(hospital) as client:
        page = client.get(f"/studies/{uid}?a=b", headers=HTML)
        assert page.status_code == 303
        assert page.headers["location"] == f"/login?next=/studies/{uid}%3Fa%3Db"
        for path in ("/worklist/rows", "/events", "/api/v1/worklist", "/dicom-web/studies"):
            answer = client.get(path)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert "Synthetic" not in answer.text
        with (
            pytest.raises(WebSocketDisconnect),
            client.websocket_connect("/dicom-web/subscribers/RIS"),
        ):
            pass
        assert client.get("/healthz").status_code == 200


OPENED = {
    Role.RADIOLOGIST: {"/", "/read", "/models", "/account"},
    Role.ADMINISTRATOR: {"/", "/read", "/models", "/status", "/deliveries", "/users", "/account"},
    Role.ML_ENGINEER: {"/models", "/model-jobs", "/account"},
    Role.AUDITOR: {"/audit", "/account"},
}


@pytest.mark.parametrize("role", list(Role))
def test_each_role_opens_its_pages_and_sees_no_others_in_the_bar(
    hospital: Hospital, role: Role
) -> None:
    add_account(hospital, "somebody", role)
    with pages(hospital) as client:
        log_in(client, "somebody")
        known = set().union(*OPENED.values())
        statuses = {path: client.get(path, headers=HTML).status_code for path in sorted(known)}
        assert {path for path, status in statuses.items() if status == 200} == OPENED[role]
        assert {s for path, s in statuses.items() if path not in OPENED[role]} == {403}
        bar = client.get("/account", headers=HTML).text.partition("</nav>")[0]
        for path in known - OPENED[role]:
            assert f'href="{path}"' not in bar.partition("<nav")[2]


def test_refusal_says_what_to_do(hospital: Hospital) -> None:
    add_account(hospital, "ada", Role.RADIOLOGIST)
    with pages(hospital) as client:
        log_in(client, "ada")
        answer = client.get("/users", headers=HTML)
        assert answer.status_code == 403
        assert "ada may not manage-users: that takes the role administrator" in answer.text


def test_roles_hold_from_the_next_request_on(hospital: Hospital) -> None:
    boss = add_account(hospital, "boss", Role.ADMINISTRATOR)
    ada = add_account(hospital, "ada", Role.RADIOLOGIST)
    with pages(hospital) as of_boss, pages(hospital) as of_ada:
        log_in(of_boss, "boss")
        log_in(of_ada, "ada")
        assert of_ada.get("/api/v1/worklist").status_code == 200
        roles = {"roles": ["ml-engineer"]}
        answer = of_boss.put(f"/api/v1/users/{ada.id}/roles", json=roles, headers=OURS)
        assert answer.json()["roles"] == ["ml-engineer"]
        assert of_ada.get("/api/v1/worklist").status_code == 403
        last = of_boss.put(f"/api/v1/users/{boss.id}/roles", json=roles, headers=OURS)
        assert last.status_code == 422
        assert "last administrator" in last.json()["detail"]


def test_proxy_says_who_and_in_which_groups(hospital: Hospital) -> None:
    login = LoginSettings(
        mode="proxy", groups_header="X-Groups", groups=RoleGroups(radiologist=("rad", "neuro"))
    )
    with pages(hospital, login, user_header="X-User") as client:
        assert client.get("/api/v1/worklist").status_code == 401
        who = {"X-User": "Dr. Ada"}
        assert client.get("/api/v1/worklist", headers=who).status_code == 403
        inside = who | {"X-Groups": "staff, neuro"}
        assert client.get("/api/v1/worklist", headers=inside).status_code == 200
        assert client.get("/api/v1/account", headers=inside).json()["name"] == "Dr. Ada"
        assert client.get("/status", headers=inside).status_code == 403


def test_viewer_asks_for_the_log_in_of_the_pages(hospital: Hospital, tmp_path: Path) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    add_account(hospital, "ada", Role.RADIOLOGIST)
    (tmp_path / "index.html").write_text("<html>viewer</html>", "utf-8")
    with pages(hospital) as client:
        context = client.app.state.context  # type: ignore[attr-defined]
        viewer = create_viewer(context, tmp_path)
        asked = f"/viewer?StudyInstanceUIDs={uid}"
        with TestClient(
            viewer, base_url="http://127.0.0.1:8081", follow_redirects=False
        ) as on_its_port:
            refused = on_its_port.get(asked, headers=HTML)
            assert refused.headers["location"] == "http://127.0.0.1:8080/login"
            assert on_its_port.get(f"/dicom-web/studies/{uid}/metadata").status_code == 401
            assert on_its_port.get("/app-config.js").status_code == 401
            log_in(client, "ada")
            on_its_port.cookies.set(SESSION_COOKIE, client.cookies[SESSION_COOKIE])
            assert on_its_port.get(asked, headers=HTML).text == "<html>viewer</html>"
            assert on_its_port.get(f"/dicom-web/studies/{uid}/metadata").status_code == 200


def make_token(client: TestClient, *scopes: str, days: int = 30) -> str:
    wanted = {"name": "viewer", "scopes": list(scopes), "days": days}
    answer = client.post("/api/v1/account/tokens", json=wanted, headers=OURS)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["secret"])


def test_token_opens_what_it_is_for_and_nothing_else(hospital: Hospital) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    add_account(hospital, "ada", Role.RADIOLOGIST)
    with pages(hospital) as browser, pages(hospital) as program:
        log_in(browser, "ada")
        bearer = {"Authorization": f"Bearer {make_token(browser, 'see-patients')}"}
        assert program.get("/api/v1/worklist", headers=bearer).status_code == 200
        assert program.get(f"/dicom-web/studies/{uid}/metadata", headers=bearer).status_code == 200
        read = f"/api/v1/studies/{uid}/read"
        answer = program.put(read, headers=bearer)
        assert answer.status_code == 403
        assert "the token lacks that scope" in answer.json()["detail"]
        assert program.get("/api/v1/account", headers=bearer).status_code == 403
        changing = {"Authorization": f"Bearer {make_token(browser, 'change-worklist')}"}
        # No header of ours, no origin: a token is not sent by a browser of itself.
        assert program.put(read, headers=changing).status_code in (200, 204)


def test_token_ends_with_its_time_its_owner_and_its_revocation(hospital: Hospital) -> None:
    boss = add_account(hospital, "boss", Role.ADMINISTRATOR)
    ada = add_account(hospital, "ada", Role.RADIOLOGIST)
    del boss
    with pages(hospital) as of_ada, pages(hospital) as of_boss, pages(hospital) as program:
        log_in(of_ada, "ada")
        log_in(of_boss, "boss")
        tokens = [make_token(of_ada, "see-patients", days=days) for days in (1, 30, 30)]

        def statuses() -> list[int]:
            return [
                program.get(
                    "/api/v1/worklist", headers={"Authorization": f"Bearer {token}"}
                ).status_code
                for token in tokens
            ]

        assert statuses() == [200, 200, 200]
        listed = of_ada.get("/api/v1/account").json()["tokens"]
        assert not any(secret in str(listed) for secret in tokens)
        of_ada.delete(f"/api/v1/account/tokens/{listed[0]['id']}", headers=OURS)
        assert statuses() == [200, 200, 401]
        hospital.clock.advance(25 * 3600)
        assert statuses() == [401, 200, 401]
        log_in(of_boss, "boss")
        of_boss.post(f"/api/v1/users/{ada.id}/disable", headers=OURS)
        assert statuses() == [401, 401, 401]


def test_token_is_for_no_more_than_its_owner_may(hospital: Hospital) -> None:
    add_account(hospital, "ada", Role.RADIOLOGIST)
    with pages(hospital) as client:
        log_in(client, "ada")
        wanted = {"name": "too much", "scopes": ["manage-users"], "days": 3}
        answer = client.post("/api/v1/account/tokens", json=wanted, headers=OURS)
        assert answer.status_code == 422
        assert "ada may not manage-users" in answer.json()["detail"]


def test_nobody_ends_sessions_or_tokens_of_others(hospital: Hospital) -> None:
    for name in ("ada", "eve"):
        add_account(hospital, name, Role.RADIOLOGIST)
    with pages(hospital) as of_ada, pages(hospital) as of_eve:
        log_in(of_ada, "ada")
        log_in(of_eve, "eve")
        make_token(of_ada, "see-patients")
        account = of_ada.get("/api/v1/account").json()
        session, token = account["sessions"][0]["id"], account["tokens"][0]["id"]
        for path in (f"sessions/{session}", f"tokens/{token}"):
            answer = of_eve.delete(f"/api/v1/account/{path}", headers=OURS)
            assert answer.status_code == 404
        assert of_eve.delete(f"/api/v1/tokens/{token}", headers=OURS).status_code == 403
        assert of_ada.get("/api/v1/account").json()["tokens"][0]["revoked_at"] is None
