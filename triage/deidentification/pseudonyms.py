"""Pseudonyms: always the same for the same value and destination, and meaningless without the key.

They are not stored: HMAC-SHA256 under a secret of this site makes them anew. Two destinations get
different ones for the same patient, so that they cannot put together what each was given.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import uuid
from datetime import timedelta
from pathlib import Path

from triage.core.errors import TriageError

_FILE = "deidentification.key"
_KEY_BYTES = 32
_LEAST_DAYS = 366
_SPAN_DAYS = 3650


class DeidentificationError(TriageError):
    """Something cannot leave without identity; the message says what, and what to do."""


def site_key(data_directory: Path) -> bytes:
    """Return the site's secret, made when it is first asked for.

    Whoever has it can tell which pseudonym is whose; whoever loses it cannot take back results.

    Raises:
        DeidentificationError: the file is not readable, or not the key.
    """
    file = data_directory / _FILE
    try:
        with contextlib.suppress(FileExistsError):
            _create(file)
        key = file.read_bytes()
    except OSError as error:
        raise DeidentificationError(f"{file} cannot be used: {error.strerror}") from error
    if len(key) != _KEY_BYTES:
        raise DeidentificationError(
            f"{file} should have {_KEY_BYTES} bytes and has {len(key)}; restore it from the backup"
        )
    return key


def _create(file: Path) -> None:
    """Write a new key whole or not at all: another process may be about to do the same."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as written:
            written.write(os.urandom(_KEY_BYTES))
            written.flush()
            os.fsync(written.fileno())
        os.link(draft, file)  # fails where another was first
    finally:
        draft.unlink()


class Pseudonyms:
    """What one destination gets instead of UIDs, Patient IDs and dates.

    >>> ours, theirs = Pseudonyms(b"k" * 32, "research"), Pseudonyms(b"k" * 32, "vendor")
    >>> ours.uid("1.2.3") == ours.uid("1.2.3"), ours.uid("1.2.3") == theirs.uid("1.2.3")
    (True, False)
    """

    def __init__(self, key: bytes, scope: str) -> None:
        """Prepare the pseudonyms of the destination or remote model named `scope`."""
        self._key = key
        self._scope = scope

    def uid(self, uid: str) -> str:
        """Return the UID that stands for `uid`: a UUID-derived one (PS3.5 B.2)."""
        digest = self._digest("uid", uid)
        return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"

    def patient_id(self, patient_id: str, issuer: str) -> str:
        """Return the Patient ID, which is also the name, that stands for the patient."""
        digest = self._digest("patient", issuer, patient_id)
        return "ANON-" + base64.b32encode(digest[:10]).decode()

    def shift(self, patient_id: str, issuer: str) -> timedelta:
        """Return by how many days dates of the patient are moved into the past."""
        digest = self._digest("days", issuer, patient_id)
        days = _LEAST_DAYS + int.from_bytes(digest[:8], "big") % _SPAN_DAYS
        return timedelta(days=-days)

    def _digest(self, *parts: str) -> bytes:
        message = "\x00".join((self._scope, *parts)).encode()
        return hmac.new(self._key, message, hashlib.sha256).digest()
