"""An operation of the API is declared by its signature; how it is asked follows from that.

    @operation("GET", "/worklist")
    def worklist(self, *, limit: int = 200, offset: int = 0) -> models.Worklist:
        '''Give the studies to be read, most urgent first.'''

Parameters that the path names go there, the others into the query of a GET and the body of
everything else, but for those that `in_query` names. The answer becomes what the signature
returns. None is not sent.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, get_type_hints
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from triage.client.errors import InvalidRequestError, UnexpectedAnswerError

P = ParamSpec("P")
R = TypeVar("R")
Method = Literal["GET", "POST", "PUT", "DELETE"]
File = Path | tuple[str, bytes]
"""A file to be sent: where it lies, or its name and content."""

BASE = "/api/v1"


class Sender(Protocol):
    """What sends requests and turns refusals into errors."""

    def send(
        self, method: str, address: str, content: Callable[[ExitStack], Any]
    ) -> httpx.Response:
        """Return the answer to what `content` makes for each attempt."""


@dataclass(frozen=True)
class Operation:
    """How a method of the client asks: HTTP method, path below BASE, and the form of the body.

    `in_query` names parameters that are in the query although there is a body.
    """

    method: Method
    path: str
    is_form: bool
    signature: inspect.Signature
    in_query: frozenset[str] = frozenset()

    @property
    def in_path(self) -> frozenset[str]:
        """Parameters that the path names."""
        return frozenset(re.findall(r"{(\w+)}", self.path))

    @property
    def sent(self) -> frozenset[str]:
        """Parameters of query or body."""
        return frozenset(self.signature.parameters) - {"self"} - self.in_path

    def address(self, given: Mapping[str, Any]) -> str:
        """Return the path with its parameters, each a part of its own."""
        parts = {name: quote(str(given[name]), safe="") for name in self.in_path}
        if empty := sorted(name for name, text in parts.items() if not text):
            raise InvalidRequestError(f"{empty[0]}: say which", empty[0])
        return BASE + self.path.format_map(parts)

    def content(self, given: Mapping[str, Any], files: ExitStack) -> dict[str, Any]:
        """Return what httpx is to send beside the address; files are open until `files` closes."""
        named = {name: given[name] for name in sorted(self.sent) if given.get(name) is not None}
        if self.is_form:
            return {
                "files": [part for name, one in named.items() for part in _parts(name, one, files)]
            }
        values = {name: _jsonable(value) for name, value in named.items()}
        if self.method == "GET":
            return {"params": values}
        query = {name: values.pop(name) for name in self.in_query & values.keys()}
        asked: dict[str, Any] = {"params": query} if query else {}
        return asked | {"json": values} if self.sent - self.in_query else asked


def operation(
    method: Method, path: str, *, is_form: bool = False, in_query: Collection[str] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a method that is declared only into one that asks; see the module."""

    def declared(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        known = Operation(method, path, is_form, signature, frozenset(in_query))
        adapter = functools.cache(lambda: TypeAdapter(get_type_hints(function)["return"]))

        @functools.wraps(function)
        def ask(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = known.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            client: Sender = given["self"]
            answer = client.send(
                method, known.address(given), lambda files: known.content(given, files)
            )
            result: R = _read(answer, adapter())
            return result

        ask.operation = known  # type: ignore[attr-defined]
        return ask

    return declared


def operations_of(client: type) -> dict[tuple[str, str], tuple[str, Operation]]:
    """Return the operations of a client by HTTP method and path below BASE."""
    found = inspect.getmembers(client, lambda member: hasattr(member, "operation"))
    return {
        (member.operation.method, member.operation.path): (name, member.operation)
        for name, member in found
    }


def _read(answer: httpx.Response, adapter: TypeAdapter[Any]) -> Any:
    if adapter.core_schema["type"] == "none":
        return None
    if adapter.core_schema["type"] == "bytes":
        return answer.content
    try:
        return adapter.validate_json(answer.content)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, wrong["loc"]))
        raise UnexpectedAnswerError(
            f"the answer does not fit this client: {place}: {wrong['msg']}; use the client of the "
            "server's version",
            place,
            answer.status_code,
        ) from None  # what came may hold patient data


def _jsonable(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return to_jsonable_python(value)


def _parts(name: str, value: Any, files: ExitStack) -> list[tuple[str, Any]]:
    """Return the parts of a form for one parameter; of a list a part for each."""
    if isinstance(value, list):
        return [part for one in value for part in _parts(name, one, files)]
    if isinstance(value, Path):
        return [(name, (value.name, files.enter_context(value.open("rb"))))]
    if isinstance(value, tuple):
        return [(name, value)]
    if isinstance(value, bool):
        return [(name, (None, "true"))] if value else []
    return [(name, (None, str(value)))]
