"""Secrets that are handed out once and kept as their digest.

They have 256 random bits, so a plain SHA-256 is enough: nobody can try them all.
"""

from __future__ import annotations

import hashlib
import secrets

_BYTES = 32


def new_secret(prefix: str = "") -> str:
    """Return a new random secret that can stand in a header or cookie."""
    return prefix + secrets.token_urlsafe(_BYTES)


def digest_of(secret: str) -> str:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
