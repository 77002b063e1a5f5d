"""The example of docs/fhir.md is what the code writes."""

from __future__ import annotations

import json

from tests.results.fhir.notices import destination, result
from tests.tools import PROJECT
from triage.results.fhir.bundle import bundle_of

PAGE = PROJECT / "docs" / "fhir.md"


def documented() -> str:
    """The page, with its example written anew."""
    bundle = json.loads(bundle_of(result(), destination()).model_dump_json())
    before, _, rest = PAGE.read_text().partition("<!-- example -->\n")
    _, end, after = rest.partition("<!-- end of example -->")
    example = json.dumps(bundle, indent=1, ensure_ascii=False)
    return f"{before}<!-- example -->\n```json\n{example}\n```\n{end}{after}"


def test_the_example_is_what_the_code_writes() -> None:
    assert PAGE.read_text() == documented(), "python -m tests.results.fhir.test_documented_example"


if __name__ == "__main__":
    PAGE.write_text(documented())
