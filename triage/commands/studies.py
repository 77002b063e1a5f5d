"""`triage studies`: where a study is, its whole life, and what a person does about it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from triage.commands.console import out
from triage.commands.store import opened_store, reason_option, who_option
from triage.core.errors import TriageError
from triage.settings import load_settings

if TYPE_CHECKING:
    from triage.store.delivery_decisions import Decision


class UnknownStudyError(TriageError):
    """Triage has never held such a study."""


@click.group()
def studies() -> None:
    """Find a study, see its whole life, and act on its analysis."""


@studies.command()
@click.argument("text", default="")
@click.option("--accession", "accession_number", default="", help="Accession number.")
@click.option("--patient-id", default="", help="Patient ID.")
@click.option("--name", "patient_name", default="", help="Name, or how its parts begin.")
@click.option("--date", "study_date", type=click.DateTime(["%Y-%m-%d"]), help="Study date.")
@click.option("--sender", default="", help="AE title that sent any of it.")
def find(
    text: str,
    *,
    accession_number: str,
    patient_id: str,
    patient_name: str,
    study_date: datetime | None,
    sender: str,
) -> None:
    """Find studies by TEXT, which is any of accession number, Patient ID, name or UID."""
    from triage.store.clock import system_clock
    from triage.worklist.study_search import StudySearch, find_studies

    asked = StudySearch(
        text=text,
        accession_number=accession_number,
        patient_id=patient_id,
        patient_name=patient_name,
        study_date=study_date.date() if study_date else None,
        sender=sender,
    )
    if asked.is_empty:
        raise click.UsageError("say what is known of the study: TEXT, or one of the options")
    with opened_store(load_settings()) as store, store.reading() as session:
        found = find_studies(session, asked, system_clock())
    table = Table("study", "patient", "accession", "date", "where it is")
    for one in found.studies:
        patient = f"{one.patient_name}\n{one.patient_id}"
        where = "\n".join(filter(None, (one.where.now, one.where.to_do)))
        row = (patient, one.accession_number, one.study_date, where)
        table.add_row(one.study_instance_uid, *map(escape, row))
    out.print(table)
    for expected in found.expected:
        number = f"accession {expected.accession_number}" if expected.accession_number else "one"
        out.print(f"{escape(number)}: {escape(expected.said)}", highlight=False)
    if found.is_cut_off:
        out.print("there are more: say more of the study", highlight=False)


@studies.command()
@click.argument("study")
def history(study: str) -> None:
    """Tell the whole life of STUDY, a Study Instance UID, and where it is now."""
    from triage.store.clock import system_clock
    from triage.worklist.lifeline import study_life
    from triage.worklist.wording import duration

    with opened_store(load_settings()) as store, store.reading() as session:
        life = study_life(session, study, system_clock())
    if life is None:
        raise UnknownStudyError(f"Triage has never held study {study}")
    table = Table("when", "took", "what", "in words")
    for event in life.events:
        took = duration((event.until - event.at).total_seconds()) if event.until else ""
        when = f"{event.at.astimezone():%Y-%m-%d %H:%M:%S}"
        table.add_row(when, took, event.kind, escape(event.text))
    out.print(table)
    for label, said in (
        ("now", life.where.now),
        ("next", life.where.next),
        ("to do", life.where.to_do),
    ):
        if said:
            out.print(f"{label}: {escape(said)}", highlight=False)


@studies.command()
@click.argument("study")
@click.option("--model", default="", help="Only this one, by its name; else all that want it.")
@who_option
@reason_option
def rerun(study: str, *, model: str, who: str, reason: str) -> None:
    """Let models analyse STUDY, a Study Instance UID, again; its flag stands meanwhile."""
    from triage.store import study_actions

    with opened_store(load_settings()) as store, store.transaction() as session:
        done = study_actions.rerun(session, study, _decision(who, reason), model)
    for name in done.queued:
        out.print(f"{escape(name)} is queued again", highlight=False)
    for said in done.refused:
        out.print(f"not again: {escape(said)}", highlight=False)


@studies.command()
@click.argument("run", type=click.IntRange(min=1))
@who_option
@reason_option
def cancel(run: int, *, who: str, reason: str) -> None:
    """End the pending or running RUN, by its number, for good."""
    from triage.store import study_actions

    with opened_store(load_settings()) as store, store.transaction() as session:
        study_actions.cancel_run(session, run, _decision(who, reason))
    out.print(f"run {run} is cancelled", highlight=False)


@studies.command()
@click.argument("study")
@who_option
@reason_option
def complete(study: str, *, who: str, reason: str) -> None:
    """Let STUDY, a Study Instance UID, be complete with the images that are here."""
    from triage.store import study_actions

    with opened_store(load_settings()) as store, store.transaction() as session:
        study_actions.complete_now(session, study, _decision(who, reason))
    out.print("the study is complete, and its models are asked", highlight=False)


def _decision(who: str, reason: str) -> Decision:
    from triage.store.clock import system_clock
    from triage.store.delivery_decisions import Decision

    return Decision(who, system_clock(), reason)
