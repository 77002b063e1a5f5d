"""The priority policy, the notifications and the simulations, over the API."""

from __future__ import annotations

from typing import Any, Literal

from triage.client import models
from triage.client.connection import Connection
from triage.client.operations import operation

_PAGE = 200
Policy = models.PriorityPolicy | dict[str, Any] | str
"""A policy: as JSON says it, or the text of a TOML document."""


class RuleOperations(Connection):
    """By which rules studies are ordered and persons are told."""

    # The priority policy

    @operation("GET", "/policy")
    def policy(self) -> models.PolicyView:
        """Give the policy that holds."""

    @operation("GET", "/policy/history")
    def policy_history(self, *, limit: int = 100) -> list[models.PolicyEventView]:
        """Give what was done with the policy, newest first: who, why, and what changed."""

    @operation("POST", "/policy/check")
    def check_policy(self, *, policy: Policy) -> models.PriorityPolicy:
        """Check a policy without keeping it, and give it with every field."""

    @operation("POST", "/policy/preview", in_query=("days",))
    def preview_policy(self, *, policy: Policy, days: int = 7) -> models.PolicyPreview:
        """Say what a policy would have done to the last days, compared with the one that holds."""

    @operation("PUT", "/policy")
    def put_policy(self, *, policy: Policy, reason: str, who: str = "") -> models.PolicyView:
        """Let a policy hold from now on; the studies on the list follow."""

    @operation("POST", "/policy/rollback")
    def roll_back_policy(self, *, version: int, reason: str, who: str = "") -> models.PolicyView:
        """Let an earlier version hold again; 0 is the shipped policy."""

    @operation("POST", "/policy/switch")
    def switch_ai(self, *, is_on: bool, reason: str, who: str = "") -> models.PolicyView:
        """Let what the AI asks for count, or no longer count; findings are shown all the same."""

    # Notifications

    @operation("GET", "/notifications")
    def notifications(
        self,
        *,
        show: Literal["mine", "open", "all"] = "open",
        limit: int = _PAGE,
        offset: int = 0,
    ) -> models.Notifications:
        """Give notifications: open ones first, then the newest."""

    @operation("GET", "/notifications/{number}")
    def notification(self, number: int) -> models.NotificationDetail:
        """Give one with its messages and its time line."""

    @operation("POST", "/notifications/{number}/acknowledge")
    def acknowledge(self, number: int, *, who: str = "") -> models.Acknowledged:
        """Acknowledge; the first who does so is named to all who come later."""

    @operation("GET", "/notifications/bell")
    def bell(self) -> models.Bell:
        """Give what waits for the acknowledgement of the person."""

    @operation("POST", "/notifications/snooze")
    def snooze(self, *, minutes: int, recipient: str = "") -> models.Snoozed:
        """Leave a person in peace for a while; 0 minutes ends it."""

    @operation("GET", "/notifications/figures")
    def notification_figures(self, *, days: int = 30) -> models.Figures:
        """Give how long people took, and how many were escalated and suppressed."""

    @operation("GET", "/notifications/preview")
    def preview_notifications(self, *, days: int = 7) -> models.Preview:
        """Give what the rules would have told of the last days, for each person and hour."""

    # Simulations

    @operation("POST", "/simulations")
    def simulate(
        self,
        *,
        scenario: models.Scenario | dict[str, Any] | None = None,
        seed: int = 1,
    ) -> models.WaitComparison:
        """Play a reading room with and without the AI."""

    @operation("GET", "/simulations/history")
    def simulation_history(self, *, days: int = 30, readers: int | None = None) -> models.FitView:
        """Give the scenario that the last days come to, and what was assumed."""
