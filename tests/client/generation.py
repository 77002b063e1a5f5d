"""The models of `triage.client`, made from what the server says of itself in OpenAPI.

`make client` writes them; a test fails where they are not those of the API as it is.
"""

from __future__ import annotations

import json
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from datamodel_code_generator import (
    DataModelType,
    Formatter,
    InputFileType,
    LiteralType,
    PythonVersion,
    generate,
)

from triage.settings import Settings
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.web.app import create_app

BASE = "/api/v1"
MODELS = Path(__file__).resolve().parents[2] / "triage" / "client" / "models.py"
_BOUNDS = {
    "additionalProperties",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "title",
}
_EXAMPLE = re.compile(r"\n\n>>> .*", re.DOTALL)
HEADER = '''"""What the API answers and takes; made by `make client` from its OpenAPI document."""

'''


@cache
def api_document() -> dict[str, Any]:
    """Return the OpenAPI document, of the operations below BASE and what they refer to."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_directory=Path(folder))
        database = Database(f"sqlite:///{folder}/none.sqlite")
        document = create_app(settings, database, InstanceFiles(Path(folder))).openapi()
        database.close()
    paths = {path: item for path, item in document["paths"].items() if path.startswith(BASE)}
    schemas = document["components"]["schemas"]
    wanted: set[str] = set()
    _follow(paths, schemas, wanted)
    kept = {name: schema for name, schema in schemas.items() if name in wanted}
    return {**document, "paths": paths, "components": {"schemas": kept}}


def _follow(part: Any, schemas: dict[str, Any], wanted: set[str]) -> None:
    if isinstance(part, list):
        for one in part:
            _follow(one, schemas, wanted)
    if isinstance(part, dict):
        name = str(part.get("$ref", "")).rpartition("/")[2]
        if name and name not in wanted:
            wanted.add(name)
            _follow(schemas[name], schemas, wanted)
        for one in part.values():
            _follow(one, schemas, wanted)


def generated_models(document: dict[str, Any]) -> str:
    """Return the module of models."""
    # Without the paths: what is in the query and in forms has no models of its own here.
    schemas = {**document, "paths": {}}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "models.py"
        generate(
            json.dumps(_plain(schemas)),
            input_file_type=InputFileType.OpenAPI,
            output=made,
            output_model_type=DataModelType.PydanticV2BaseModel,
            target_python_version=PythonVersion.PY_311,
            use_annotated=True,
            field_constraints=True,
            use_union_operator=True,
            use_standard_collections=True,
            enum_field_as_literal=LiteralType.All,
            collapse_root_models=True,
            strict_nullable=True,
            use_schema_description=True,
            use_field_description=True,
            formatters=[Formatter.RUFF_CHECK, Formatter.RUFF_FORMAT],
            settings_path=MODELS,
        )
        body = made.read_text(encoding="utf-8")
    return HEADER + re.sub(r"\A(#.*\n)+\n*", "", body)


def _plain(part: Any) -> Any:
    """Leave out what a client need not know.

    Titles only repeat the name of their field. Bounds are the server's to check: a client that
    checks them refuses the answers of a newer server. Defaults of several fields are the server's,
    and so are the examples in its descriptions, which are of its own classes.
    """
    if isinstance(part, str):
        return _EXAMPLE.sub("", part)
    if isinstance(part, list):
        return [_plain(one) for one in part]
    if not isinstance(part, dict):
        return part
    left_out = _BOUNDS - {"minItems", "maxItems"} if "prefixItems" in part else _BOUNDS
    return {
        name: _plain(one)
        for name, one in part.items()
        if not (name in left_out and isinstance(one, str | int | float))
        and not (name == "default" and isinstance(one, dict | list) and (one or "$ref" in part))
    }


if __name__ == "__main__":
    MODELS.write_text(generated_models(api_document()), encoding="utf-8")
