"""`triage results`: what was sent to archives, and taking it back."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from triage.commands.console import out
from triage.commands.store import opened_store, who_option
from triage.core.withdrawals import PERSONAL_REASONS, WithdrawalReason, rejection_for
from triage.settings import load_settings

_REASONS = "; ".join(f"{r.value}: {rejection_for(r).words}" for r in PERSONAL_REASONS)


@click.group()
def results() -> None:
    """Look after the results of analyses."""


@results.command("withdraw")
@click.argument("run", type=click.IntRange(min=1))
@click.option(
    "--reason",
    required=True,
    type=click.Choice([reason.value for reason in PERSONAL_REASONS]),
    help=f"Why. {_REASONS}.",
)
@click.option("--text", default="", help="What else there is to say; no patient data.")
@who_option
def withdraw(run: int, *, reason: str, text: str, who: str) -> None:
    """Take back the result of the analysis run RUN, whose number the study page shows.

    It no longer counts on the worklist, and every archive that has it is sent a rejection note.
    """
    from triage.store.withdrawals import record_withdrawal

    with opened_store(load_settings()) as store, store.transaction() as session:
        withdrawal = record_withdrawal(
            session,
            run,
            who=who,
            reason=WithdrawalReason(reason),
            text=text,
            now=datetime.now(UTC),
        )
    out.print(f"run {run}: {withdrawal.in_words()}", highlight=False)
