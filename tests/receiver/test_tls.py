"""DICOM over TLS, with DCMTK's and OpenSSL's own programs outside."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select

from tests.certificates import Authority, Identity
from tests.datasets import ct_slice
from tests.receiver.conftest import StartReceiver, associate
from tests.tools import find_free_port, require_tool, wait_until
from triage.receiver import Receiver
from triage.store.database import Database
from triage.store.tables import InstanceRow

StartTls = Callable[..., int]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The authority of the hospital."""
    return Authority(tmp_path, "hospital")


@pytest.fixture
def own(authority: Authority) -> Identity:
    """The receiver's identity."""
    return authority.sign(file="receiver")


@pytest.fixture
def start_tls(
    sqlite_database: Database, start_receiver: StartReceiver, authority: Authority, own: Identity
) -> StartTls:
    """A function that starts a receiver with a TLS port and returns the port."""

    def start(client_certificates: str = "none", **receiver: object) -> int:
        port = find_free_port()
        tls = {
            "certificate": own.certificate,
            "private_key": own.private_key,
            "authorities": authority.certificate,
            "client_certificates": client_certificates,
        }
        start_receiver(sqlite_database, settings={"tls": tls}, tls_port=port, **receiver)
        return port

    return start


def echoscu(port: int, *options: str) -> subprocess.CompletedProcess[str]:
    """C-ECHO with DCMTK."""
    program = require_tool("echoscu")
    return subprocess.run(
        [program, "-to", "10", *options, "127.0.0.1", str(port)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def authenticated(identity: Identity, authority: Authority) -> list[str]:
    """Return DCMTK's options for a client with a certificate."""
    key, certificate = str(identity.private_key), str(identity.certificate)
    return ["+tls", key, certificate, "+cf", str(authority.certificate)]


def anonymous(authority: Authority) -> list[str]:
    """Return DCMTK's options for a client without one."""
    return ["+tla", "+cf", str(authority.certificate)]


@pytest.mark.parametrize("profile", ["--profile-bcp195-nd", "--profile-bcp195"])
def test_images_from_storescu_arrive_over_tls(
    start_tls: StartTls,
    authority: Authority,
    tmp_path: Path,
    sqlite_database: Database,
    profile: str,
) -> None:
    storescu = require_tool("storescu")
    port = start_tls()
    large = ct_slice(Rows=1024, Columns=1024, PixelData=bytes(2 * 1024 * 1024))
    for number, dataset in enumerate((ct_slice(), large)):
        dataset.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    sent = [str(tmp_path / "0.dcm"), str(tmp_path / "1.dcm")]
    subprocess.run(
        [storescu, *anonymous(authority), profile, "127.0.0.1", str(port), *sent],
        check=True,
        capture_output=True,
        timeout=60,
    )
    with sqlite_database.reading() as session:
        assert session.scalars(select(func.count()).select_from(InstanceRow)).one() == 2


def test_extended_profile_of_dcmtk_is_served(start_tls: StartTls, authority: Authority) -> None:
    assert echoscu(start_tls(), *anonymous(authority), "--profile-bcp195-ex").returncode == 0


@pytest.mark.parametrize(
    ("wanted", "shown", "is_served"),
    [
        ("required", "hospital", True),
        ("required", "nothing", False),
        ("required", "stranger", False),
        ("required", "expired", False),
        ("optional", "nothing", True),
        ("optional", "hospital", True),
        ("optional", "stranger", False),
        ("none", "nothing", True),
    ],
)
def test_client_certificates_are_asked_for_as_configured(
    *,
    start_tls: StartTls,
    authority: Authority,
    tmp_path: Path,
    wanted: str,
    shown: str,
    is_served: bool,
) -> None:
    port = start_tls(wanted)
    identities = {
        "hospital": lambda: authority.sign("ct1", file="ct1"),
        "stranger": lambda: Authority(tmp_path, "stranger").sign("ct1", file="ct1"),
        "expired": lambda: authority.sign("ct1", file="ct1", days=-1),
    }
    options = (
        anonymous(authority)
        if shown == "nothing"
        else authenticated(identities[shown](), authority)
    )
    assert (echoscu(port, *options).returncode == 0) is is_served


def test_plain_dicom_on_the_tls_port_is_closed(start_tls: StartTls) -> None:
    port = start_tls()
    assert echoscu(port).returncode != 0


def test_plain_and_tls_run_side_by_side_or_tls_alone(
    sqlite_database: Database,
    start_receiver: StartReceiver,
    own: Identity,
    authority: Authority,
) -> None:
    def start(**receiver: object) -> tuple[Receiver, int]:
        port = find_free_port()
        tls = {"certificate": own.certificate, "private_key": own.private_key}
        started = start_receiver(sqlite_database, settings={"tls": tls}, tls_port=port, **receiver)
        return started, port

    both, tls_port = start()
    assert associate(both).is_established
    assert echoscu(tls_port, *anonymous(authority)).returncode == 0
    plain_port = find_free_port()
    _, tls_port = start(plain=False, port=plain_port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", plain_port))
    assert echoscu(tls_port, *anonymous(authority)).returncode == 0


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_old_versions_are_refused(start_tls: StartTls, version: str) -> None:
    openssl = require_tool("openssl")
    address = f"127.0.0.1:{start_tls()}"
    # Security level 0: OpenSSL would else not even offer the old version.
    asked = [openssl, "s_client", "-connect", address, version, "-cipher", "ALL:@SECLEVEL=0"]
    ended = subprocess.run(
        asked, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
    )
    assert ended.returncode != 0
    assert "alert protocol version" in ended.stderr


@pytest.mark.parametrize(
    "suite", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"]
)
def test_suites_outside_the_profile_are_refused(start_tls: StartTls, suite: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(suite)
    with (
        socket.create_connection(("127.0.0.1", start_tls()), timeout=10) as connection,
        pytest.raises(ssl.SSLError, match=r"(?i)handshake failure"),
    ):
        context.wrap_socket(connection)


def test_silent_connections_keep_nobody_out_and_are_closed(
    start_tls: StartTls, authority: Authority
) -> None:
    port = start_tls(association_request_timeout_s=1.5)
    silent = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(5)]
    assert echoscu(port, *anonymous(authority)).returncode == 0
    for connection in silent:
        assert connection.recv(1) == b""
        connection.close()


def test_renewed_certificate_is_used_without_a_restart(
    start_tls: StartTls, authority: Authority, own: Identity
) -> None:
    port = start_tls()

    def shown() -> bytes | None:
        context = ssl.create_default_context(cafile=str(authority.certificate))
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
            context.wrap_socket(connection, server_hostname="127.0.0.1") as secured,
        ):
            return secured.getpeercert(binary_form=True)

    before = shown()
    own.private_key.write_text("half written")
    assert shown() == before
    renewed = authority.sign(file="receiver")
    assert renewed == own
    assert shown() not in (None, before)


def test_sender_that_must_use_tls_is_refused_without(
    sqlite_database: Database,
    start_receiver: StartReceiver,
    own: Identity,
    authority: Authority,
) -> None:
    port = find_free_port()
    sections = {
        "tls": {"certificate": own.certificate, "private_key": own.private_key},
        "senders": [{"ae_title": "CT1", "require_tls": True}],
    }
    receiver = start_receiver(sqlite_database, settings=sections, tls_port=port)
    assert associate(receiver, calling="CT1").is_rejected
    assert echoscu(port, *anonymous(authority), "-aet", "CT1").returncode == 0


def test_peer_that_dribbles_over_tls_is_cut_off(start_tls: StartTls, authority: Authority) -> None:
    port = start_tls(message_timeout_s=0.5)
    context = ssl.create_default_context(cafile=str(authority.certificate))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
        context.wrap_socket(connection, server_hostname="127.0.0.1") as secured,
    ):
        secured.sendall(struct.pack(">BBL", 0x01, 0, 1000))
        wait_until(lambda: not _takes_one_more(secured), "the connection is cut", timeout_s=10)


def _takes_one_more(secured: ssl.SSLSocket) -> bool:
    try:
        secured.sendall(b"\x00")
        secured.settimeout(0.1)
        return secured.recv(100) != b""
    except TimeoutError:
        return True
    except OSError:
        return False
