"""`triage models evaluate` and `triage models compare`."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import Progress
from rich.table import Table

from triage.commands.console import out
from triage.commands.store import opened_store, who_option
from triage.logs import configure_logs
from triage.settings import Settings, load_settings

if TYPE_CHECKING:
    from triage.models.packages import ModelPackage

_File = click.Path(exists=True, dir_okay=False, path_type=Path)
_Folder = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("model")
@click.option(
    "--labels",
    required=True,
    type=_File,
    help="A table: study_instance_uid, study or image, and a column of 0 and 1 for each finding; "
    "or one in the form of NIH ChestX-ray14.",
)
@click.option("--images", type=_Folder, help="Their files; without it studies that Triage holds.")
@click.option("--held-out-only", is_flag=True, help="Only patients that training never saw.")
@click.option(
    "--out",
    "destination",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that gets report.md, figures.json and the ROC curves.",
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write figures."
)
@who_option
def evaluate(
    model: str,
    labels: Path,
    images: Path | None,
    *,
    held_out_only: bool,
    destination: Path | None,
    json_file: Path | None,
    who: str,
) -> None:
    """Compare what MODEL says with LABELS: figures with 95 % intervals.

    Those of a registered model are kept, and shown on its page.
    """
    from triage.commands.packages import package_meant
    from triage.models.evaluate import evaluate_model
    from triage.models.evaluation_report import write_report

    settings = load_settings()
    configure_logs(for_people=True, least=logging.WARNING)
    package = package_meant(model, settings)
    with Progress(console=out, transient=True) as progress:
        task = progress.add_task(package.manifest.identity, total=None)
        figures = evaluate_model(
            package,
            labels,
            images,
            held_study=lambda uid: _held(uid, settings) if images is None else None,
            held_out_only=held_out_only,
            worker=settings.worker,
            sandbox=settings.trust.sandbox,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    for name, value in figures.items():
        if not isinstance(value, (list, dict)):
            shown = f"{value:.3f}" if isinstance(value, float) else str(value)
            out.print(f"{name:<44} {shown}", highlight=False)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if destination is not None:
        for path in write_report(figures, destination, labels.name):
            out.print(f"written: {path}", highlight=False)
    out.print(_keep(figures, package, settings, labels_name=labels.name, who=who), highlight=False)


def _held(study_instance_uid: str, settings: Settings) -> Any:
    from triage.models.held import held_study
    from triage.store.files import InstanceFiles

    with opened_store(settings) as store, store.reading() as session:
        return held_study(session, InstanceFiles(settings.data_directory), study_instance_uid)


def _keep(
    figures: dict[str, Any],
    package: ModelPackage,
    settings: Settings,
    *,
    labels_name: str,
    who: str,
) -> str:
    """Keep the figures of a registered model; return in words what became of them."""
    from triage.models.overview import add_evaluation, registered_with
    from triage.store.database import DatabaseError

    try:
        with opened_store(settings) as store, store.transaction() as session:
            row = registered_with(session, package.manifest.name, package.sha256)
            if row is None:
                return "not kept: this package is not registered"
            now = datetime.now(UTC)
            add_evaluation(session, row, figures, labels_name=labels_name, who=who, at=now)
            return f"kept with {row.name} {row.version}"
    except DatabaseError as error:
        return f"not kept: {error}"


@click.command()
@click.argument("name")
@click.argument("version_a")
@click.argument("version_b")
@click.option("--studies", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="Only studies from this day on.")
@click.option("--labels", type=_File, help="A table of labels, for who is right.")
@click.option("--recorded", is_flag=True, help="Only from recorded runs; run nothing.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def compare(
    name: str,
    version_a: str,
    version_b: str,
    *,
    studies: int,
    since: datetime | None,
    labels: Path | None,
    recorded: bool,
    json_file: Path | None,
) -> None:
    """Compare two versions of the model NAME on the newest studies that Triage holds.

    What was recorded is used; what was not is run now, outside the queue.
    """
    from triage.models.compare import recorded_comparison
    from triage.models.compare_now import compare_now, truth_of

    configure_logs(for_people=True, least=logging.ERROR)
    settings = load_settings()
    from_when = since.replace(tzinfo=UTC) if since else None
    with opened_store(settings) as store:
        truth = truth_of(store, labels, name, version_b) if labels else None
        if recorded:
            with store.reading() as session:
                comparison = recorded_comparison(
                    session, name, version_a, version_b, most=studies, since=from_when, labels=truth
                )
        else:
            with Progress(console=out, transient=True) as progress:
                task = progress.add_task(f"{name} {version_a}, {version_b}", total=None)
                comparison = compare_now(
                    store,
                    settings,
                    (name, version_a, version_b),
                    most=studies,
                    since=from_when,
                    labels=truth,
                    on_progress=lambda at, of: progress.update(task, completed=at, total=of),
                )
    table = Table("study", "finding", version_a, version_b, "label")
    for one in comparison.differences:
        label = "" if one.label is None else "present" if one.label else "absent"
        changed = "[yellow]" if one.is_changed else ""
        table.add_row(
            f"{changed}{one.study_instance_uid}", one.key, one.a.in_words, one.b.in_words, label
        )
    out.print(table)
    for each in comparison.agreements:
        out.print(each.said(version_a, version_b), highlight=False, markup=False)
    out.print(f"{comparison.studies} studies", highlight=False)
    if json_file is not None:
        json_file.write_text(comparison.model_dump_json(indent=2) + "\n", encoding="utf-8")
