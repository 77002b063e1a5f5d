"""Conditions in the Common Expression Language, checked when a model is registered.

`https://github.com/google/cel-spec` defines the language: it has no loops, assigns nothing and
always ends. It is evaluated by the library `celpy`, whose regular expressions are RE2's, so that no
pattern takes more than linear time. What an expression may cost is bounded before: its length, its
nesting, and how long the lists and texts are that it sees.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import celpy
from celpy import celtypes
from celpy.celparser import CELParseError
from celpy.evaluation import CELEvalError
from pydantic import AfterValidator

from triage.core.characteristics import Characteristics
from triage.core.expression_types import TypeMistake, type_of
from triage.core.studies import Study

LONGEST_EXPRESSION = 500
_LONGEST_TEXT = 500
_LONGEST_LIST = 64
_DEEPEST_PARENTHESES = 16
_NAME = re.compile(r"\b(series|study|patient)\.(\w+)")


@dataclass(frozen=True, slots=True)
class Variable:
    """A name that expressions know: its CEL type, and what it says."""

    type: str
    means: str


VARIABLES: dict[str, dict[str, Variable]] = {
    "series": {
        "modality": Variable("string", "Modality (0008,0060)"),
        "description": Variable("string", "Series Description"),
        "protocol": Variable("string", "Protocol Name"),
        "body_parts": Variable("list(string)", "Body Part Examined, in upper case"),
        "image_types": Variable("list(string)", "all values of Image Type, in upper case"),
        "images": Variable("int", "images, each frame counted"),
        "orientation": Variable("string", "axial, coronal, sagittal or oblique"),
        "slice_thickness_mm": Variable("double", "greatest Slice Thickness"),
        "slice_spacing_mm": Variable("double", "greatest distance between neighbouring slices"),
        "pixel_spacing_mm": Variable("double", "greatest Pixel Spacing"),
        "contrast": Variable("bool", "whether contrast agent was given, by agent or description"),
        "kernel": Variable("string", "Convolution Kernel"),
        "kernel_kind": Variable("string", "soft, or bone for whatever is sharp"),
        "lateralities": Variable("list(string)", "Image, Frame or series Laterality"),
        "view_positions": Variable("list(string)", "View Position, in upper case"),
        "manufacturer": Variable("string", "Manufacturer"),
        "model_name": Variable("string", "Manufacturer's Model Name"),
        "sequence_name": Variable("string", "Sequence Name or Pulse Sequence Name"),
        "b_values": Variable("list(double)", "b-values in s/mm²"),
        "echo_time_ms": Variable("double", "Echo Time"),
        "repetition_time_ms": Variable("double", "Repetition Time"),
        "rows": Variable("int", "Rows"),
        "columns": Variable("int", "Columns"),
    },
    "study": {
        "description": Variable("string", "Study Description"),
        "modalities": Variable("list(string)", "modalities of all series"),
        "series": Variable("int", "how many series there are"),
    },
    "patient": {
        "age_years": Variable("double", "age at the study"),
        "sex": Variable("string", "Patient's Sex: F, M or O"),
    },
}
"""What expressions know. A text that is not stated is "", a list is empty, and any other is absent:
`has(series.contrast)` asks for it."""

Values = Mapping[str, Mapping[str, Any]]


class UndecidedError(Exception):
    """An expression cannot be evaluated for this series; the message says why."""


def check_expression(text: str) -> str:
    """Return `text` if it is a condition over VARIABLES.

    Raises:
        ValueError: it is too long, no CEL, or its types are wrong; the message shows the place.
    """
    if len(text) > LONGEST_EXPRESSION:
        raise ValueError(f"has {len(text)} characters; at most {LONGEST_EXPRESSION} are allowed")
    if _depth(text) > _DEEPEST_PARENTHESES:
        raise ValueError(f"is nested deeper than {_DEEPEST_PARENTHESES} parentheses; simplify it")
    declared = {
        group: {name: variable.type for name, variable in names.items()}
        for group, names in VARIABLES.items()
    }
    try:
        tree = _environment().compile(text)
        result = type_of(tree, declared)
    except CELParseError as error:
        line, column = error.line or 1, error.column or len(text)
        raise ValueError(f"is no CEL expression{_place(text, line, column)}") from None
    except RecursionError:
        raise ValueError("is nested too deep; simplify it") from None
    except TypeMistake as mistake:
        raise ValueError(f"{mistake}{_place(text, mistake.line, mistake.column)}") from None
    if result != "bool":
        raise ValueError(f"must be true or false, and is of type {result}")
    return text


Expression = Annotated[str, AfterValidator(check_expression)]
"""The text of a condition that has been checked."""


def holds(expression: str, values: Values) -> bool:
    """Return whether a checked expression is true of `values`.

    Raises:
        UndecidedError: it speaks of what is not stated, or divides by zero.
    """
    try:
        result = _program(expression).evaluate(_as_cel(values))
    except CELEvalError as error:
        raise UndecidedError(_in_words(error, expression, values)) from None
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise UndecidedError(f"it cannot be evaluated: {type(error).__name__}") from None
    return bool(result)


def values_of(series: Characteristics, study: Study) -> Values:
    """Return what expressions see of one series; what is not stated is left out."""
    stated: dict[str, Any] = {
        "modality": series.modality,
        "description": series.description,
        "protocol": series.protocol,
        "body_parts": series.body_parts,
        "image_types": series.image_types,
        "images": series.images,
        "orientation": series.orientations[0] if len(series.orientations) == 1 else "",
        "slice_thickness_mm": max(series.slice_thickness_mm, default=None),
        "slice_spacing_mm": series.slice_spacing_mm,
        "pixel_spacing_mm": max(series.pixel_spacing_mm, default=None),
        "contrast": series.contrast,
        "kernel": series.kernel,
        "kernel_kind": series.kernel_kind,
        "lateralities": series.lateralities,
        "view_positions": series.view_positions,
        "manufacturer": series.manufacturer,
        "model_name": series.model_name,
        "sequence_name": series.sequence_name,
        "b_values": series.b_values,
        "echo_time_ms": series.echo_time_ms,
        "repetition_time_ms": series.repetition_time_ms,
        "rows": series.rows,
        "columns": series.columns,
    }
    of_study = {
        "description": series.study_description,
        "modalities": tuple(dict.fromkeys(s.modality for s in study.series)),
        "series": len(study.series),
    }
    of_patient = {"age_years": series.patient.age_years, "sex": series.patient.sex}
    return {"series": stated, "study": of_study, "patient": of_patient}


def _as_cel(values: Values) -> Any:
    return {
        group: celtypes.MapType(
            {
                celtypes.StringType(name): _typed(VARIABLES[group][name].type, value)
                for name, value in names.items()
                if value is not None
            }
        )
        for group, names in values.items()
    }


def _typed(kind: str, value: Any) -> Any:
    if kind.startswith("list("):
        return celtypes.ListType([_typed(kind[5:-1], v) for v in value[:_LONGEST_LIST]])
    if kind == "string":
        return celtypes.StringType(str(value)[:_LONGEST_TEXT])
    types = {"int": celtypes.IntType, "double": celtypes.DoubleType, "bool": celtypes.BoolType}
    return types[kind](value)


@lru_cache(maxsize=256)
def _program(expression: str) -> Any:
    environment = _environment()
    return environment.program(environment.compile(expression))


def _environment() -> celpy.Environment:
    limit = sys.getrecursionlimit()
    try:
        return celpy.Environment()
    finally:
        sys.setrecursionlimit(limit)  # it raises it for the whole process


def _in_words(error: CELEvalError, expression: str, values: Values) -> str:
    said = str(error.args[0]) if error.args else "it cannot be evaluated"
    _, is_absent, name = said.partition("no such member in mapping: ")
    if is_absent:
        return f"{name.strip(chr(39))} is not stated"
    # Where two parts lack a value, the library says that it cannot join two errors.
    for group, name in _NAME.findall(expression):
        if values.get(group, {}).get(name) is None:
            return f"{name} is not stated"
    return said[:100]


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _place(text: str, line: int, column: int) -> str:
    lines = text.splitlines() or [""]
    shown = lines[min(line, len(lines)) - 1]
    return f" at line {line}, column {column}:\n  {shown}\n  {' ' * (column - 1)}^"
