"""`triage policy`: what decides the places on the worklist, and who changed it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from triage.commands.console import out
from triage.commands.store import opened_store, reason_option, who_option
from triage.core.errors import TriageError
from triage.settings import load_settings

if TYPE_CHECKING:
    from triage.core.priority_policy import PriorityPolicy
    from triage.worklist.policy_preview import PolicyPreview

policy_file = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


class PolicyFileError(TriageError):
    """The file of a policy cannot be read; the message says why."""


@click.group()
def policy() -> None:
    """What decides the places on the worklist: show, check, preview, activate, switch off."""


@policy.command()
@click.option("--version", type=click.IntRange(min=0), help="Another than the one that holds.")
def show(*, version: int | None) -> None:
    """Print the policy that holds as TOML, to be edited and activated."""
    from triage.core.priority_policy import policy_as_toml
    from triage.store.policies import policy_in_force, policy_version

    with opened_store(load_settings()) as store, store.reading() as session:
        in_force = policy_in_force(session)
        shown = in_force.policy if version is None else policy_version(session, version)
    if version is None and not in_force.ai_counts:
        off = f"AI prioritization is off, by {in_force.who}: {in_force.reason}"
        click.echo(f"# {' '.join(off.split())}")
    click.echo(policy_as_toml(shown), nl=False)


@policy.command()
@policy_file
def check(file: Path) -> None:
    """Say whether FILE is a policy, or which fields are wrong and how to mend them."""
    found = _read(file)
    out.print(f"{file} is a policy: {found.name}", highlight=False, markup=False)


@policy.command()
@policy_file
@click.option("--days", type=click.IntRange(1, 31), default=7, show_default=True)
def preview(file: Path, *, days: int) -> None:
    """Say what the policy in FILE would have done to the last days."""
    from triage.store.clock import system_clock
    from triage.worklist.policy_preview import preview_policy

    wanted = _read(file)
    with opened_store(load_settings()) as store, store.reading() as session:
        found = preview_policy(session, wanted, system_clock(), days=days)
    _print_preview(found)


@policy.command()
@policy_file
@who_option
@reason_option
def activate(file: Path, *, who: str, reason: str) -> None:
    """Let the policy in FILE hold from now on; the studies on the list follow."""
    from triage.store.clock import system_clock
    from triage.store.policies import activate_policy
    from triage.store.prioritising import rank_all

    wanted = _read(file)
    with opened_store(load_settings()) as store:
        with store.transaction() as session:
            now = activate_policy(session, wanted, who=who, reason=reason, now=system_clock())
        ranked = rank_all(store, system_clock)
    out.print(f"policy {now.version} holds; {ranked} studies ranked anew", highlight=False)


@policy.command()
@click.argument("version", type=click.IntRange(min=0))
@who_option
@reason_option
def rollback(version: int, *, who: str, reason: str) -> None:
    """Let an earlier VERSION hold again; 0 is the shipped policy."""
    from triage.store.clock import system_clock
    from triage.store.policies import roll_back_to
    from triage.store.prioritising import rank_all

    with opened_store(load_settings()) as store:
        with store.transaction() as session:
            roll_back_to(session, version, who=who, reason=reason, now=system_clock())
        ranked = rank_all(store, system_clock)
    out.print(f"policy {version} holds again; {ranked} studies ranked anew", highlight=False)


@policy.command()
def history() -> None:
    """List what was done with the policy, newest first: who, when and why."""
    from triage.worklist.policy_view import policy_history

    with opened_store(load_settings()) as store, store.reading() as session:
        events = policy_history(session)
    table = Table("when", "what", "version", "who", "why")
    for one in events:
        what = f"{one.name} activated" if one.action == "activated" else f"AI {one.action}"
        when = f"{one.at:%Y-%m-%d %H:%M:%S}"
        table.add_row(when, escape(what), str(one.version), escape(one.who), escape(one.reason))
    out.print(table)


@policy.command("switch-off")
@who_option
@reason_option
def switch_off(*, who: str, reason: str) -> None:
    """Let what the AI asks for count no longer: the list is as the orders say, at once."""
    _switch(is_on=False, who=who, reason=reason)
    out.print("AI prioritization is off; findings are still shown", highlight=False)


@policy.command("switch-on")
@who_option
@reason_option
def switch_on(*, who: str, reason: str) -> None:
    """Let what the AI asks for count again, with what it found meanwhile."""
    _switch(is_on=True, who=who, reason=reason)
    out.print("AI prioritization is on", highlight=False)


def _switch(*, is_on: bool, who: str, reason: str) -> None:
    from triage.store.clock import system_clock
    from triage.store.prioritising import rank_all, switch_ai_prioritization

    with opened_store(load_settings()) as store:
        with store.transaction() as session:
            switch_ai_prioritization(
                session, is_on=is_on, who=who, reason=reason, now=system_clock()
            )
        rank_all(store, system_clock)


def _read(file: Path) -> PriorityPolicy:
    from triage.core.priority_policy import policy_from_toml

    try:
        return policy_from_toml(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyFileError(f"{file} cannot be read: {error}") from error


def _print_preview(found: PolicyPreview) -> None:
    for line in (
        f"{found.studies} studies were on the list, {found.readings} were read",
        f"class: {found.higher} more urgent, {found.lower} less urgent",
        f"within the class: {found.forward} forward, {found.back} back",
        f"wait: {found.shorter} shorter (mean {found.mean_shorter:.0f} min), "
        f"{found.longer} longer (mean {found.mean_longer:.0f} min)",
    ):
        out.print(line, highlight=False)
    waits = Table("class now", "studies", "mean wait", "then", "past the target", "then")
    for one in found.waits:
        means = (f"{one.mean_before:.0f} min", f"{one.mean_after:.0f} min")
        late = (str(one.past_target_before), str(one.past_target_after))
        waits.add_row(one.priority.label, str(one.studies), *means, *late)
    out.print(waits)
    affected = Table("most affected", "class", "then", "wait", "then", "its place then")
    for each in found.most_affected:
        affected.add_row(
            each.study_instance_uid,
            each.before.label,
            each.after.label,
            f"{each.wait_before:.0f} min",
            f"{each.wait_after:.0f} min",
            escape(each.in_words),
        )
    out.print(affected)
