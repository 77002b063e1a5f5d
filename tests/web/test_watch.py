"""The watch over a model, and feedback, as pages and over the API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from xml.etree import ElementTree

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from tests.store.lived import add_runs, add_watched_model, every
from tests.web.hospital import Hospital, hemorrhage
from triage.core.runs import RunState
from triage.settings import Settings, WebSettings
from triage.store.tables import FeedbackRow, FindingRow
from triage.store.watch_alerts import watch_round
from triage.web.app import create_app
from triage.web.charts import Band, Bars, Line, chart

HTML = {"Accept": "text/html"}
OURS = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
DAY = timedelta(days=1)


@pytest.fixture
def drifted(hospital: Hospital) -> None:
    """A model with 130 runs like the first ones, and 130 on another scanner, some failed."""
    now = hospital.clock()
    with hospital.database.transaction() as session:
        model = add_watched_model(session, now - 20 * DAY)
        add_runs(session, model, every(now - 6 * DAY, 130, timedelta(hours=1)))
        add_runs(
            session,
            model,
            every(now, 130, timedelta(minutes=30)),
            seed=2,
            scanner="<b>B 256</b>",
            changes=lambda n: {"state": RunState.FAILED} if n % 5 == 0 else {},
        )
    settings = Settings(watch={"reference_runs": 120}).watch  # type: ignore[arg-type]
    watch_round(hospital.database, settings, hospital.clock, holder="tests")


@pytest.mark.usefixtures("drifted")
def test_the_watch_shows_plots_tables_and_alerts(client: TestClient) -> None:
    answer = client.get("/models/head-ct/watch", headers=HTML)
    page = answer.text
    assert answer.status_code == 200
    assert "234 completed, 0 refused, 26 failed." in page
    for title in ("Runs per day", "Positive rate", "Distribution of scores", "Slice thickness"):
        assert title in page
    assert "failed over 24 h" in page
    assert "&lt;b&gt;B 256&lt;/b&gt;" in page
    assert "<b>B 256" not in page
    assert "unsafe-inline" not in answer.headers["content-security-policy"]
    assert "No run was over" in client.get("/models/head-ct/watch?stage=shadow", headers=HTML).text


@pytest.mark.usefixtures("drifted")
def test_every_plot_is_valid_and_has_a_text_alternative(client: TestClient) -> None:
    page = client.get("/models/head-ct/watch", headers=HTML).text
    plots = re.findall(r'<svg viewBox="0 0 \d+ \d+" role="img".*?</svg>', page, re.DOTALL)
    assert len(plots) >= 8
    for plot in plots:
        picture = ElementTree.fromstring(plot)
        labels = picture.attrib["aria-labelledby"].split()
        assert all(f'id="{label}"' in page for label in labels)
        assert picture.findtext("desc")
        assert "nan" not in plot
        assert " style=" not in plot


@pytest.mark.usefixtures("drifted")
def test_alerts_are_on_the_status_page_and_in_the_api(client: TestClient) -> None:
    assert "Models that need a look" in client.get("/status", headers=HTML).text
    alerts = client.get("/api/v1/status").json()["alerts"]
    assert "failures" in {alert["rule"] for alert in alerts}


def test_a_model_that_never_ran_is_watched_too(client: TestClient, hospital: Hospital) -> None:
    hospital.register_model()
    assert "No run was over" in client.get("/models/head-ct-hemorrhage/watch").text
    for wrong in ("/models/nothing/watch", "/models/head-ct-hemorrhage/watch?version=9.9.9"):
        assert client.get(wrong).status_code == 404
    assert client.get("/models/head-ct-hemorrhage/watch?days=0").status_code == 422


def test_a_plot_draws_gaps_as_gaps_and_single_points_as_dots() -> None:
    drawn = chart(
        "Plot",
        [
            Bars("bars", "good", [0, 2, 0]),
            Line("line", "accent", [1.0, None, 3.0]),
            Band("band", "dim", [0.5, None, None], [1.5, None, None]),
        ],
        y_title="runs",
        x_title="day",
        places=3,
        x_labels={0: "a"},
        summary="said",
    )
    bars, line, band = drawn.shapes
    assert bars.path.count("M") == 1
    assert line.path.count("M") == 2
    assert line.path.count("h0") == 2
    assert band.path.endswith("z")
    assert [tick.text for tick in drawn.y_ticks] == ["0", "1", "2", "3"]
    empty = chart(
        "Plot", [], y_title="", x_title="", places=0, x_labels={}, summary="", percent=True
    )
    assert empty.shapes == ()


def finding_of(hospital: Hospital) -> tuple[str, int]:
    """Return a study with a flagged finding, and the finding's number."""
    hospital.register_model()
    uid = hospital.receive(*hospital.head_ct(slices=1))
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage())
    with hospital.database.reading() as session:
        return uid, session.scalars(select(FindingRow.id)).one()


def feedback(hospital: Hospital) -> list[tuple[str, str, str]]:
    with hospital.database.reading() as session:
        rows = session.scalars(select(FeedbackRow).order_by(FeedbackRow.id)).all()
        return [(row.who, row.verdict, row.reason) for row in rows]


def test_a_click_on_the_study_page_is_kept_and_shown(
    client: TestClient, hospital: Hospital
) -> None:
    uid, finding = finding_of(hospital)
    page = f"http://127.0.0.1/studies/{uid}"
    answer = client.post(
        f"/findings/{finding}/feedback",
        data={"verdict": "disagree", "reason": "an artefact"},
        headers={**OURS, "Referer": page},
    )
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/studies/{uid}#finding-{finding}"
    assert feedback(hospital) == [("reader at testclient", "disagree", "an artefact")]
    shown = client.get(f"/studies/{uid}", headers=HTML).text
    assert 'value="disagree" aria-pressed="true"' in shown
    assert 'value="agree" aria-pressed="false"' in shown
    assert 'value="an artefact"' in shown


def test_another_sites_page_cannot_give_feedback(client: TestClient, hospital: Hospital) -> None:
    _, finding = finding_of(hospital)
    evil = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
    for address in (f"/findings/{finding}/feedback", f"/api/v1/findings/{finding}/feedback"):
        assert client.post(address, data={"verdict": "agree"}, headers=evil).status_code == 403
        assert client.post(address, data={"verdict": "agree"}).status_code == 403
    assert feedback(hospital) == []


def test_programs_give_feedback_in_a_persons_name(client: TestClient, hospital: Hospital) -> None:
    _, finding = finding_of(hospital)
    address = f"/api/v1/findings/{finding}/feedback"
    said = {"verdict": "agree", "who": "dr-reader"}
    answer = client.post(address, json=said, headers={"X-Triage-Request": "ris"})
    assert answer.status_code == 200
    assert answer.json()["who"] == "dr-reader"
    assert answer.json()["present"] is True
    assert client.post(address, json={"verdict": "perhaps"}, headers=OURS).status_code == 422
    assert client.post("/api/v1/findings/99/feedback", json=said, headers=OURS).status_code == 404


@pytest.fixture
def behind_proxy(hospital: Hospital) -> Iterator[TestClient]:
    """A client of pages whose proxy names the person."""
    settings = Settings(web=WebSettings(user_header="X-Remote-User"))
    app = create_app(settings, hospital.database, hospital.files, hospital.clock)
    with TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) as client:
        yield client


def test_the_proxys_name_counts_and_nobody_speaks_for_another(
    behind_proxy: TestClient, hospital: Hospital
) -> None:
    _, finding = finding_of(hospital)
    address = f"/api/v1/findings/{finding}/feedback"
    said = {"verdict": "agree", "who": "somebody else"}
    named = {**OURS, "X-Remote-User": "ada"}
    assert behind_proxy.post(address, json=said, headers=OURS).status_code == 401
    assert behind_proxy.post(address, json=said, headers=named).json()["who"] == "ada"
    assert feedback(hospital) == [("ada", "agree", "")]
