"""Whom the settings know by an AE title or a name."""

from __future__ import annotations

from triage.settings import DicomDestination, RemoteSettings, Settings

KnownPeer = DicomDestination | RemoteSettings


def peer_by_ae_title(settings: Settings, ae_title: str) -> KnownPeer | None:
    """Return the application entity with this AE title, or None; remotes go before destinations."""
    wanted = ae_title.strip()
    known: list[KnownPeer] = [*settings.remotes, *settings.archives]
    return next((peer for peer in known if peer.ae_title.strip() == wanted), None)


def peer_by_name(settings: Settings, name: str) -> KnownPeer | None:
    """Return the destination or remote of this name, or None; destinations go before remotes."""
    known: list[KnownPeer] = [*settings.archives, *settings.remotes]
    return next((peer for peer in known if peer.name == name), None)
