"""A FHIR server in this process: validates, stores, and carries out transactions as R4 says.

It knows what Triage uses: conditional create, conditional update, conditional references, and
searches by identifier and tag. It keeps versions, so that a test sees whether a repeat changed
anything.
"""

from __future__ import annotations

import copy
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote

from fhir.resources.R4B.bundle import Bundle
from fhirclient.models.bundle import Bundle as R4Bundle
from fhirclient.models.fhirabstractbase import FHIRValidationError
from pydantic import ValidationError

from tests.certificates import Identity

Json = dict[str, Any]


class RefusedError(Exception):
    """The transaction is not carried out."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


@dataclass
class FhirServer:
    """What it holds, and what it was asked.

    Attributes:
        stored: resources by "Type/id".
        versions: how often each was written with other content than before.
        scripted: status, headers and body of the coming answers, instead of its own.
        headers: of each request.
    """

    port: int = 0
    scheme: str = "http"
    stored: dict[str, Json] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    scripted: list[tuple[int, dict[str, str], str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The base."""
        return f"{self.scheme}://127.0.0.1:{self.port}/fhir"

    def all_of(self, kind: str) -> list[Json]:
        """Return the resources of that kind, in order of creation."""
        return [r for key, r in self.stored.items() if key.startswith(f"{kind}/")]

    def only(self, kind: str) -> Json:
        """Return the only resource of that kind."""
        [resource] = self.all_of(kind)
        return resource

    def put(self, resource: Json) -> str:
        """Have a resource already, and return its reference."""
        key = f"{resource['resourceType']}/{len(self.stored) + 1}"
        self.stored[key] = {**resource, "id": key.partition("/")[2]}
        self.versions[key] = 1
        return key

    def transact(self, body: Json) -> Json:
        """Carry out a transaction, all of it or nothing."""
        validate(body)
        stored, versions = copy.deepcopy(self.stored), dict(self.versions)
        try:
            return self._transact(body)
        except RefusedError:
            self.stored, self.versions = stored, versions
            raise

    def _transact(self, body: Json) -> Json:
        names: dict[str, str] = {}
        chosen = []
        for entry in body["entry"]:
            key, is_there = self._target(entry)
            names[entry["fullUrl"]] = key
            self.stored.setdefault(key, {})
            chosen.append((entry, key, is_there))
        answers = []
        for entry, key, is_there in chosen:
            if is_there and entry["request"]["method"] == "POST":
                answers.append({"response": {"status": "200 OK", "location": key}})
                continue
            resource = self._resolved(entry["resource"], names) | {"id": key.partition("/")[2]}
            if self.stored[key] != resource:
                self.versions[key] = self.versions.get(key, 0) + 1
            self.stored[key] = resource
            status = "200 OK" if is_there else "201 Created"
            answers.append({"response": {"status": status, "location": key}})
        return {"resourceType": "Bundle", "type": "transaction-response", "entry": answers}

    def _target(self, entry: Json) -> tuple[str, bool]:
        request = entry["request"]
        kind = entry["resource"]["resourceType"]
        query = request.get("ifNoneExist") or request["url"].partition("?")[2]
        found = self._search(kind, query)
        if len(found) > 1:
            raise RefusedError(412, f"{len(found)} of {kind} match {query}")
        return (found[0], True) if found else (f"{kind}/{len(self.stored) + 1}", False)

    def _search(self, kind: str, query: str) -> list[str]:
        [(name, [value])] = parse_qs(query, strict_parsing=True).items()
        system, _, code = value.partition("|")
        code = code.replace("\\", "")
        found = []
        for key, resource in self.stored.items():
            tokens = [(i.get("system"), i.get("value")) for i in resource.get("identifier", [])]
            if name == "_tag":
                tags = resource.get("meta", {}).get("tag", [])
                tokens = [(t["system"], t["code"]) for t in tags]
            if key.startswith(f"{kind}/") and (system, code) in tokens:
                found.append(key)
        return found

    def _resolved(self, value: Any, names: dict[str, str]) -> Any:
        if isinstance(value, list):
            return [self._resolved(each, names) for each in value]
        if not isinstance(value, dict):
            return value
        resolved = {key: self._resolved(each, names) for key, each in value.items()}
        target = value.get("reference")
        if isinstance(target, str):
            resolved["reference"] = self._place(target, names)
        return resolved

    def _place(self, target: str, names: dict[str, str]) -> str:
        if target in names:
            return names[target]
        kind, is_search, query = target.partition("?")
        if not is_search:
            raise RefusedError(400, f"{target} is not in the bundle")
        found = self._search(kind, query)
        if len(found) != 1:
            raise RefusedError(412, f"{len(found)} of {kind} match {unquote(query)}")
        return found[0]


def validate(body: Json) -> None:
    """Raise unless `body` is a Bundle of R4 (4.0.1) and of R4B (4.3.0), each resource included."""
    try:
        Bundle.model_validate(body)
        R4Bundle(copy.deepcopy(body), strict=True)
    except (ValidationError, FHIRValidationError) as error:
        raise RefusedError(422, str(error)) from error


class _Handler(BaseHTTPRequestHandler):
    fhir: FhirServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.fhir.headers.append(dict(self.headers))
        status, headers, text = self._answer(body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def _answer(self, body: bytes) -> tuple[int, dict[str, str], str]:
        if self.fhir.scripted:
            return self.fhir.scripted.pop(0)
        try:
            return 200, {}, json.dumps(self.fhir.transact(json.loads(body)))
        except RefusedError as error:
            return error.status, {}, json.dumps(outcome(str(error)))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as its base
        """Say nothing."""


def outcome(said: str) -> Json:
    """Return an OperationOutcome."""
    issue = {"severity": "error", "code": "processing", "diagnostics": said}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


@contextmanager
def fhir_server(identity: Identity | None = None) -> Iterator[FhirServer]:
    """Run a server on a free port, over TLS if it is given an identity."""
    fhir = FhirServer(scheme="https" if identity else "http")
    handler = type("Handler", (_Handler,), {"fhir": fhir})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if identity is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity.certificate, identity.private_key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    fhir.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fhir
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
