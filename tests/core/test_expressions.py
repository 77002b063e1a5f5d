"""Conditions in CEL: what is refused at registration, and that evaluation never raises."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_routing import series
from triage.core.characteristics import characteristics_of
from triage.core.expressions import (
    LONGEST_EXPRESSION,
    VARIABLES,
    UndecidedError,
    check_expression,
    holds,
    values_of,
)
from triage.core.manifest import ManifestError, parse_manifest
from triage.core.studies import Study

VALUES = values_of(
    characteristics_of(series(SeriesDescription="Head 5 mm")), Study("1", (series(),))
)


@pytest.mark.parametrize(
    ("expression", "outcome"),
    [
        ("series.images == 20", True),
        ("series.slice_thickness_mm <= 5.0 && series.orientation == 'axial'", True),
        ("series.description.matches('(?i)^HEAD')", True),
        ("'HEAD' in series.body_parts", True),
        ("series.body_parts.exists(b, b.startsWith('CH'))", False),
        ("has(series.contrast) && series.contrast", False),
        ("series.images > 5 ? study.series == 1 : false", True),
        ("series.modality in ['CT', 'MR'] || series.contrast", True),
        ("size(series.view_positions) == 0 && -series.images < 0", True),
    ],
)
def test_expressions_over_what_is_stated(expression: str, outcome: bool) -> None:
    assert holds(check_expression(expression), VALUES) is outcome


@pytest.mark.parametrize(
    ("expression", "because"),
    [
        ("series.contrast", "contrast is not stated"),
        ("patient.age_years > 1.0", "age_years is not stated"),
        ("series.images / 0 > 1", "modulus or divide by zero"),
        ("series.view_positions[3] == 'PA'", "invalid_argument"),
    ],
)
def test_what_cannot_be_evaluated_is_said(expression: str, because: str) -> None:
    with pytest.raises(UndecidedError, match=because):
        holds(check_expression(expression), VALUES)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("series.images >", r"no CEL expression at line 1, column 15:\n  series.images >\n {16}\^"),
        ("series.thickness < 3.0", "series has no thickness; it has modality, .* column 8"),
        ("series.slice_thickness_mm < 3", "a double and a int .*write whole numbers with a point"),
        ("series.images", "must be true or false, and is of type int"),
        ("images > 3", "images is unknown; there are series, study, patient"),
        ("series.description > 3", "a string and a int do not go together"),
        ("series.description.matches('(')", "no regular expression"),
        ("series.description.matches(series.kernel)", "a pattern that is written out"),
        ("series.body_parts.all(a, series.body_parts.all(b, a == b))", "within another"),
        ("duration('1s') == duration('1s')", "there is no function duration"),
        ("series.images == null", "null cannot be used"),
        ("3 in series.body_parts", r"a int cannot be in a list\(string\)"),
        ("(" * 40 + "true" + ")" * 40, "nested deeper"),
        ("true" + " " * LONGEST_EXPRESSION, "at most 500"),
    ],
)
def test_a_mistake_is_shown_with_its_place(expression: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        check_expression(expression)


def test_a_mistake_in_a_manifest_names_the_key() -> None:
    from tests.store.rows import manifest

    content = manifest(when="series.pictures > 3")
    with pytest.raises(ManifestError, match=r"model.yaml: accepts.when: series has no pictures"):
        parse_manifest(content, source="model.yaml")


def test_the_recursion_limit_of_the_process_stays() -> None:
    before = sys.getrecursionlimit()
    check_expression("series.images > 3")
    assert sys.getrecursionlimit() == before


NAMES = [f"{group}.{name}" for group, names in VARIABLES.items() for name in names]
LITERALS = ["3", "2.5", "'CT'", "true", "[1.0]", "['a']"]


@pytest.mark.parametrize(
    "expression",
    [
        "series.contrast && series.contrast",
        "series.images > 3 && (series.contrast || !series.contrast)",
        "series.contrast ? true : false",
    ],
)
def test_values_that_are_not_stated_are_named_however_they_are_joined(expression: str) -> None:
    check_expression(expression)
    assert VALUES["series"]["contrast"] is None
    with pytest.raises(UndecidedError, match=r"^contrast is not stated$"):
        holds(expression, VALUES)


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(NAMES),
    st.sampled_from(["==", "!=", "<", ">=", "in", "&&", "||", "+", "-"]),
    st.sampled_from(NAMES + LITERALS),
)
def test_what_passes_the_check_is_decided_or_lacks_a_value(
    left: str, operator: str, right: str
) -> None:
    expression = f"{left} {operator} {right}"
    try:
        check_expression(expression)
    except ValueError:
        return
    stated: Any = {**VALUES, "patient": {"age_years": 40.0, "sex": "F"}}
    said = ""
    try:
        holds(expression, stated)
    except UndecidedError as undecided:
        said = str(undecided)
    assert not said or "is not stated" in said
