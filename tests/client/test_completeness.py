"""The client is that of the API as it is: no operation, parameter or model is missing.

Where this fails, the API has something that the client has not. Add or change its method in the
module of its area in `triage/client` (a decorated signature) and run `make client` for the models.
"""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest

from tests.client.generation import BASE, MODELS, api_document, generated_models
from triage.client import TriageClient, models
from triage.client.operations import Operation, operations_of

DOCUMENT = api_document()
OPERATIONS = {
    (method.upper(), path.removeprefix(BASE)): operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
CLIENT = operations_of(TriageClient)


def test_every_operation_has_a_method_and_every_method_an_operation() -> None:
    assert sorted(CLIENT) == sorted(OPERATIONS)


def test_models_are_those_of_the_api() -> None:
    assert MODELS.read_text(encoding="utf-8") == generated_models(DOCUMENT), "run `make client`"


@pytest.mark.parametrize("key", sorted(OPERATIONS.keys() & CLIENT.keys()), ids=" ".join)
def test_method_has_the_operations_parameters_and_answer(key: tuple[str, str]) -> None:
    name, method = CLIENT[key]
    said = OPERATIONS[key]
    parameters = {
        one["name"]: bool(one.get("required"))
        for one in said.get("parameters", ())
        if one["in"] in ("path", "query")
    }
    is_form, body = body_of(said)
    required = {one for one, is_required in (parameters | body).items() if is_required}
    assert method.in_path | method.sent == (parameters | body).keys()
    assert method.is_form == is_form
    assert required_of(method) == required
    returned = get_type_hints(getattr(TriageClient, name))["return"]
    assert returned == answer_of(said)
    assert inspect.getdoc(getattr(TriageClient, name))


def required_of(method: Operation) -> set[str]:
    return {
        name
        for name, one in method.signature.parameters.items()
        if name != "self" and one.default is inspect.Parameter.empty
    }


def body_of(said: dict[str, Any]) -> tuple[bool, dict[str, bool]]:
    """Return whether the body is a form, and its fields with whether they are required."""
    content = said.get("requestBody", {}).get("content", {})
    for media_type, one in content.items():
        schema = one["schema"]
        options = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
        (schema,) = (resolved(each) for each in options)
        required = schema.get("required", ())
        fields = {name: name in required for name in schema.get("properties", {})}
        return media_type == "multipart/form-data", fields
    return False, {}


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def answer_of(said: dict[str, Any]) -> Any:
    """Return the type of the answer of success."""
    (success,) = (answer for status, answer in said["responses"].items() if status[0] == "2")
    content = success.get("content")
    if not content:
        return bytes if "file" in said["operationId"] else type(None)
    if "application/json" not in content:
        return bytes
    schema = content["application/json"]["schema"]
    if schema.get("type") == "array":
        return list[model_of(schema["items"])]  # type: ignore[misc]
    return model_of(schema)


def model_of(schema: dict[str, Any]) -> Any:
    name = schema["$ref"].rpartition("/")[2].rpartition("__")[2]
    return getattr(models, name.replace("-", ""))
