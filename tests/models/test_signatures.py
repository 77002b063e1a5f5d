"""Who signed a package, and what is said of one that nobody did."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest

from triage.models.packages import ModelPackage, PackageError, package_sha256
from triage.models.signatures import (
    KeyPair,
    make_keys,
    sign_package,
    signature_of,
    verify_signature,
)
from triage.settings import PublicKeySettings

pytest.importorskip("OpenSSL", reason="model-signing imports pyopenssl, which is not installed")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return make_keys(tmp_path_factory.mktemp("keys") / "vendor")


@pytest.fixture
def signed(segmentation: ModelPackage, keys: KeyPair, tmp_path: Path) -> Path:
    """A copy of the package that is signed and may be spoilt."""
    folder = Path(shutil.copytree(segmentation.path, tmp_path / "tiny"))
    (folder / "configs" / "__pycache__").mkdir()
    (folder / "configs" / "__pycache__" / "x.pyc").write_bytes(b"cache")
    sign_package(folder, keys.private_key)
    return folder


def verify(folder: Path, *pairs: KeyPair) -> str:
    signature = signature_of(folder)
    assert signature is not None
    trusted = [PublicKeySettings(name=p.public_key.stem, path=p.public_key) for p in pairs]
    return verify_signature(folder, signature, trusted)


def test_signature_names_its_key_and_is_no_part_of_the_package(
    signed: Path, segmentation: ModelPackage, keys: KeyPair, tmp_path: Path
) -> None:
    other = make_keys(tmp_path / "other", "a password")
    assert verify(signed, other, keys) == "vendor"
    assert package_sha256(signed) == segmentation.sha256
    sign_package(signed, other.private_key, "a password")
    assert verify(signed, other) == "other"


def test_private_key_is_for_its_owner_and_never_overwritten(keys: KeyPair) -> None:
    assert keys.private_key.stat().st_mode & 0o077 == 0
    with pytest.raises(PackageError, match=r"vendor\.key: the key cannot be written"):
        make_keys(keys.private_key.with_name("vendor"))


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def leave_out(folder: Path) -> None:
    """Let the statement, whose signature then no longer fits, ignore a file."""
    path = folder / "model.sig"
    content = json.loads(path.read_text())
    statement = json.loads(base64.b64decode(content["dsseEnvelope"]["payload"]))
    statement["predicate"]["resources"].pop()
    payload = base64.b64encode(json.dumps(statement).encode()).decode()
    content["dsseEnvelope"]["payload"] = payload
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda f: append(f / "model.yaml"), r"vendor: changed since: model\.yaml"),
        (lambda f: append(f / "models" / "model.pt"), r"changed since: models/model\.pt"),
        (lambda f: (f / "configs" / "x.json").write_text("{}"), r"added since: configs/x\.json"),
        (lambda f: (f / "configs" / "inference.json").unlink(), r"missing: configs/inference\.js"),
        (leave_out, "the signature is not of this key, or was changed"),
        (lambda f: (f / "model.sig").write_text("{}"), "the file of the signature is garbled"),
        (lambda f: (f / "model.sig").write_bytes(b"\xff"), "the file of the signature is garbled"),
    ],
)
def test_tampering_is_told_in_words(
    signed: Path, keys: KeyPair, tamper: object, message: str
) -> None:
    tamper(signed)  # type: ignore[operator]
    with pytest.raises(PackageError, match=f"no key that is trusted signed this; .*{message}"):
        verify(signed, keys)


def test_other_keys_do_not_count(signed: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="other: the signature is of another key"):
        verify(signed, make_keys(tmp_path / "other"))
    with pytest.raises(PackageError, match=r"name one in trust\.public_keys"):
        verify(signed)
    (tmp_path / "no.pub").write_text("no key")
    with pytest.raises(PackageError, match=r"no: its file .*no\.pub cannot be used"):
        verify(signed, KeyPair(tmp_path, tmp_path / "no.pub"))


def test_signature_that_leaves_files_out_vouches_for_nothing(
    signed: Path, keys: KeyPair, tmp_path: Path
) -> None:
    from model_signing import hashing, signing

    ignoring = hashing.Config().set_ignored_paths(paths=["model.sig", "configs"])
    signer = signing.Config().use_elliptic_key_signer(private_key=keys.private_key)
    signer.set_hashing_config(ignoring).sign(signed, signed / "model.sig")
    with pytest.raises(PackageError, match=r"not signed: configs/inference\.json"):
        verify(signed, keys)


def test_file_that_would_stay_unsigned_keeps_the_package_from_being_signed(
    signed: Path, keys: KeyPair
) -> None:
    (signed / ".gitattributes").write_text("")
    with pytest.raises(PackageError, match=r"leaves out \.gitattributes"):
        sign_package(signed, keys.private_key)
    assert signature_of(signed) is None


def test_key_that_cannot_sign_is_named(segmentation: ModelPackage, keys: KeyPair) -> None:
    with pytest.raises(PackageError, match=r"vendor\.pub: cannot sign with it"):
        sign_package(segmentation.path, keys.public_key)
