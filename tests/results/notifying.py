"""Settings by which people are told by e-mail and through a pager gateway."""

from __future__ import annotations

from typing import Any

from tests.store.notification_scenes import Ward, settings_of
from triage.results.notifying.rounds import send_next
from triage.settings import Destination, EmailDestination, Settings, WebhookDestination, WebSettings

PUBLIC_URL = "https://triage.hospital.example"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def mail_at(port: int, **more: Any) -> EmailDestination:
    """Return the e-mail destination whose server people are told by."""
    values: dict[str, Any] = {
        "name": "mail",
        "kind": "email",
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "sender": "triage@hospital.example",
        "recipients": ("results@hospital.example",),
        "timeout_s": 5,
    }
    return EmailDestination(**values | more)


def pager_at(url: str, **more: Any) -> WebhookDestination:
    """Return the gateway that pages people."""
    return WebhookDestination(
        name="pager", kind="webhook", url=f"{url}/page", secret=SECRET, timeout_s=5, **more
    )


def settings_with(*destinations: Destination, **notifications: Any) -> Settings:
    """Return settings in which ada is told over every destination, then grace by the first."""
    channels = [one.name for one in destinations]
    steps = [
        {"to": ["ada"], "channels": channels, "escalate_after_s": 600},
        {"to": ["grace"], "channels": channels[:1], "escalate_after_s": 600},
    ]
    rules = [{"name": "critical", "priorities": ["stat", "high"], "steps": steps}]
    return Settings(
        destinations=destinations,
        web=WebSettings(public_url=PUBLIC_URL),
        notifications=settings_of(**{"rules": rules} | notifications),
    )


def send_all(ward: Ward, settings: Settings) -> int:
    """Send what is due over all channels; return how many messages there were."""
    return sum(
        send_next(ward.database, settings, ward.clock, lambda: 0.5, channel=one.name)
        for one in settings.destinations
        for _ in range(10)
    )
