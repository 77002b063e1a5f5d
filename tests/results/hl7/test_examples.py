"""docs/hl7.md shows what is really sent and answered, and `triage hl7 preview` prints it."""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.hl7.messages import orm
from tests.results.hl7.examples import PAGE, examples, names_in, with_examples
from tests.results.hl7.samples import RESULT, destination
from tests.store.rows import received
from tests.store.test_runs import finish, held, queue_runs
from tests.tools import ManualClock
from triage.cli import main
from triage.core.priority import Priority
from triage.receiver.hl7 import Hl7Intake
from triage.results.hl7 import message_of
from triage.settings import Settings, load_settings
from triage.store.database import Database
from triage.store.prioritising import raise_ai_priority
from triage.store.studies import record_instance


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server in UTC, as the page has it."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("utc")
def test_the_page_shows_each_message_as_the_code_makes_it() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert names_in(page) == set(examples())
    assert page == with_examples(page), "run: TZ=UTC python -m tests.results.hl7.examples"


def test_the_settings_of_the_page_are_valid(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert found
    for text in found:
        load_settings(**tomllib.loads(text))


def test_the_template_of_the_page_can_be_filled_in(tmp_path: Path) -> None:
    [template] = re.findall(r"```jinja\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "oru.j2").write_text(template, encoding="utf-8")
    made = message_of(RESULT, destination(templates=tmp_path)).segments
    assert [one[:3] for one in made] == ["MSH", "PID", "PV1", "OBR", "OBX", "OBX", "NTE"]


def test_preview_prints_what_would_be_sent_and_names_the_field_of_a_bad_template(
    sqlite_database: Database,
    clock: ManualClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue_runs(sqlite_database, clock, "ROUTINE")
    finish(sqlite_database, clock, run := held(sqlite_database, clock))
    with sqlite_database.transaction() as session:
        raise_ai_priority(session, run.study_id, Priority.STAT, "hemorrhage", at=clock())
    config = tmp_path / "triage.toml"
    config.write_text(
        f'[database]\nurl = "{sqlite_database.url}"\n'
        '[[destinations]]\nname = "ris"\nkind = "hl7"\nhost = "ris"\nport = 2575\n'
        f'templates = "{tmp_path}"\n'
    )
    monkeypatch.setenv("TRIAGE_CONFIG", str(config))
    runner = CliRunner()
    shown = runner.invoke(main, ["hl7", "preview", "1.2.0"])
    assert shown.exit_code == 0, shown.output
    assert "# result to ris\nMSH|" in shown.output
    assert "|ORM^O01^ORM_O01|" in shown.output
    assert "|52101004^Present^SCT|" in shown.output
    (tmp_path / "oru.j2").write_text("OBR|1|{{ study.acession_number }}\n")
    failed = runner.invoke(main, ["hl7", "preview", "1.2.0"])
    assert failed.exit_code == 1
    assert "oru.j2, line 1 (OBR-2)" in failed.output
    nothing = runner.invoke(main, ["hl7", "preview", "1.2.99", "--destination", "ris"])
    assert "nothing would be sent of 1.2.99" in nothing.output
    unknown = runner.invoke(main, ["hl7", "preview", "1.2.0", "--destination", "pacs"])
    assert "no destination named 'pacs'" in unknown.output


def test_what_orders_told_is_in_what_is_sent(sqlite_database: Database, clock: ManualClock) -> None:
    from triage.store.notices import previewed_notices

    intake = Hl7Intake(Settings(), sqlite_database, clock)
    intake.take(orm("S"), "127.0.0.1")
    with sqlite_database.transaction() as session:
        study = record_instance(session, received(clock(), accession_number="A1")).study_id
        raise_ai_priority(session, study, Priority.STAT, "hemorrhage", at=clock())
    with sqlite_database.reading() as session:
        assert previewed_notices(session, "1.2.3", "ris") == []  # STAT already: nothing changed
    with sqlite_database.transaction() as session:
        study = record_instance(
            session, received(clock(), study="1.2.4", accession_number="A1")
        ).study_id
    intake.take(orm("R", control_id="2", at="20260301120100"), "127.0.0.1")
    with sqlite_database.transaction() as session:
        raise_ai_priority(session, study, Priority.STAT, "hemorrhage", at=clock())
    with sqlite_database.reading() as session:
        [notice] = previewed_notices(session, "1.2.4", "ris")
    segments = message_of(notice, destination()).segments
    assert "PV1|1|E|ED-3-B" in segments
    assert any(one.startswith("ORC|XO|PL1|FI1||||^^^^^S|") for one in segments)
    assert any("|CTHEAD^CT head^LOCAL|" in one for one in segments)
