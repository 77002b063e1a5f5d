"""Who may call the receiver, from where, and how often at once (DICOM PS3.8 9.3.4)."""

from __future__ import annotations

import ipaddress
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

from triage.settings import SenderSettings, Settings


@dataclass(frozen=True, slots=True)
class Rejection:
    """The fields of an A-ASSOCIATE-RJ (DICOM PS3.8 table 9-21).

    Attributes:
        why: for our log only: a stranger is not told which of his claims was wrong.
    """

    result: int
    source: int
    diagnostic: int
    why: str


@dataclass(frozen=True, slots=True)
class Request:
    """What is known of a peer when it asks for an association."""

    calling_ae_title: str
    called_ae_title: str
    address: str
    is_tls: bool


def _unknown_caller(why: str) -> Rejection:
    return Rejection(result=1, source=1, diagnostic=3, why=why)


def _over_limit(why: str) -> Rejection:
    return Rejection(result=2, source=3, diagnostic=2, why=why)


class Admission:
    """Admits associations by the settings, and counts those that go on."""

    def __init__(self, settings: Settings, processes: int = 1) -> None:
        """Read the settings; each of several `processes` admits its part of the limits."""
        receiver = settings.receiver
        self._own_ae_title = receiver.ae_title.strip()
        self._requires_called = receiver.require_called_ae_title
        self._closes_unknown = receiver.close_unknown_addresses
        self._most = math.ceil(receiver.maximum_associations / processes)
        self._processes = processes
        self._most_per_sender = receiver.maximum_associations_per_sender
        self._senders = {s.ae_title.strip(): s for s in settings.senders}
        # The simple form: an AE title of which nothing more is said.
        for title in receiver.allowed_calling_ae_titles:
            self._senders.setdefault(title.strip(), SenderSettings(ae_title=title))
        self._lock = threading.Lock()
        self._admitted: list[tuple[str, Callable[[], bool]]] = []

    def may_connect(self, address: str) -> bool:
        """Return whether a connection from `address` is let to speak at all."""
        if not self._closes_unknown or not self._senders:
            return True
        return any(_is_from(sender, address) for sender in self._senders.values())

    def admit(self, request: Request, is_going_on: Callable[[], bool]) -> Rejection | None:
        """Return why the association is rejected, or None and count it while it goes on.

        What will never be accepted is said before what may be accepted later.
        """
        caller = request.calling_ae_title.strip()
        refusal = self._stranger(request, caller) or self._wrong_called(request)
        if refusal is not None:
            return refusal
        with self._lock:
            self._admitted = [one for one in self._admitted if one[1]()]
            refusal = self._limit(caller)
            if refusal is None:
                self._admitted.append((caller, is_going_on))
            return refusal

    def _stranger(self, request: Request, caller: str) -> Rejection | None:
        if not self._senders:
            return None
        sender = self._senders.get(caller)
        if sender is None:
            return _unknown_caller("no sender has this calling AE title")
        if not _is_from(sender, request.address):
            return _unknown_caller("the sender of this AE title does not call from this address")
        if sender.require_tls and not request.is_tls:
            return _unknown_caller("this sender must call over TLS")
        return None

    def _wrong_called(self, request: Request) -> Rejection | None:
        if not self._requires_called or request.called_ae_title.strip() == self._own_ae_title:
            return None
        return Rejection(result=1, source=1, diagnostic=7, why="another AE title was called")

    def _limit(self, caller: str) -> Rejection | None:
        if len(self._admitted) >= self._most:
            return _over_limit(f"{self._most} associations go on already")
        sender = self._senders.get(caller)
        most = sender.maximum_associations if sender is not None else None
        most = most or self._most_per_sender
        if most is not None:
            most = math.ceil(most / self._processes)
        if most is not None and sum(name == caller for name, _ in self._admitted) >= most:
            return _over_limit(f"{most} associations of this sender go on already")
        return None


def _is_from(sender: SenderSettings, address: str) -> bool:
    if not sender.addresses:
        return True
    try:
        found: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address)
    except ValueError:
        return False
    # On a socket for both families, IPv4 peers have mapped addresses (RFC 4291 2.5.5.2).
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in network for network in sender.addresses)
