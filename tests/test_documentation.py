"""What the documentation shows is what the project has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tools import PROJECT

_PAGES = sorted(
    [*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *PROJECT.glob("model_registry/*/*/*.md")]
)


def test_manifest_in_the_tutorial_is_the_shipped_one() -> None:
    shipped = (PROJECT / "model_registry/head-ct-hemorrhage/1.0.0/model.yaml").read_text()
    assert shipped in (PROJECT / "docs" / "ml-engineer.md").read_text()


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    files = [t for t in targets if not t.startswith(("http://", "https://", "mailto:"))]
    missing = [t for t in files if not (page.parent / t).exists()]
    assert missing == []
