"""Signed packages: OpenSSF Model Signing with keys that are held here, without any service.

The signature is a file of the Sigstore bundle format, `model.sig`, in the package's folder or
beside it with the same name (`NAME.sig`), as `model_signing sign key` writes it too.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from triage.models.packages import SIGNATURE_NAME, PackageError, load_package, package_files
from triage.settings import PublicKeySettings


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The two files of a new pair of keys."""

    private_key: Path
    public_key: Path


def make_keys(stem: Path, password: str = "") -> KeyPair:
    """Write a new pair of keys (NIST P-256) to `stem`.key, for its owner only, and `stem`.pub.

    Raises:
        PackageError: one of the files is there, or cannot be written.
    """
    pair = KeyPair(stem.with_name(f"{stem.name}.key"), stem.with_name(f"{stem.name}.pub"))
    key = ec.generate_private_key(ec.SECP256R1())
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(password.encode())
        if password
        else serialization.NoEncryption()
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        for path, content, mode in (
            (pair.private_key, private, 0o600),
            (pair.public_key, public, 0o644),
        ):
            path.touch(mode=mode, exist_ok=False)
            path.write_bytes(content)
    except OSError as error:
        raise PackageError(f"{error.filename}: the key cannot be written: {error}") from None
    return pair


def sign_package(folder: Path, private_key: Path, password: str = "") -> Path:
    """Sign the package in `folder`; return the file of its signature.

    Raises:
        PackageError: the package is broken, or the key cannot be used.
    """
    from model_signing import hashing, signing  # noqa: PLC0415 - a second that few commands need

    load_package(folder)
    caches = [p.relative_to(folder) for p in folder.rglob("__pycache__")]
    hashed = hashing.Config()  # type: ignore[no-untyped-call]
    hashed.set_ignored_paths(paths=[Path(SIGNATURE_NAME), *caches])
    signature = folder / SIGNATURE_NAME
    try:
        signer = signing.Config()  # type: ignore[no-untyped-call]
        # The library hands the password on as it is, and cryptography wants bytes.
        signer.use_elliptic_key_signer(
            private_key=private_key,
            password=password.encode() or None,  # type: ignore[arg-type]
        )
        signer.set_hashing_config(hashed).sign(folder, signature)
    except (OSError, ValueError, TypeError, AttributeError, UnsupportedAlgorithm) as error:
        raise PackageError(
            f"{private_key}: cannot sign with it: {error}; `triage models keygen` makes a key"
        ) from None
    if unsigned := _files_not_signed(folder, signature):
        signature.unlink()
        raise PackageError(
            f"{folder}: the library leaves out {', '.join(unsigned)}, so nobody could vouch for "
            "them; remove them from the package"
        )
    return signature


def signature_of(path: Path) -> Path | None:
    """Return the signature of the package at `path` (a folder or an archive), if there is one."""
    beside = path.with_name(f"{path.name}.sig")
    return next((p for p in (path / SIGNATURE_NAME, beside) if p.is_file()), None)


def verify_signature(
    folder: Path, signature: Path, public_keys: Sequence[PublicKeySettings]
) -> str:
    """Return the name of the key that signed all files of the package in `folder`.

    Raises:
        PackageError: none of `public_keys` did; the message says what is wrong.
    """
    if not public_keys:
        raise PackageError(
            f"{signature}: there is no key to hold it against; name one in trust.public_keys"
        )
    reasons = []
    for key in public_keys:
        reason = _why_not_signed_by(folder, signature, key)
        if not reason:
            return key.name
        reasons.append(f"{key.name}: {reason}")
    raise PackageError(f"{signature}: no key that is trusted signed this; {'; '.join(reasons)}")


def _why_not_signed_by(folder: Path, signature: Path, key: PublicKeySettings) -> str:
    """Return why this is not the key's signature on these files, "" if it is."""
    from model_signing import verifying  # noqa: PLC0415 - as above

    try:
        verifier = verifying.Config()  # type: ignore[no-untyped-call]
        verifier.use_elliptic_key_verifier(public_key=key.path)
    except (OSError, ValueError, AttributeError, UnsupportedAlgorithm) as error:
        return f"its file {key.path} cannot be used ({error})"
    try:
        # It prints its warnings, and they are not for the caller of a command.
        with contextlib.redirect_stdout(None):
            verifier.verify(folder, signature)
        unsigned = _files_not_signed(folder, signature)
    except InvalidSignature:
        return "the signature is not of this key, or was changed"
    except ValueError as error:
        return _in_words(str(error))
    except Exception as error:  # noqa: BLE001 - a garbled one fails in any part of the parser
        return f"the file of the signature is garbled ({type(error).__name__}: {error})"
    return f"not signed: {', '.join(unsigned)}" if unsigned else ""


def _in_words(said: str) -> str:
    """Return what the library says, without digests in bytes."""
    if said.startswith("Key mismatch"):
        return "the signature is of another key"
    if not said.startswith("Signature mismatch"):
        return f"the file of the signature is garbled ({said})"
    changed = re.findall(r"Hash mismatch for '([^']*)'", said)
    others = re.findall(r"(Extra|Missing) files (?:found )?in model '[^']*': ([^\"]*)\"", said)
    words = {"Extra": "added since", "Missing": "missing"}
    found = [f"{words[kind]}: {names}" for kind, names in others]
    return (
        "; ".join([*([f"changed since: {', '.join(changed)}"] if changed else []), *found]) or said
    )


def _files_not_signed(folder: Path, signature: Path) -> list[str]:
    """Return the files that the signature, which was verified, leaves out.

    A signature may itself say what it ignores (`ignore_paths`), and the library heeds that.
    """
    envelope: dict[str, Any] = json.loads(signature.read_bytes())["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    signed = {resource["name"] for resource in statement["predicate"]["resources"]}
    return [p.as_posix() for p in package_files(folder) if p.as_posix() not in signed]
