"""The client against a running server: what is asked, what comes back, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.tools import find_free_port
from tests.web.access import PASSWORD, add_account
from tests.web.hospital import Hospital, hemorrhage
from tests.web.serving import serving
from triage.client import (
    ConflictError,
    InvalidRequestError,
    NotAllowedError,
    NotFoundError,
    TriageClient,
    TriageClientError,
    UnavailableError,
    UnexpectedAnswerError,
    models,
)
from triage.core.permissions import Permission, Role
from triage.settings import LoginSettings, Settings, WebSettings
from triage.store.api_tokens import make_token
from triage.web.app import create_app

SMALL = {"days": 1, "warm_up_days": 0, "replications": 2}


@pytest.fixture
def triage(address: str) -> Iterator[TriageClient]:
    """A client of the running application."""
    with TriageClient(address) as client:
        yield client


def local_app(hospital: Hospital) -> FastAPI:
    """Return the application where accounts of Triage itself log in."""
    settings = Settings(
        data_directory=hospital.files.root.parent,
        web=WebSettings(login=LoginSettings(mode="local")),
    )
    return create_app(settings, hospital.database, hospital.files, hospital.clock)


def studies(hospital: Hospital, count: int) -> list[str]:
    hospital.register_model()
    uids = []
    for _ in range(count):
        uids.append(hospital.receive(*hospital.head_ct()))
        hospital.complete(uids[-1])
        hospital.clock.advance(60)
    return uids


def test_the_way_of_a_study(triage: TriageClient, hospital: Hospital) -> None:
    first, second = studies(hospital, 2)
    hospital.find(hospital.claim(), hemorrhage())
    assert [one.study_instance_uid for one in triage.worklist().entries] == [first, second]
    assert [one.is_flagged for one in triage.worklist(limit=1).entries] == [True]

    study = triage.study(first)
    assert study.priority == "stat"
    kept = triage.give_feedback(study.findings[0].finding_id, verdict="agree", who="Reader")
    assert (kept.who, kept.verdict, kept.present) == ("Reader", "agree", True)

    assert triage.mark_as_read(first) is None
    assert triage.study(first).read_at is not None
    triage.mark_as_unread(first)
    assert triage.study(first).read_at is None
    assert triage.status().studies_receiving == 0
    assert [one.name for one in triage.model_versions()] == ["head-ct-hemorrhage"]


def test_the_way_of_a_reader(triage: TriageClient, hospital: Hospital) -> None:
    first, second = studies(hospital, 2)
    hospital.finish(hospital.claim(), hemorrhage())
    assert triage.worklist(modalities=["MR"], flagged=True).entries == []
    assert triage.worklist(modalities=["CT", "MR"], statuses=["analysed"]).matching == 1
    assert [one.value for one in triage.worklist_choices().modalities] == ["CT"]
    assert triage.next_study(after=first).study_instance_uid == second

    place = triage.raise_priority(second, priority="stat", reason="the ward called", who="Ward")
    assert (place.priority, triage.explain_place(second).order_priority) == ("stat", "routine")
    assert triage.take_raise_back(second, reason="by mistake").priority == "routine"

    claimed = triage.claim_study(first)
    assert triage.claim(first) == claimed
    triage.release_claim(first)
    (finding,) = triage.answers(first).findings
    said = triage.answer(first, finding.finding_id, verdict="disagree", reason="an artefact")
    assert (said.verdict, said.reason) == ("disagree", "an artefact")
    triage.take_back_answer(first, finding.finding_id)
    missed = triage.report_missed_finding(first, code=triage.finding_codes()[0].code)
    triage.take_back_report(first, missed.report_id)
    assert triage.answers(first).missed == []

    (found,) = triage.search_studies(study_instance_uid=first).studies
    assert found.study_instance_uid == first
    assert triage.study_history(first).events


def test_views_are_kept(triage: TriageClient) -> None:
    only_flagged = models.WorklistFilter(modalities=["CT"], flagged=True)
    kept = triage.save_view("Flagged CT, at night", filter=only_flagged)
    assert kept.filter.flagged
    assert triage.views() == [kept]
    triage.delete_view("Flagged CT, at night")
    assert triage.views() == []


def test_a_policy_comes_back_as_it_can_be_sent(triage: TriageClient, hospital: Hospital) -> None:
    studies(hospital, 1)
    shipped = triage.policy().policy
    assert triage.check_policy(policy=shipped) == shipped
    preview = triage.preview_policy(policy=shipped, days=3)
    assert preview.until - preview.since == timedelta(days=3)
    with pytest.raises(InvalidRequestError) as wrong:
        triage.preview_policy(policy=shipped, days=0)
    assert wrong.value.field == "days"
    with pytest.raises(InvalidRequestError, match="most_points"):
        triage.put_policy(policy='most_points = "many"', reason="trial")
    assert triage.put_policy(policy='name = "Ours"', reason="trial", who="QA").policy.name == "Ours"
    assert triage.roll_back_policy(version=0, reason="worse", who="QA").policy == shipped
    assert [one.reason for one in triage.policy_history()] == ["worse", "trial"]


def test_a_token_opens_what_asks_for_a_log_in(hospital: Hospital) -> None:
    (uid,) = studies(hospital, 1)
    ada = add_account(hospital, "ada", Role.RADIOLOGIST)
    month = timedelta(days=30)
    with hospital.database.transaction() as session:
        made = make_token(
            session,
            ada,
            "reporting",
            [Permission.SEE_PATIENTS],
            lifetime=month,
            longest=month,
            now=hospital.clock(),
        )
    _, secret = made
    with serving(local_app(hospital)) as address:
        with TriageClient(address, token=secret) as triage:
            assert [one.study_instance_uid for one in triage.worklist().entries] == [uid]
            with pytest.raises(NotAllowedError, match="the token lacks that scope") as scope:
                triage.mark_as_read(uid)
            assert scope.value.status == 403
        for wrong, said in ((secret + "x", "not valid"), ("another", "Log in"), ("", "Log in")):
            with TriageClient(address, token=wrong) as stranger:
                with pytest.raises(NotAllowedError, match=said) as refused:
                    stranger.worklist()
                assert refused.value.status == 401


def test_an_administrator_looks_after_accounts_and_the_trail(hospital: Hospital) -> None:
    boss = add_account(hospital, "boss", Role.ADMINISTRATOR, Role.AUDITOR)
    month = timedelta(days=30)
    scopes = [Permission.MANAGE_USERS, Permission.READ_AUDIT]
    with hospital.database.transaction() as session:
        _, secret = make_token(
            session, boss, "staff", scopes, lifetime=month, longest=month, now=hospital.clock()
        )
    app = local_app(hospital)
    with serving(app) as address, TriageClient(address, token=secret) as triage:
        eve = triage.add_user(name="eve", password=PASSWORD, roles=["radiologist"])
        assert triage.set_roles(eve.id, roles=["ml-engineer"]).roles == ["ml-engineer"]
        assert triage.disable_user(eve.id).is_disabled
        assert not triage.enable_user(eve.id).is_disabled
        assert [one.name for one in triage.users()] == ["boss", "eve"]
        with pytest.raises(InvalidRequestError) as short:
            triage.set_password(eve.id, password="short")
        assert short.value.field == "password"
        with pytest.raises(InvalidRequestError, match="should be 'radiologist'") as wrong:
            triage.set_roles(eve.id, roles=["surgeon"])  # type: ignore[list-item]
        assert wrong.value.field == "roles"

        app.state.context.trail.flush()
        by_program = list(triage.every_audit_entry(who="boss (staff)"))
        assert by_program == triage.audit(who="boss (staff)").entries
        lines = triage.export_audit(who="boss (staff)", format="ndjson").decode().splitlines()
        assert len(lines) >= len(by_program) > 0

        (token,) = triage.all_tokens()
        triage.revoke_anybodys_token(token.id)
        with pytest.raises(NotAllowedError):
            triage.users()


def test_pages_are_put_together(
    triage: TriageClient,
    hospital: Hospital,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uids = studies(hospital, 3)
    whole = triage.worklist
    monkeypatch.setattr(triage, "worklist", lambda *, offset: whole(limit=2, offset=offset))
    assert [one.study_instance_uid for one in triage.every_worklist_entry()] == uids
    assert list(triage.every_delivery(state="all")) == []


def test_refusals_are_errors_with_detail_and_field(triage: TriageClient) -> None:
    with pytest.raises(NotFoundError, match="no such study") as missing:
        triage.study("1.2.3")
    assert missing.value.status == 404
    with pytest.raises(NotFoundError) as unknown:
        triage.retire("head-ct-hemorrhage", "1.0.0", reason="worse", who="Engineer")
    assert unknown.value.field
    with pytest.raises(InvalidRequestError, match="did you mean readers") as wrong:
        triage.simulate(scenario={"reders": 2})
    assert wrong.value.field == "reders"
    with pytest.raises(InvalidRequestError, match="say which"):
        triage.study("")


def test_a_conflict_is_one(triage: TriageClient, hospital: Hospital) -> None:
    hospital.register_model()
    with pytest.raises(ConflictError):
        triage.roll_back("head-ct-hemorrhage", reason="worse", who="Engineer")


def test_a_file_is_sent_from_disk_or_memory(triage: TriageClient, tmp_path: Path) -> None:
    package = tmp_path / "package.zip"
    package.write_bytes(b"PK\x05\x06" + bytes(18))
    for file in (package, ("package.zip", package.read_bytes())):
        job = triage.check_package(package=file, who="Engineer")
        assert triage.job(job.job_id).kind == "check"
        assert [one.name for one in triage.job(job.job_id).files] == []
    with pytest.raises(InvalidRequestError) as wrong:
        triage.check_package(package=("package.doc", b"?"))
    assert wrong.value.field == "package"
    assert len(triage.jobs()) == 2
    assert triage.cancel_job(triage.jobs()[0].job_id, who="Engineer").state == "cancelled"


def test_a_scenario_comes_back_as_it_can_be_sent(triage: TriageClient) -> None:
    once = triage.simulate(scenario={**SMALL, "readers": 2}, seed=3)
    assert triage.simulate(scenario=once.scenario, seed=3) == once


class _Busy(BaseHTTPRequestHandler):
    """Answers with what is left in `answers`: status, headers and body."""

    answers: list[tuple[int, dict[str, str], bytes]]
    asked: list[tuple[str, str]]
    sent: list[str]

    def do_GET(self) -> None:
        status, headers, body = self.answers.pop(0)
        self.asked.append((self.command, self.path))
        self.sent.append(self.headers.get("authorization", ""))
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        del format, args


@pytest.fixture
def busy() -> Iterator[tuple[str, type[_Busy]]]:
    """A server that answers as it is told, for what ours does only when something is away."""
    handler = type("Handler", (_Busy,), {"answers": [], "asked": [], "sent": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


AWAY = (503, {}, b'{"detail": "The database does not answer."}')


def test_what_is_away_is_asked_again(busy: tuple[str, type[_Busy]]) -> None:
    url, server = busy
    pauses: list[float] = []
    server.answers = [AWAY, (503, {"Retry-After": "7"}, b""), (200, {}, b"[]")]
    with TriageClient(url, token="secret", sleep=pauses.append) as client:
        assert client.destinations() == []
    assert pauses == [0.5, 7.0]
    assert server.sent == ["Bearer secret"] * 3


def test_after_the_last_attempt_it_is_said(busy: tuple[str, type[_Busy]]) -> None:
    url, server = busy
    server.answers = [AWAY, AWAY]
    with (
        TriageClient(url, retries=1, sleep=lambda _: None) as client,
        pytest.raises(UnavailableError, match="The database does not answer") as away,
    ):
        client.resend_all("archive")
    assert away.value.status == 503
    assert server.asked == [("POST", "/api/v1/destinations/archive/resend")] * 2


def test_a_change_without_an_answer_is_not_made_twice() -> None:
    pauses: list[float] = []
    url = f"http://127.0.0.1:{find_free_port()}"
    with TriageClient(url, retries=2, sleep=pauses.append) as client:
        with pytest.raises(UnavailableError, match="no answer"):
            client.resend_all("archive")
        assert pauses == []
        with pytest.raises(UnavailableError, match="no answer"):
            client.status()
        assert pauses == [0.5, 1.0]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {}, b"<html>"), "does not fit this client"),
        ((200, {}, b'{"entries": []}'), "does not fit this client: generated_at"),
        ((418, {}, b"short and stout"), "answered 418"),
    ],
)
def test_what_is_no_answer_of_this_api_is_said(
    busy: tuple[str, type[_Busy]], answer: tuple[int, dict[str, str], bytes], said: str
) -> None:
    url, server = busy
    server.answers = [answer]
    with TriageClient(url) as client, pytest.raises(UnexpectedAnswerError, match=said) as wrong:
        client.worklist()
    assert isinstance(wrong.value, TriageClientError)
    assert "html" not in str(wrong.value)


def test_a_name_is_one_part_of_the_path(busy: tuple[str, type[_Busy]]) -> None:
    url, server = busy
    server.answers = [(404, {}, b"{}")]
    with TriageClient(url) as client, pytest.raises(NotFoundError):
        client.model("../status?x=1")
    assert server.asked == [("GET", "/api/v1/models/..%2Fstatus%3Fx%3D1")]
