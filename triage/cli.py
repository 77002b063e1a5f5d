"""The `triage` command. Thin: it parses, calls and reports.

What a command needs is imported when it runs: `triage --help` must not wait for torch.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.progress import Progress
from rich.table import Table

from triage.commands.console import out
from triage.commands.deliveries import COMMANDS as DELIVERY_COMMANDS
from triage.commands.hl7 import hl7
from triage.commands.models import models
from triage.commands.notifications import notifications
from triage.commands.policy import policy
from triage.commands.results import results
from triage.commands.simulate import simulate
from triage.commands.studies import studies
from triage.commands.users import users
from triage.commands.watch import watch
from triage.core.errors import TriageError
from triage.logs import configure_logs
from triage.prefect_server import prefect_environment
from triage.settings import Settings, load_settings

if TYPE_CHECKING:
    from triage.core.priors import Comparable
    from triage.receiver.retrieve.command import PullCommand


_GARBAGE_THRESHOLDS = (10_000, 20, 20)


class CommandError(click.ClickException):
    """A command could not do its work; the message says why and what to do."""

    def show(self, file: Any = None) -> None:
        """Print every line of the message."""
        del file
        for line in self.message.splitlines():
            click.secho(f"triage: {line}", fg="red", err=True)


class _Commands(click.Group):
    """A group whose commands report what a person can mend as a message, not as a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        from sqlalchemy.exc import OperationalError

        try:
            return super().invoke(ctx)
        except TriageError as error:
            raise CommandError(str(error)) from error
        except OperationalError as error:
            raise CommandError(f"the database cannot be used: {error.orig}") from error


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="triage")
def main() -> None:
    """Reorder the reading worklist by what deep-learning models find in each study."""
    # What a command imports stays: looking for garbage among it took a fifth of a start.
    gc.set_threshold(*_GARBAGE_THRESHOLDS)


@main.command()
def up() -> None:
    """Run all of Triage on this machine until Ctrl-C."""
    from triage.supervisor import up as run_up

    settings = load_settings()
    configure_logs(for_people=True)
    _prepare(settings)
    run_up(settings)


@main.command()
def prepare() -> None:
    """Bring the database to this version and register the models of the registry."""
    _prepare(load_settings())


def _prepare(settings: Settings) -> None:
    """Migrate the database and register what lies in the model registry."""
    from triage.models.admission import Admission
    from triage.models.registry import register_all
    from triage.store.database import Database

    settings.data_directory.mkdir(parents=True, exist_ok=True)
    store = Database(settings.database_url)
    store.migrate()
    with store.transaction() as session:
        problems = register_all(
            session, settings.model_registry, Admission(settings), now=datetime.now(UTC)
        )
    store.close()
    for problem in problems:
        # One broken package must not keep the receiver from starting.
        click.secho(f"triage: {problem}", fg="yellow", err=True)


@main.command()
@click.option("--exit", "exit_when_done", is_flag=True, help="End by itself when all is analysed.")
def demo(*, exit_when_done: bool) -> None:
    """Play a small hospital on simulated studies and show what was read first."""
    from triage.demo import run_demo

    sys.exit(run_demo(exit_when_done=exit_when_done, console=out))


@main.command()
def receive() -> None:
    """Take in studies over DICOM."""
    from triage.receiver.server import run_receiver

    configure_logs()
    run_receiver(load_settings())


@main.command()
@click.argument("remote")
@click.option("--study", default="", help="Study Instance UID of the study.")
@click.option("--accession", default="", help="Accession Number of the studies.")
@click.option("--patient-id", default="", help="Patient ID of the studies.")
@click.option("--priors", type=click.IntRange(0, 50), default=0, help="Fetch so many priors too.")
@click.option(
    "--via",
    type=click.Choice(["dicomweb", "c-get", "c-move"]),
    help="Only this way; by default DICOMweb where it is configured, then C-GET, then C-MOVE.",
)
def pull(
    remote: str, *, study: str, accession: str, patient_id: str, priors: int, via: str | None
) -> None:
    """Fetch studies from REMOTE, an entry of [[remotes]], and let them be analysed.

    All that is given must match. Priors are kept for comparison and are not put on the worklist.
    """
    from triage.receiver.retrieve.archive import StudyQuery
    from triage.receiver.retrieve.command import PullOrder, pulling

    if not (study or accession or patient_id):
        raise click.UsageError("say which: --study, --accession or --patient-id")
    configure_logs(for_people=True, least=logging.ERROR)
    order = PullOrder(remote, StudyQuery(study, accession, patient_id), via, priors)
    with pulling(load_settings(), order) as command:
        outcomes = [_pull_one(command, found) for found in command.find()]
    sys.exit(0 if all(outcomes) else 1)


def _pull_one(command: PullCommand, study: Comparable) -> bool:
    """Pull a study, say what became of it, and return whether all of it is here."""
    with Progress(console=out, transient=True) as progress:
        task = progress.add_task(study.study_instance_uid, total=None)
        pulled = command.pull(
            study, lambda done, total: progress.update(task, completed=done, total=total)
        )
    report = pulled.report
    out.print(f"{report.study_instance_uid}: {report.in_words()}", highlight=False)
    for remark in report.remarks:
        out.print(f"  {remark}", highlight=False)
    for uid, why in report.failed.items():
        out.print(f"  [red]missing[/] {uid}: {why}", highlight=False)
    if pulled.priors is not None:
        out.print(f"  {pulled.priors.said}", highlight=False)
    return pulled.is_whole


@main.command()
def work() -> None:
    """Analyse studies and deliver results, with warm models."""
    settings = load_settings()
    configure_logs()
    os.environ.update(prefect_environment(settings))
    from flows.worker import run_worker  # after the environment: Prefect reads it on import

    run_worker(settings)


@main.command()
def web() -> None:
    """Serve the worklist, the study pages and the API."""
    from triage.web.app import run_web

    configure_logs()
    run_web(load_settings())


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
def doctor(*, as_json: bool) -> None:
    """Check every part, and say what to do about what is wrong."""
    from triage.doctor import examine

    configure_logs()
    checks = list(examine(load_settings()))
    if as_json:
        said = [
            {"name": c.name, "ok": c.is_ok, "warning": c.is_warning, "text": c.text} for c in checks
        ]
        click.echo(json.dumps(said))
    else:
        for check in checks:
            good = "[yellow]look [/]" if check.is_warning else "[green]ok   [/]"
            mark = good if check.is_ok else "[red]wrong[/]"
            out.print(f"{mark} {check.name}: {check.text}", highlight=False)
    sys.exit(0 if all(c.is_ok for c in checks) else 1)


@main.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
def purge(*, dry_run: bool) -> None:
    """Delete the images that the section [retention] says may go."""
    import socket

    from triage.store.clock import system_clock
    from triage.store.database import Database
    from triage.store.files import InstanceFiles
    from triage.store.purge import LeaseTakenError, Purger

    configure_logs(for_people=True, least=logging.WARNING)
    settings = load_settings()
    store = Database(settings.database_url)
    store.check_schema()
    files = InstanceFiles(settings.data_directory)
    holder = f"triage purge@{socket.gethostname()}:{os.getpid()}"
    purger = Purger(store, files, settings.retention, system_clock, holder=holder)
    try:
        studies = purger.plan() if dry_run else purger.go_round().studies
    except LeaseTakenError as error:
        raise CommandError(str(error)) from error
    finally:
        store.close()
    table = Table("study", "size", "reason")
    for study in studies:
        size = f"{study.size_bytes / 1e6:.1f} MB"
        table.add_row(study.study_instance_uid, size, study.reason)
    out.print(table)
    done = "would be deleted" if dry_run else "are deleted"
    out.print(f"images of {len(studies)} studies {done}", highlight=False)


models.add_command(watch)
main.add_command(models)
for command in DELIVERY_COMMANDS:
    results.add_command(command)
main.add_command(results)
main.add_command(hl7)
main.add_command(policy)
main.add_command(notifications)
main.add_command(users)
main.add_command(studies)
main.add_command(simulate)


if __name__ == "__main__":
    main()
