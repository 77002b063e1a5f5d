"""Deterministic UIDs, so that the same result emitted twice is the same object."""

from __future__ import annotations

import hashlib
import uuid


def derived_uid(*parts: str) -> str:
    """Return the UID that belongs to `parts`: always the same for the same parts.

    A UUID-derived UID under the arc 2.25 (DICOM PS3.5 B.2, ITU-T X.667), with the UUID taken from
    the SHA-256 of the parts.

    >>> derived_uid("study", "model", "SEG") == derived_uid("study", "model", "SEG")
    True
    >>> derived_uid("a", "bc") == derived_uid("ab", "c")
    False
    """
    digest = hashlib.sha256("\x00".join(parts).encode()).digest()[:16]
    return f"2.25.{uuid.UUID(bytes=digest, version=5).int}"
