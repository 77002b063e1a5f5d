"""`triage notifications`: who was told of what, acknowledging it, and trying rules beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from triage.commands.console import out
from triage.commands.store import opened_store, who_option
from triage.settings import load_settings

if TYPE_CHECKING:
    from triage.worklist.notification_preview import Preview


@click.group()
def notifications() -> None:
    """Notifications of critical findings to people."""


@notifications.command("list")
@click.option("--all", "all_of_them", is_flag=True, help="Those that are over, too.")
def list_command(*, all_of_them: bool) -> None:
    """List what waits for an acknowledgement; without names of patients."""
    from triage.worklist.notifications import Reader, list_notifications

    settings = load_settings()
    with opened_store(settings) as store, store.reading() as session:
        found = list_notifications(session, "all" if all_of_them else "open", Reader(None))
    table = Table("number", "priority", "finding", "study", "state", "step", "why, and by whom")
    for one in found.entries:
        said = f"acknowledged by {one.acknowledged_by}" if one.acknowledged_at else one.reason
        row = (str(one.notification_id), one.priority, escape(one.said), one.study_instance_uid)
        table.add_row(*row, one.state.value, str(one.step), escape(said))
    out.print(table)
    if found.total > len(found.entries):
        out.print(f"the first {len(found.entries)} of {found.total}", highlight=False)


@notifications.command("acknowledge")
@click.argument("number", type=click.IntRange(min=1))
@who_option
def acknowledge_command(number: int, *, who: str) -> None:
    """Acknowledge the notification NUMBER, so that it does not escalate."""
    from triage.store.clock import system_clock
    from triage.store.notifications import acknowledge

    with opened_store(load_settings()) as store, store.transaction() as session:
        row = acknowledge(session, number, who=who, via="command", now=system_clock())
        said = f"notification {number} was acknowledged by {row.acknowledged_by}"
    out.print(said, highlight=False)


@notifications.command("preview")
@click.option("--days", type=click.IntRange(1, 366), default=7, show_default=True)
def preview_command(*, days: int) -> None:
    """Show whom the rules would have told of the last days, for each hour; nobody is told."""
    from triage.store.clock import system_clock
    from triage.worklist.notification_preview import preview_notifications

    settings = load_settings()
    with opened_store(settings) as store, store.reading() as session:
        seen = preview_notifications(session, settings.notifications, days=days, now=system_clock())
    _show_preview(seen)


def _show_preview(seen: Preview) -> None:
    total = sum(seen.notifications.values())
    out.print(
        f"{seen.findings} findings of the last {seen.days} days fit a rule: {total} notifications, "
        f"{seen.repeated} found again, {seen.already_read} of studies that were read before",
        highlight=False,
    )
    for rule, count in sorted(seen.notifications.items()):
        out.print(f"  rule {rule}: {count}", highlight=False)
    table = Table("who", "hour (UTC)", "at once", "in a digest")
    for one in seen.hours:
        held = ", ".join(f"{count} ({reason})" for reason, count in one.held.items())
        table.add_row(one.recipient, f"{one.hour:%a %Y-%m-%d %H:00}", str(one.at_once), held)
    out.print(table)
    out.print(f"most in one hour: {seen.most_in_an_hour}", highlight=False)
