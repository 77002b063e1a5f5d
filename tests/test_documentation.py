"""What the documentation shows is what the project has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.results.mail_server import mail_server
from tests.results.outgoing import outgoing
from tests.results.test_email_delivery import team_at
from tests.store.rows import manifest
from tests.tools import PROJECT, ManualClock
from triage.core.expressions import VARIABLES
from triage.core.manifest import InputSpec, parse_manifest
from triage.core.priority_policy import PriorityPolicy, policy_from_toml
from triage.settings import load_settings
from triage.store.database import Database

_PAGES = sorted(
    [*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *PROJECT.glob("model_registry/*/*/*.md")]
)


def test_manifest_in_the_tutorial_is_the_shipped_one() -> None:
    shipped = (PROJECT / "model_registry/head-ct-hemorrhage/1.0.0/model.yaml").read_text()
    assert shipped in (PROJECT / "docs" / "ml-engineer.md").read_text()


def _examples_of_inputs() -> list[dict[str, Any]]:
    guide = (PROJECT / "docs" / "ml-engineer.md").read_text(encoding="utf-8")
    section = guide.partition("## Choosing inputs")[2].partition("\n## ")[0]
    return [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)]


def test_examples_of_choosing_inputs_are_valid_manifests() -> None:
    examples = _examples_of_inputs()
    assert {key for example in examples for key in example} == {"accepts", "inputs"}
    for example in examples:
        content = {key: value for key, value in manifest().items() if key != "accepts"}
        parse_manifest(content | example, source="docs/ml-engineer.md")


def test_guide_names_every_key_and_variable_of_choosing_inputs() -> None:
    guide = (PROJECT / "docs" / "ml-engineer.md").read_text(encoding="utf-8")
    keys = [f"`{key}`" for key in InputSpec.model_fields]
    variables = [
        f"| `{group}.{name}` | {variable.type} | {variable.means} |"
        for group, names in VARIABLES.items()
        for name, variable in names.items()
    ]
    assert [said for said in keys + variables if said not in guide] == []


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    files = [t for t in targets if not t.startswith(("http://", "https://", "mailto:"))]
    missing = [t for t in files if not (page.parent / t).exists()]
    assert missing == []


def _examples_of_settings() -> list[str]:
    guide = (PROJECT / "docs" / "administrator.md").read_text(encoding="utf-8")
    return re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)


@pytest.mark.parametrize("example", _examples_of_settings(), ids=lambda text: text.split("\n")[0])
def test_examples_of_settings_are_valid(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "triage.toml"
    config.write_text(example, encoding="utf-8")
    monkeypatch.setenv("TRIAGE_CONFIG", str(config))
    assert load_settings().model_fields_set


def test_guide_shows_how_to_set_up_each_kind_of_destination(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = set()
    for example in _examples_of_settings():
        config = tmp_path / "triage.toml"
        config.write_text(example, encoding="utf-8")
        monkeypatch.setenv("TRIAGE_CONFIG", str(config))
        shown |= {destination.kind for destination in load_settings().destinations}
    assert shown >= {"dicom", "stow", "folder", "webhook", "email"}


def test_template_of_the_guide_can_be_filled_in(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    guide = (PROJECT / "docs" / "administrator.md").read_text(encoding="utf-8")
    [template] = re.findall(r"```jinja\n(.*?)```", guide, re.DOTALL)
    file = tmp_path / "notice.txt"
    file.write_text(template, encoding="utf-8")
    with mail_server() as server:
        out = outgoing(sqlite_database, tmp_path, clock, team_at(server, template=file))
        out.deliver_all()
    [message] = server.messages
    assert message["Subject"] == "Routine: Pneumothorax"
    assert "No fracture of bone found" in message.get_content()


def test_example_of_a_priority_policy_is_valid() -> None:
    guide = (PROJECT / "docs" / "policy.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    policy = policy_from_toml(example)
    assert set(PriorityPolicy.model_fields) - {"name", "description"} <= set(
        re.findall(r"^\| `(?:\[\[)?(\w+)", guide, re.MULTILINE)
    )
    assert policy.locations_of("", "ed-3")[0].points == 30
