"""Servers that demand a certificate of ours (mutual TLS): STOW-RS, FHIR and webhook."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.results.fhir import notices
from tests.results.web_server import Reply, web_server
from triage.results.delivery import fhir, stow, webhook
from triage.results.errors import DeliveryError
from triage.settings import (
    FhirDestination,
    SettingsError,
    StowDestination,
    WebhookDestination,
    load_settings,
)
from triage.tls import TlsError, web_context

JSON = {"Content-Type": "application/fhir+json"}


def _call_stow(url: str, **tls: Path) -> None:
    stow.reach(StowDestination(name="there", kind="stow", url=url, timeout_s=5, **tls))


def _call_fhir(url: str, **tls: Path) -> None:
    fhir.reach(FhirDestination(name="there", kind="fhir", url=url, timeout_s=5, **tls))


def _call_webhook(url: str, **tls: Path) -> None:
    there = {"name": "there", "kind": "webhook", "url": url, "secret": "0" * 16, "timeout_s": 5}
    webhook.post(notices.result(), WebhookDestination.model_validate(there | tls), link="")


@pytest.mark.parametrize("call", [_call_stow, _call_fhir, _call_webhook])
def test_a_server_that_demands_a_certificate_is_shown_ours(
    call: Callable[..., None], tmp_path: Path
) -> None:
    servers, clients = Authority(tmp_path, "servers"), Authority(tmp_path, "clients")
    ours = clients.sign("triage", file="ours")
    with web_server(servers.sign(), clients=clients.certificate) as server:
        server.usual = lambda _: Reply(200, JSON, b'{"fhirVersion": "4.0.1"}')
        with pytest.raises(DeliveryError, match="set certificate and private_key") as refused:
            call(server.url, authorities=servers.certificate)
        assert not refused.value.is_permanent
        assert server.requests == []
        call(
            server.url,
            authorities=servers.certificate,
            certificate=ours.certificate,
            private_key=ours.private_key,
        )
        assert len(server.requests) == 1


def test_a_certificate_that_it_does_not_accept_is_said(tmp_path: Path) -> None:
    servers, clients = Authority(tmp_path, "servers"), Authority(tmp_path, "clients")
    other = servers.sign("triage", file="other")
    with (
        web_server(servers.sign(), clients=clients.certificate) as server,
        pytest.raises(DeliveryError, match="set certificate and private_key to what it accepts"),
    ):
        _call_stow(
            server.url,
            authorities=servers.certificate,
            certificate=other.certificate,
            private_key=other.private_key,
        )


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    there = StowDestination(
        name="there",
        kind="stow",
        url="https://127.0.0.1:9",
        certificate=tmp_path / "ours.pem",
        private_key=tmp_path / "ours.key",
    )
    with pytest.raises(TlsError, match=r"ours\.pem does not exist; check certificate"):
        web_context(None, there.own_tls)
    with pytest.raises(DeliveryError, match=r"there: .*ours\.pem does not exist"):
        stow.reach(there)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('url = "https://h"\ncertificate = "a.pem"', "belong together; set both"),
        (
            'url = "http://h"\ncertificate = "a.pem"\nprivate_key = "a.key"',
            "let url begin with https",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toml: str, words: str
) -> None:
    file = tmp_path / "triage.toml"
    file.write_text(f'[[destinations]]\nname = "a"\nkind = "stow"\n{toml}\n')
    monkeypatch.setenv("TRIAGE_CONFIG", str(file))
    with pytest.raises(SettingsError, match=words):
        load_settings()
