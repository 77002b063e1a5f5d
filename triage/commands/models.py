"""`triage models`: from a package to a model that answers, and back."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click
from rich.progress import Progress
from rich.table import Table

from triage.commands.console import out
from triage.commands.trust import approve, keygen, sign
from triage.core.studies import Study
from triage.logs import configure_logs
from triage.settings import load_settings


@click.group()
def models() -> None:
    """Register, try and evaluate model packages."""


models.add_command(keygen)
models.add_command(sign)
models.add_command(approve)


@models.command("register")
@click.argument("package", type=click.Path(exists=True, path_type=Path))
@click.option("--stage", type=click.Choice(["production", "shadow", "retired"]), default="shadow")
def register_model(package: Path, stage: Literal["production", "shadow", "retired"]) -> None:
    """Register PACKAGE, a folder, .zip or .tar.gz; one that is registered keeps its stage."""
    from triage.models.admission import Admission
    from triage.models.registry import register_package
    from triage.store.code_approvals import WAITS_FOR_APPROVAL, waiting_digests
    from triage.store.database import Database

    settings = load_settings()
    store = Database(settings.database_url)
    store.check_schema()
    admitted = Admission(settings).admit(package)
    with store.transaction() as session:
        row = register_package(
            session,
            admitted.package,
            stage=stage,
            now=datetime.now(UTC),
            signed_by=admitted.signed_by,
        )
        signed = f", signed by {row.signed_by}" if row.signed_by else ""
        out.print(f"{row.name} {row.version} is registered as {row.stage}{signed}")
        if row.package_sha256 in waiting_digests(session):
            out.print(f"it is not run yet: {WAITS_FOR_APPROVAL}")
    store.close()


@models.command("list")
def list_models() -> None:
    """Show the registered models."""
    from sqlalchemy import select

    from triage.store.code_approvals import waiting_digests
    from triage.store.database import Database
    from triage.store.model_tables import ModelRow

    store = Database(load_settings().database_url)
    store.check_schema()
    table = Table("model", "version", "stage", "signed by", "title", "notice")
    with store.reading() as session:
        waiting = waiting_digests(session)
        for row in session.scalars(select(ModelRow).order_by(ModelRow.name, ModelRow.version)):
            manifest = row.manifest
            waits = ", waits for approval of its code" if row.package_sha256 in waiting else ""
            table.add_row(
                row.name,
                row.version,
                f"{row.stage}{waits}",
                row.signed_by,
                manifest["title"],
                manifest["notice"],
            )
    store.close()
    out.print(table)


@models.command("try")
@click.argument("model")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    "destination",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that gets findings.json, the DICOM objects and the preview pictures.",
)
def try_model(model: str, folder: Path, destination: Path) -> None:
    """Run MODEL on the DICOM files in FOLDER, outside the queue.

    MODEL is a package's folder, or the name of a model in the registry, "name" or "name/version".
    """
    from triage.trial import try_on_folder

    configure_logs(for_people=True, least=logging.WARNING)
    trial = try_on_folder(model, folder, destination, load_settings())
    for line in trial.lines:
        out.print(line, highlight=False)


@models.command("explain")
@click.argument("model")
@click.argument("study")
def explain(model: str, study: str) -> None:
    """Say for each series of STUDY why MODEL gets it or not, and its score.

    MODEL is as for `try`. STUDY is a folder of DICOM files, or the Study Instance UID of a study
    that was received.
    """
    from triage.core.routing import explained
    from triage.models.registry import package_named
    from triage.models.try_model import read_study

    settings = load_settings()
    package = package_named(model, settings.model_registry)
    if Path(study).is_dir():
        content, priors = read_study(Path(study)), tuple[Study, ...]()
    else:
        content, priors = _received(study)
    for line in explained(content, package.manifest, priors):
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def _received(study_instance_uid: str) -> tuple[Study, tuple[Study, ...]]:
    from triage.store.contents import load_study, priors_of
    from triage.store.database import Database
    from triage.store.studies import find_study

    store = Database(load_settings().database_url)
    store.check_schema()
    try:
        with store.reading() as session:
            row = find_study(session, study_instance_uid)
            if row is None:
                raise click.BadParameter(
                    "is neither a folder nor the Study Instance UID of a study that was received",
                    param_hint="STUDY",
                )
            return load_study(session, row.id), priors_of(session, row.id)
    finally:
        store.close()


@models.command("evaluate")
@click.argument("model")
@click.option(
    "--labels",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A table of labels in the form of NIH ChestX-ray14.",
)
@click.option(
    "--images",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of PNG or DICOM files.",
)
@click.option("--held-out-only", is_flag=True, help="Only patients that training never saw.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write figures."
)
def evaluate(
    model: str, labels: Path, images: Path, *, held_out_only: bool, json_file: Path | None
) -> None:
    """Compare what MODEL says about IMAGES with LABELS: figures with 95 % intervals."""
    from triage.models.evaluate import evaluate_model
    from triage.models.registry import package_named

    settings = load_settings()
    configure_logs(for_people=True, least=logging.WARNING)
    package = package_named(model, settings.model_registry)
    with Progress(console=out, transient=True) as progress:
        task = progress.add_task(package.manifest.identity, total=None)
        figures = evaluate_model(
            package,
            labels,
            images,
            held_out_only=held_out_only,
            worker=settings.worker,
            sandbox=settings.trust.sandbox,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    for name, value in figures.items():
        shown = f"{value:.3f}" if isinstance(value, float) else str(value)
        out.print(f"{name:<44} {shown}", highlight=False)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
