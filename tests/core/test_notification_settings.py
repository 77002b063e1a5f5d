"""Rules that cannot work are refused with the name of the key and the fix."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tools import ManualClock
from triage.settings import SettingsError, load_settings

ADA = {"name": "ada", "email": "ada@hospital.example"}
MAIL = {
    "name": "mail",
    "kind": "email",
    "host": "mail.hospital.example",
    "sender": "triage@hospital.example",
    "recipients": ["results@hospital.example"],
}


def rule(*to: str, channel: str = "browser") -> dict[str, Any]:
    return {"name": "critical", "steps": [{"to": list(to), "channels": [channel]}]}


@pytest.mark.parametrize(
    ("notifications", "said"),
    [
        ({"recipients": [ADA, ADA]}, "the name ada is there twice"),
        ({"recipients": [ADA], "rules": [rule("bob")]}, "rules 'critical' names bob, whom nobody"),
        ({"recipients": [ADA], "groups": [{"name": "neuro"}]}, "'neuro' has nobody; set members"),
        ({"recipients": [ADA], "rules": [rule("ada", channel="sms")]}, "'sms' is no channel; use"),
        (
            {"recipients": [{"name": "ada"}], "rules": [rule("ada", channel="mail")]},
            "ada has no address; set email",
        ),
        ({"time_zone": "Europe/Atlantis"}, "no such time zone"),
        ({"recipients": [{"name": "ada", "quiet_hours": [{"start": "25:00"}]}]}, "start"),
        ({"maximum_per_our": 3}, "did you mean 'maximum_per_hour'"),
        ({"recipients": [{"name": "ada", "mail": "x"}]}, "did you mean 'email'"),
        ({"rules": [{"name": "r", "steps": [{"to": ["a"], "escalate_after": 1}]}]}, "did you mean"),
    ],
)
def test_refused_with_the_fix(notifications: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(destinations=[MAIL], notifications=notifications)
    assert said in str(refused.value)


def test_de_identified_destination_is_no_channel() -> None:
    mail = {**MAIL, "deidentify": "basic"}
    notifications = {"recipients": [ADA], "rules": [rule("ada", channel="mail")]}
    with pytest.raises(SettingsError, match="'mail' is de-identified, so nobody could find"):
        load_settings(destinations=[mail], notifications=notifications)


def test_person_on_call_twice_is_one_person() -> None:
    settings = load_settings(
        notifications={
            "recipients": [ADA, {"name": "grace", "user": "hopper"}],
            "groups": [{"name": "neuro", "members": ["ada", "grace"]}],
            "rules": [rule("ada", "neuro")],
        }
    ).notifications
    people = settings.people_of(settings.rules[0].steps[0].to, ManualClock()())
    assert [one.name for one in people] == ["ada", "grace"]
    assert settings.recipient_known_as("hopper") is people[1]
