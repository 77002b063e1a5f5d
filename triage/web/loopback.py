"""Whether the pages are for the machine alone that serves them."""

from __future__ import annotations

from triage.settings import WebSettings

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""The names of this machine that no other machine can reach."""


def is_for_this_machine_only(settings: WebSettings) -> bool:
    """Return whether nobody reaches the pages but who is at the machine that serves them.

    Names in `allowed_hosts` say that a proxy in front lets others in.
    """
    return settings.host in LOOPBACK and not settings.allowed_hosts
