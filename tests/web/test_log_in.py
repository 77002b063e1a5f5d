"""Logging in with a password: who gets in, for how long, and what an attacker gets."""

from __future__ import annotations

import pytest

from tests.web.access import HTML, OURS, PASSWORD, add_account, log_in, pages, trail
from tests.web.hospital import Hospital
from triage.core.permissions import Role
from triage.settings import LoginSettings
from triage.store.passwords import PasswordError, check_password
from triage.web.callers import SESSION_COOKIE
from triage.web.log_in import local_path


def test_log_in_leads_to_what_was_asked_for_and_log_out_ends_it(hospital: Hospital) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    add_account(hospital, "ada", Role.RADIOLOGIST)
    with pages(hospital) as client:
        asked = client.get(f"/studies/{uid}", headers=HTML).headers["location"]
        assert f'value="/studies/{uid}"' in client.get(asked, headers=HTML).text
        answer = log_in(client, "Ada ", next=f"/studies/{uid}")
        assert answer.headers["location"] == f"/studies/{uid}"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Secure" not in cookie  # it came by http
        assert "Synthetic, Ada 1" in client.get(f"/studies/{uid}", headers=HTML).text
        secret = client.cookies[SESSION_COOKIE]
        client.post("/logout", headers=OURS)
        client.cookies.set(SESSION_COOKIE, secret)
        assert client.get(f"/studies/{uid}", headers=HTML).status_code == 303
        done = [(e.event.type, e.event.who) for e in trail(client)]
        assert ("log-in", "ada") in done
        assert ("log-out", "ada") in done


def test_cookie_is_for_https_only_where_the_pages_come_by_it(hospital: Hospital) -> None:
    add_account(hospital, "ada", Role.RADIOLOGIST)
    with pages(hospital, public_url="https://triage.example") as client:
        assert "Secure" in log_in(client, "ada").headers["set-cookie"]


def test_wrong_name_and_wrong_password_are_told_alike(hospital: Hospital) -> None:
    add_account(hospital, "ada", Role.RADIOLOGIST)
    with pages(hospital) as client:
        wrong = [log_in(client, "ada", "wrong"), log_in(client, "bob", "wrong")]
        assert [answer.status_code for answer in wrong] == [401, 401]
        texts = [answer.text.replace("ada", "bob") for answer in wrong]
        assert texts[0] == texts[1]
        names = [entry.event.who for entry in trail(client)]
        assert names == ["an unknown name", "ada"]  # the former may be a password


def test_many_failures_lock_name_and_address_for_a_while(hospital: Hospital) -> None:
    add_account(hospital, "ada", Role.RADIOLOGIST)
    add_account(hospital, "bob", Role.RADIOLOGIST)
    with pages(hospital, LoginSettings(mode="local", failures_before_lock=3)) as client:
        for _ in range(3):
            assert log_in(client, "ada", "guess").status_code == 401
        locked = log_in(client, "ADA")
        assert locked.status_code == 429
        assert "Try again in 15 min" in locked.text
        assert "triage users unlock" in locked.text
        assert log_in(client, "bob").status_code == 303
        assert trail(client)[1].event.type == "locked-out"
        hospital.clock.advance(16 * 60)
        assert log_in(client, "ada").status_code == 303


def test_locks_say_nothing_of_whether_there_is_an_account(hospital: Hospital) -> None:
    with pages(hospital, LoginSettings(mode="local", failures_before_lock=1)) as client:
        assert log_in(client, "nobody").status_code == 401
        assert log_in(client, "nobody").status_code == 429


def test_session_ends_when_idle_and_in_any_case(hospital: Hospital) -> None:
    add_account(hospital, "ada", Role.RADIOLOGIST)
    login = LoginSettings(mode="local", idle_minutes=30, session_hours=2)
    with pages(hospital, login) as client:
        log_in(client, "ada")
        trail(client)
        for _ in range(4):
            hospital.clock.advance(29 * 60)
            assert client.get("/api/v1/worklist").status_code == 200
            trail(client)  # writes that the session was in use
        hospital.clock.advance(5 * 60)
        assert client.get("/api/v1/worklist").status_code == 401
        log_in(client, "ada")
        hospital.clock.advance(31 * 60)
        assert client.get("/api/v1/worklist").status_code == 401


def test_what_an_open_page_asks_by_itself_keeps_no_session_alive(hospital: Hospital) -> None:
    add_account(hospital, "ada", Role.RADIOLOGIST)
    with pages(hospital) as client:
        log_in(client, "ada")
        for _ in range(2):
            hospital.clock.advance(14 * 60)
            assert client.get("/worklist/rows").status_code == 200
            trail(client)
        hospital.clock.advance(14 * 60)
        assert client.get("/worklist/rows").status_code == 401


def test_log_in_takes_a_new_session_whatever_the_browser_had(hospital: Hospital) -> None:
    add_account(hospital, "ada", Role.RADIOLOGIST)
    with pages(hospital) as client:
        client.cookies.set(SESSION_COOKIE, "chosen-by-eve")
        assert client.get("/api/v1/worklist").status_code == 401
        assert "chosen-by-eve" not in log_in(client, "ada").headers["set-cookie"]
        first = log_in(client, "ada").cookies[SESSION_COOKIE]
        second = log_in(client, "ada").cookies[SESSION_COOKIE]
        assert first != second


def test_change_of_password_ends_all_other_sessions(hospital: Hospital) -> None:
    add_account(hospital, "ada", Role.RADIOLOGIST)
    with pages(hospital) as here, pages(hospital) as there:
        log_in(here, "ada")
        log_in(there, "ada")
        change = {"old": PASSWORD, "new": "another horse battery", "again": "another horse battery"}
        wrong = here.post("/account/password", data=change | {"old": "x"}, headers=HTML | OURS)
        assert "this is not your password" in wrong.text
        assert here.post("/account/password", data=change, headers=OURS).status_code == 303
        assert here.get("/api/v1/worklist").status_code == 200
        assert there.get("/api/v1/worklist").status_code == 401
        assert log_in(there, "ada").status_code == 401
        assert log_in(there, "ada", "another horse battery").status_code == 303


def test_password_from_the_administrator_has_to_be_changed_first(hospital: Hospital) -> None:
    add_account(hospital, "boss", Role.ADMINISTRATOR)
    with pages(hospital) as of_boss, pages(hospital) as of_ada:
        log_in(of_boss, "boss")
        new = {"name": "ada", "password": "first battery horse", "roles": ["radiologist"]}
        assert of_boss.post("/api/v1/users", json=new, headers=OURS).status_code == 201
        assert log_in(of_ada, "ada", "first battery horse").headers["location"] == "/account"
        assert of_ada.get("/", headers=HTML).headers["location"] == "/account"
        assert of_ada.get("/api/v1/worklist").status_code == 403
        change = {"old": "first battery horse", "new": PASSWORD}
        answer = of_ada.put("/api/v1/account/password", json=change, headers=OURS)
        assert answer.status_code == 204
        assert of_ada.get("/api/v1/worklist").status_code == 200


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("short", "at least 12 characters"),
        ("aaaaaaaaaaaaaa", "repeats"),
        ("ada.lovelace-1", "holds the name"),
        ("P@ssw0rdPassword!1", "commonest"),
        ("Radiology2026!", "commonest"),
    ],
)
def test_passwords_that_others_guess_are_refused(password: str, why: str) -> None:
    with pytest.raises(PasswordError, match=why):
        check_password(password, "ada.lovelace", minimum_length=12)


def test_another_sites_page_changes_nothing_in_a_persons_name(hospital: Hospital) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    add_account(hospital, "ada", Role.RADIOLOGIST)
    theirs = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    with pages(hospital) as client:
        log_in(client, "ada")
        for path in (f"/studies/{uid}/read", "/logout", "/login", "/account/tokens"):
            assert client.post(path, headers=theirs).status_code == 403, path
            assert client.post(path).status_code == 403, path
        assert client.get("/api/v1/worklist").status_code == 200


ELSEWHERE = (
    "https://evil.example/",
    "//evil.example",
    "/\\evil.example",
    "/\t/evil.example",
    "\\\\evil.example",
    "javascript:alert(1)",
    "studies/1.2",
    "/é",
)


def test_log_in_leads_nobody_to_another_site(hospital: Hospital) -> None:
    add_account(hospital, "ada", Role.RADIOLOGIST)
    for address in ELSEWHERE:
        assert local_path(address) == "", address
        with pages(hospital) as client:
            assert log_in(client, "ada", next=address).headers["location"] == "/login", address
            assert client.get("/login", headers=HTML).headers["location"] == "/", address
