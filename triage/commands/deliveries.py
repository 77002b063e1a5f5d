"""`triage results destinations`, `pause`, `resend` and others: what has not arrived, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from triage.commands.console import out
from triage.commands.store import opened_store, reason_option, who_option
from triage.core.errors import TriageError
from triage.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from triage.store.delivery_decisions import Decision


class UnknownDestinationError(TriageError):
    """There is no such destination; the message lists those that there are."""


@click.command()
def destinations() -> None:
    """List the destinations, what waits for each, and which are paused."""
    from triage.worklist.deliveries import list_destinations

    settings = load_settings()
    with opened_store(settings) as store, store.reading() as session:
        rows = list_destinations(session, settings.destinations)
    table = Table("destination", "kind", "state", "waiting", "dead", "delivered", "last")
    for one in rows:
        state = "sending" if one.kind else "not configured any more"
        if one.pause:
            state = f"paused by {one.pause.who}: {one.pause.reason}"
        last = f"{one.last_delivered_at:%Y-%m-%d %H:%M:%S}" if one.last_delivered_at else "–"
        counts = (one.waiting + one.sending, one.dead, one.delivered)
        table.add_row(one.name, one.kind or "–", escape(state), *map(str, counts), last)
    out.print(table)


@click.command()
@click.option("--destination", default="", help="Only what is for this one.")
@click.option("--all", "all_of_them", is_flag=True, help="What has arrived, too.")
def deliveries(*, destination: str, all_of_them: bool) -> None:
    """List what has not arrived, dead letters first, with why and the next step."""
    from triage.worklist.deliveries import NOT_ARRIVED, DeliveryQuery, list_deliveries

    settings = load_settings()
    query = DeliveryQuery(destination=destination, states=() if all_of_them else NOT_ARRIVED)
    with opened_store(settings) as store, store.reading() as session:
        found = list_deliveries(session, query, settings.destinations)
    table = Table("number", "what", "destination", "state", "attempts", "why, and the next step")
    for one in found.entries:
        each = one.delivery
        said = "\n".join(filter(None, (each.last_error, one.next_step)))
        row = (str(each.delivery_id), each.what, each.destination, each.state, str(each.attempts))
        table.add_row(*row, escape(said))
    out.print(table)
    if found.total > len(found.entries):
        out.print(f"the first {len(found.entries)} of {found.total}", highlight=False)


@click.command()
@click.argument("destination")
@who_option
@reason_option
def pause(destination: str, *, who: str, reason: str) -> None:
    """Send nothing to DESTINATION until it is resumed; what is queued waits."""
    from triage.store import delivery_decisions

    settings = load_settings()
    with opened_store(settings) as store, store.transaction() as session:
        _require(session, destination, settings)
        delivery_decisions.pause(session, destination, _decision(who, reason))
    out.print(f"{destination} is paused; what is on its way arrives", highlight=False)


@click.command()
@click.argument("destination")
@who_option
def resume(destination: str, *, who: str) -> None:
    """Let what waits for DESTINATION go on."""
    from triage.store import delivery_decisions

    settings = load_settings()
    with opened_store(settings) as store, store.transaction() as session:
        _require(session, destination, settings)
        delivery_decisions.resume(session, destination, _decision(who))
    out.print(f"{destination} is sent to again", highlight=False)


@click.command()
@click.argument("number", type=int, required=False)
@click.option("--destination", default="", help="All dead letters of this one instead.")
@who_option
def resend(number: int | None, *, destination: str, who: str) -> None:
    """Give the dead delivery NUMBER, or all of a destination, another round of attempts."""
    from triage.store import delivery_decisions

    _require_one_of(number, destination)
    settings = load_settings()
    with opened_store(settings) as store, store.transaction() as session:
        if number is not None:
            delivery_decisions.resend(session, number, _decision(who))
            count = 1
        else:
            _require(session, destination, settings)
            count = delivery_decisions.resend_all(session, destination, _decision(who))
    out.print(f"{count} sent again", highlight=False)


@click.command("give-up")
@click.argument("number", type=int, required=False)
@click.option("--destination", default="", help="All dead letters of this one instead.")
@who_option
@reason_option
def give_up(number: int | None, *, destination: str, who: str, reason: str) -> None:
    """Decide that the dead delivery NUMBER, or all of a destination, need not arrive."""
    from triage.store import delivery_decisions

    _require_one_of(number, destination)
    settings = load_settings()
    with opened_store(settings) as store, store.transaction() as session:
        decision = _decision(who, reason)
        if number is not None:
            delivery_decisions.give_up(session, number, decision)
            count = 1
        else:
            _require(session, destination, settings)
            count = delivery_decisions.give_up_all(session, destination, decision)
    out.print(f"{count} given up", highlight=False)


def _decision(who: str, reason: str = "") -> Decision:
    from triage.store.clock import system_clock
    from triage.store.delivery_decisions import Decision

    return Decision(who, system_clock(), reason)


def _require_one_of(number: int | None, destination: str) -> None:
    if (number is None) == (not destination):
        raise click.UsageError(
            "say which: NUMBER (see `triage results deliveries`) or --destination"
        )


def _require(session: Session, destination: str, settings: Settings) -> None:
    from triage.worklist.deliveries import knows_destination

    if not knows_destination(session, destination, settings.destinations):
        known = ", ".join(one.name for one in settings.destinations) or "none is configured"
        raise UnknownDestinationError(f"there is no destination {destination!r} (known: {known})")


COMMANDS = (destinations, deliveries, pause, resume, resend, give_up)
"""What `triage results` has of this module."""
