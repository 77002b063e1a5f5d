"""Associations that Triage opens over TLS, towards DCMTK's storescp and pynetdicom."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom.presentation import build_context

from tests.certificates import Authority, Identity
from tests.tools import find_free_port, require_tool, wait_until
from triage.associations import AssociationError, associate
from triage.doctor import certificate_checks, examine
from triage.receiver import Receiver
from triage.settings import RemoteSettings, Settings, load_settings
from triage.store.clock import system_clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.tls import TlsError, client_context, own_certificate

ECHO = "1.2.840.10008.1.1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The authority of the hospital."""
    return Authority(tmp_path, "hospital")


@contextmanager
def storescp(folder: Path, *options: str) -> Iterator[int]:
    """Run DCMTK's storescp and give its port."""
    program, port = require_tool("storescp"), find_free_port()
    log = folder / "storescp.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "-d", *options, "-od", str(folder), str(port)],
            stdout=output,
            stderr=output,
        )
        try:
            wait_until(lambda: _listens(port), "storescp listens")
            yield port
        finally:
            process.terminate()
            process.wait(20)


def _listens(port: int) -> bool:
    # Asked of the kernel: a connection without a handshake would be storescp's first association.
    listening = Path("/proc/net/tcp").read_text().splitlines()
    return any(f":{port:04X} " in line.split()[1] + " " for line in listening[1:])


def settings_for(port: int, own: Identity | None, **peer: Any) -> Settings:
    """Return settings with one remote over TLS."""
    tls: dict[str, Any] = {}
    if own is not None:
        tls = {"certificate": own.certificate, "private_key": own.private_key}
    if "authorities" in peer:
        tls["authorities"] = peer.pop("authorities")
    remote = {
        "name": "pacs",
        "ae_title": "PACS",
        "host": "127.0.0.1",
        "port": port,
        "timeout_s": 5,
        "tls": True,
    }
    return load_settings(tls=tls, remotes=[{**remote, **peer}])


def echo(settings: Settings) -> int:
    """C-ECHO the remote and return the status."""
    peer: RemoteSettings = settings.remotes[0]
    with associate(peer, [build_context(ECHO)], calling_ae_title="TRIAGE") as association:
        status: int = association.send_c_echo().Status
    return status


def tls_options(identity: Identity, authority: Authority, *more: str) -> list[str]:
    """Return storescp's options."""
    key, certificate = str(identity.private_key), str(identity.certificate)
    return ["+tls", key, certificate, "+cf", str(authority.certificate), *more]


def test_archive_that_asks_for_our_certificate_gets_it(
    tmp_path: Path, authority: Authority
) -> None:
    theirs, ours = authority.sign(file="pacs"), authority.sign("triage", file="triage")
    with storescp(tmp_path, *tls_options(theirs, authority)) as port:
        settings = settings_for(port, ours, authorities=authority.certificate)
        assert echo(settings) == 0


def test_archive_that_asks_for_a_certificate_we_have_not_is_named(
    tmp_path: Path, authority: Authority
) -> None:
    theirs = authority.sign(file="pacs")
    with storescp(tmp_path, *tls_options(theirs, authority)) as port:
        settings = settings_for(port, None, authorities=authority.certificate)
        with pytest.raises(AssociationError, match=r"pacs \(PACS at .*(certificate|TLS)"):
            echo(settings)


@pytest.mark.parametrize(
    ("name", "days", "verify", "trusts", "words"),
    [
        ("127.0.0.1", 90, "name", "hospital", ""),
        ("pacs.example", 90, "name", "hospital", "IP address mismatch"),
        ("pacs.example", 90, "authority", "hospital", ""),
        ("127.0.0.1", 90, "name", "stranger", "self-signed certificate in certificate chain"),
        ("127.0.0.1", 90, "authority", "stranger", "self-signed certificate in certificate chain"),
        ("127.0.0.1", -1, "name", "hospital", "certificate has expired"),
    ],
)
def test_certificate_of_the_archive_is_verified(
    *,
    tmp_path: Path,
    authority: Authority,
    name: str,
    days: float,
    verify: str,
    trusts: str,
    words: str,
) -> None:
    theirs = authority.sign(name, file="pacs", days=days)
    trusted = authority if trusts == "hospital" else Authority(tmp_path, "stranger")
    with storescp(tmp_path, *tls_options(theirs, authority, "-ic")) as port:
        settings = settings_for(
            port,
            None,
            authorities=authority.certificate,
            tls_authorities=trusted.certificate,  # goes before those of [tls]
            tls_verify=verify,
        )
        if not words:
            assert echo(settings) == 0
            return
        with pytest.raises(AssociationError, match=words):
            echo(settings)


def test_name_in_the_certificate_can_be_configured(tmp_path: Path, authority: Authority) -> None:
    theirs = authority.sign("pacs.example", file="pacs")
    with storescp(tmp_path, *tls_options(theirs, authority, "-ic")) as port:
        settings = settings_for(
            port, None, authorities=authority.certificate, tls_name="pacs.example"
        )
        assert echo(settings) == 0


def test_archive_without_tls_is_named(tmp_path: Path, authority: Authority) -> None:
    with storescp(tmp_path) as port:
        settings = settings_for(port, None, authorities=authority.certificate)
        with pytest.raises(AssociationError, match="pacs"):
            echo(settings)


def test_files_that_cannot_be_used_are_named(tmp_path: Path, authority: Authority) -> None:
    ours, other = authority.sign(file="a"), authority.sign(file="b")
    missing = settings_for(1, None, authorities=tmp_path / "nothing.pem").remotes[0]
    with pytest.raises(TlsError, match=r"nothing\.pem does not exist"):
        client_context(missing)
    mixed = Identity(ours.certificate, other.private_key)
    with pytest.raises(TlsError, match="key values mismatch"):
        client_context(settings_for(1, mixed).remotes[0])
    assert not own_certificate(settings_for(1, mixed).tls).matches_key


@pytest.mark.parametrize(
    ("days", "is_ok", "is_warning", "words"),
    [
        (90, True, False, "valid for 89 days"),
        (20, True, True, "renew"),
        (-1, False, False, "expired"),
    ],
)
def test_doctor_sees_how_long_the_certificate_lasts(
    authority: Authority, *, days: float, is_ok: bool, is_warning: bool, words: str
) -> None:
    settings = settings_for(1, authority.sign(days=days))
    (check,) = certificate_checks(settings, system_clock())
    assert (check.is_ok, check.is_warning) == (is_ok, is_warning)
    assert words in check.text


def test_doctor_sees_a_disk_that_fills_up(tmp_path: Path) -> None:
    def disk(**receiver: int) -> tuple[bool, bool]:
        settings = load_settings(data_directory=tmp_path, receiver=receiver)
        check = next(iter(examine(settings)))
        assert check.name == "disk"
        return check.is_ok, check.is_warning

    assert disk(warning_free_mb=0, minimum_free_mb=0) == (True, False)
    assert disk(warning_free_mb=10**9, minimum_free_mb=0) == (True, True)
    assert disk(warning_free_mb=10**9, minimum_free_mb=10**9) == (False, False)


def test_doctor_makes_a_handshake_with_the_receiver(
    tmp_path: Path, authority: Authority, sqlite_database: Database
) -> None:
    ours = authority.sign()
    settings = load_settings(
        data_directory=tmp_path / "data",
        receiver={"plain": False, "tls_port": find_free_port()},
        tls={"certificate": ours.certificate, "private_key": ours.private_key},
    )

    def looked_at() -> dict[str, tuple[bool, str]]:
        checks = {c.name: (c.is_ok, c.text) for c in examine(settings)}
        assert "receiver" not in checks
        return checks

    assert not looked_at()["receiver over TLS"][0]
    receiver = Receiver(settings, sqlite_database, InstanceFiles(tmp_path / "data"))
    receiver.start()
    try:
        found = looked_at()
    finally:
        receiver.stop()
    assert found["receiver over TLS"] == (
        True,
        f"TLSv1.3 on 127.0.0.1:{settings.receiver.tls_port}",
    )
    assert found["certificate"][0]
