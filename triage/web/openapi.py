"""What the OpenAPI document says of refusals, which all operations have in common."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from triage.web.refusals import Refusal

_SCHEMA = "#/components/schemas/Refusal"
_EVERYWHERE = {
    "401": "Nobody is logged in.",
    "403": "They may not do this, or another site's page asks for it.",
    "503": "The database does not answer; nothing was done.",
}
_WITH_PATH = {"404": "There is no such thing."}
_WITH_FIELDS = {"422": "A field is missing or wrong; `field` says which."}
_WITH_BODY = {"400": "The body cannot be read."}
_FASTAPI_S_OWN = ("HTTPValidationError", "ValidationError")


def describe_refusals(app: FastAPI) -> None:
    """Let the document of `app` say for each operation how it may be refused, as `Refusal`.

    What an operation says itself stays. FastAPI's own answer to wrong fields is taken out, because
    ours looks as every other refusal.
    """
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _add_refusals(describe())
        return describe()

    app.openapi = openapi  # type: ignore[method-assign]


def _add_refusals(document: dict[str, Any]) -> None:
    for item in document["paths"].values():
        for operation in item.values():
            for status, description in _refusals_of(operation).items():
                said = operation["responses"].setdefault(status, {"description": description})
                if status == "422" and "HTTPValidationError" in str(said):
                    said = operation["responses"][status] = {"description": description}
                said.setdefault("content", {"application/json": {"schema": {"$ref": _SCHEMA}}})
            operation["responses"] = dict(sorted(operation["responses"].items()))
    schemas = document["components"]["schemas"]
    for name in _FASTAPI_S_OWN:
        schemas.pop(name, None)
    schemas["Refusal"] = Refusal.model_json_schema()


def _refusals_of(operation: dict[str, Any]) -> dict[str, str]:
    refusals = dict(_EVERYWHERE)
    parameters = operation.get("parameters", ())
    if any(one["in"] == "path" for one in parameters):
        refusals |= _WITH_PATH
    if parameters or "requestBody" in operation:
        refusals |= _WITH_FIELDS
    if "requestBody" in operation:
        refusals |= _WITH_BODY
    stated = {status: "" for status in operation["responses"] if status[0] == "4"}
    return stated | refusals
