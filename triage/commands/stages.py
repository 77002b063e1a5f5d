"""`triage models promote`, `retire`, `rollback` and `resume`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from triage.commands.console import out
from triage.commands.store import opened_store, reason_option, who_option
from triage.settings import load_settings


@click.command()
@click.argument("name")
@click.argument("version")
@click.option("--to", required=True, type=click.Choice(["shadow", "canary", "production"]))
@click.option("--share", type=float, help="Part of the studies a canary answers for; else 0.2.")
@reason_option
@who_option
def promote(
    name: str, version: str, *, to: str, share: float | None, reason: str, who: str
) -> None:
    """Bring VERSION of the model NAME to a stage.

    The version that was in production retires, and `rollback` brings it back.
    """
    from triage.core.stages import Stage
    from triage.models import stages

    decision = stages.Decision(who, datetime.now(UTC), reason)
    with opened_store(load_settings()) as store, store.transaction() as session:
        row = stages.promote(session, name, version, Stage(to), decision, share=share)
        part = f" of {row.share:.0%} of the studies" if row.share else ""
    out.print(f"{name} {version} is in {to}{part}", highlight=False)


@click.command()
@click.argument("name")
@click.argument("version")
@reason_option
@who_option
def retire(name: str, version: str, reason: str, who: str) -> None:
    """Let VERSION of the model NAME be asked no more; what it said stays."""
    from triage.models import stages

    decision = stages.Decision(who, datetime.now(UTC), reason)
    with opened_store(load_settings()) as store, store.transaction() as session:
        stages.retire(session, name, version, decision)
    out.print(f"{name} {version} is retired", highlight=False)


@click.command()
@click.argument("name")
@click.argument("version")
@reason_option
@who_option
def resume(name: str, version: str, reason: str, who: str) -> None:
    """Let the runs of VERSION, parked because it failed too often, go on at once."""
    from triage.models import stages

    decision = stages.Decision(who, datetime.now(UTC), reason)
    with opened_store(load_settings()) as store, store.transaction() as session:
        stages.resume(session, name, version, decision)
    out.print(f"the runs of {name} {version} go on", highlight=False)


@click.command()
@click.argument("name")
@reason_option
@who_option
def rollback(name: str, reason: str, who: str) -> None:
    """Bring back the version of NAME that was in production before the present one."""
    from triage.models import stages

    decision = stages.Decision(who, datetime.now(UTC), reason)
    with opened_store(load_settings()) as store, store.transaction() as session:
        row = stages.rollback(session, name, decision)
        version = row.version
    out.print(f"{name} {version} is in production again", highlight=False)
