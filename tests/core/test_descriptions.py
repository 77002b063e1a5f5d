"""Series Descriptions of results, as a site words them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.core.descriptions import DescriptionError, check_template, described

texts = st.text(st.characters(codec="ascii", exclude_characters="\\{}"), max_size=80)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("AI {findings}", r"\{findings\} is unknown; known are \{finding\}, \{model\}"),
        ("AI {}", r"\{\} is unknown"),
        ("AI {finding", "a brace is not closed"),
        ("AI }", "a brace is not closed or not opened"),
        ("AI {finding:>9}", "takes no format"),
        ("AI {finding!r}", "takes no format"),
        ("AI {finding.upper}", r"\{finding.upper\} is unknown"),
        ("  ", "it is empty"),
        ("AI\\{finding}", "neither backslashes"),
        ("AI\n{finding}", "neither backslashes nor line ends"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_refused(template: str, message: str) -> None:
    with pytest.raises(DescriptionError, match=message):
        check_template(template)


@given(texts, texts, texts)
def test_no_description_is_longer_than_its_vr(finding: str, model: str, version: str) -> None:
    template = check_template("{kind} by {model} {version}: {finding} [{model}]")
    text = described(template, finding=finding, model=model, version=version, kind="seg")
    assert len(text) <= 64


def test_a_finding_gives_way_before_the_model_does() -> None:
    text = described(
        "AI: {finding} ({model} {version})",
        finding="A finding of many words that nobody would say",
        model="a-model-with-a-long-name",
        version="1.0.0",
        kind="sr",
    )
    assert text.endswith("(a-model-with-a-long-name 1.0.0)")
    assert text.startswith("AI: A finding of many")
