"""What the documentation shows is what the project has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.store.rows import manifest
from tests.tools import PROJECT
from triage.core.expressions import VARIABLES
from triage.core.manifest import InputSpec, parse_manifest

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
