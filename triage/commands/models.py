"""`triage models`: from a package to a model that answers, and back."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.table import Table

from triage.commands.console import out
from triage.commands.evaluation import compare, evaluate
from triage.commands.stages import promote, resume, retire, rollback
from triage.commands.store import opened_store, who_option
from triage.commands.trust import approve, keygen, sign
from triage.core.studies import Study
from triage.logs import configure_logs
from triage.settings import load_settings

_Folder = click.Path(exists=True, file_okay=False, path_type=Path)
_COLOURS = {"ok": "green", "look": "yellow", "wrong": "red"}


@click.group()
def models() -> None:
    """Make, check, register, promote, evaluate and compare models."""


@models.command("init")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out",
    "destination",
    type=click.Path(path_type=Path),
    help="The package's folder; NAME in this folder by default.",
)
@click.option("--name", default="", help="The model's name.")
@click.option("--version", default="", help="Its version, such as 1.0.0.")
@click.option("--modality", default="", help="Modality of the images that it accepts, such as CT.")
@click.option("--size", type=int, help="Rows and columns of the image it takes; not for volumes.")
@click.option("--label", "labels", multiple=True, help="What a channel finds; once for each.")
def init_package(
    source: Path,
    destination: Path | None,
    *,
    name: str,
    version: str,
    modality: str,
    size: int | None,
    labels: tuple[str, ...],
) -> None:
    """Make a package from SOURCE: a MONAI bundle's folder or a network's file.

    The file is TorchScript, torch.export, ONNX or Python. What only you can say is marked.
    """
    from triage.models.scaffold import Said, scaffold

    said = Said(name, version, modality.upper(), size, labels)
    folder = scaffold(source, destination or Path(name or source.stem.lower()), said)
    out.print(f"{folder} is made; next: triage models check {folder}", highlight=False)


@models.command("check")
@click.argument("folder", type=_Folder)
@click.option("--record", is_flag=True, help="Write what it says as what its samples expect.")
def check(folder: Path, *, record: bool) -> None:
    """Check the package in FOLDER and run it on its samples; fails where something is wrong."""
    from triage.models.check import check_package
    from triage.models.package_samples import record_expectations

    configure_logs(for_people=True, least=logging.ERROR)
    settings = load_settings()
    report = check_package(folder, settings.worker, settings.trust.sandbox)
    for one in report.checks:
        mark = f"[{_COLOURS[one.verdict]}]{one.verdict:<5}[/]"
        out.print(f"{mark} {one.name}: ", end="")
        out.print(one.text, highlight=False, markup=False)
    if record and report.said:
        path = record_expectations(folder, report.said)
        out.print(f"{path} is written; read it before you rely on it", highlight=False)
    sys.exit(0 if report.is_ok else 1)


models.add_command(keygen)
models.add_command(sign)
models.add_command(approve)


@models.command("register")
@click.argument("package", type=click.Path(exists=True, path_type=Path))
@click.option("--reason", default="", help="Why; it stays in the history.")
@who_option
def register(package: Path, reason: str, who: str) -> None:
    """Register PACKAGE, a folder or an archive, as a shadow.

    One that is registered keeps its stage.
    """
    from triage.models.registration import register_at
    from triage.store.code_approvals import WAITS_FOR_APPROVAL, waiting_digests

    settings = load_settings()
    with opened_store(settings) as store:
        row = register_at(store, package, settings, who=who, reason=reason, now=datetime.now(UTC))
        with store.reading() as session:
            waits = row.package_sha256 in waiting_digests(session)
    signed = f", signed by {row.signed_by}" if row.signed_by else ""
    out.print(f"{row.name} {row.version} is registered as {row.stage}{signed}", highlight=False)
    if waits:
        out.print(f"it is not run yet: {WAITS_FOR_APPROVAL}", highlight=False)


@models.command("list")
def list_models() -> None:
    """Show the registered models."""
    from triage.models.overview import list_models

    table = Table(
        "model", "version", "stage", "signed by", "runs of the last day", "title", "notice"
    )
    with opened_store(load_settings()) as store, store.reading() as session:
        for one in list_models(session, datetime.now(UTC)):
            stage = f"{one.stage} {one.share:.0%}" if one.share else str(one.stage)
            waits = ", waits for approval of its code" if one.waits_for_approval else ""
            runs = ", ".join(
                f"{count} {state}" for state, count in one.health.runs.items() if count
            )
            table.add_row(
                one.name, one.version, stage + waits, one.signed_by, runs, one.title, one.notice
            )
    out.print(table)


@models.command("show")
@click.argument("name")
@click.argument("version", required=False)
def show(name: str, version: str | None) -> None:
    """Show what the model NAME is, how it does, and who did what with it."""
    from triage.models.overview import show_model
    from triage.models.stages import version_of

    with opened_store(load_settings()) as store, store.reading() as session:
        if version is not None:
            version_of(session, name, version)
        model = show_model(session, name, datetime.now(UTC))
    out.print(f"{model.title} ({name})", highlight=False)
    for one in model.versions:
        if version in (None, one.version):
            _show_version(one.version, str(one.stage), one.notice, model.in_words[one.version])
            problems = [
                one.health.parked_reason if one.health.is_parked else "",
                *one.health.alerts,
            ]
            for problem in filter(None, problems):
                out.print(f"  wrong: {problem}", highlight=False, markup=False)
    for evaluation in model.evaluations:
        if version in (None, evaluation.version):
            when = f"{evaluation.at:%Y-%m-%d}"
            text = (
                f"evaluated {when} on {evaluation.labels_name}: {_main_figures(evaluation.figures)}"
            )
            out.print(f"{evaluation.version}: {text}", highlight=False, markup=False)
    table = Table("when", "version", "who", "what", "from", "to", "why")
    for event in model.events:
        if version in (None, event.version):
            to = f"{event.to_stage} {event.share:.0%}" if event.share else event.to_stage
            at = f"{event.at.astimezone():%Y-%m-%d %H:%M}"
            table.add_row(
                at, event.version, event.who, event.action, event.from_stage, to, event.reason
            )
    out.print(table)


def _show_version(version: str, stage: str, notice: str, sentences: tuple[str, ...]) -> None:
    for sentence in (f"{version}: {stage}. {notice}", *(f"  {line}" for line in sentences)):
        out.print(sentence, highlight=False, markup=False)


def _main_figures(figures: dict[str, object]) -> str:
    wanted = (".auc", ".sensitivity", ".specificity")
    main = [
        f"{k} {v:.3f}" for k, v in figures.items() if k.endswith(wanted) and isinstance(v, float)
    ]
    return ", ".join(main) or "no figures"


@models.command("try")
@click.argument("model")
@click.argument("study")
@click.option(
    "--out",
    "destination",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that gets findings.json, the DICOM objects and the preview pictures.",
)
def try_model(model: str, study: str, destination: Path) -> None:
    """Run MODEL on STUDY, outside the queue: nothing of it reaches worklist or archive.

    MODEL is a package's folder, or the name of a model in the registry, "name" or "name/version".
    STUDY is a folder of DICOM files, or the Study Instance UID of a study that Triage holds.
    """
    from triage.commands.packages import held_by_triage, package_meant
    from triage.models.try_model import read_study
    from triage.trial import try_on_study

    configure_logs(for_people=True, least=logging.WARNING)
    settings = load_settings()
    package = package_meant(model, settings)
    path = Path(study)
    content = read_study(path) if path.exists() else held_by_triage(study, settings)
    for line in try_on_study(package, content, destination, settings).lines:
        out.print(line, highlight=False)


@models.command("explain")
@click.argument("model")
@click.argument("study")
def explain(model: str, study: str) -> None:
    """Say for each series of STUDY why MODEL gets it or not, and its score.

    MODEL is as for `try`. STUDY is a folder of DICOM files, or the Study Instance UID of a study
    that was received.
    """
    from triage.commands.packages import package_meant
    from triage.core.routing import explained
    from triage.models.try_model import read_study

    package = package_meant(model, load_settings())
    if Path(study).is_dir():
        content, priors = read_study(Path(study)), tuple[Study, ...]()
    else:
        content, priors = _received(study)
    for line in explained(content, package.manifest, priors):
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def _received(study_instance_uid: str) -> tuple[Study, tuple[Study, ...]]:
    from triage.store.contents import load_study, priors_of
    from triage.store.studies import find_study

    with opened_store(load_settings()) as store, store.reading() as session:
        row = find_study(session, study_instance_uid)
        if row is None:
            raise click.BadParameter(
                "is neither a folder nor the Study Instance UID of a study that was received",
                param_hint="STUDY",
            )
        return load_study(session, row.id), priors_of(session, row.id)


@models.command("job", hidden=True)
@click.argument("folder", type=_Folder)
def job(folder: Path) -> None:
    """Do what the order in FOLDER says; a worker starts this for what was asked on a page."""
    from triage.jobs import carry_out, give_way
    from triage.models.lifeline import end_with
    from triage.store.job_files import JobFolder

    settings = load_settings()
    give_way(settings.jobs.niceness)
    if not sys.stdin.isatty():
        end_with(sys.stdin.fileno())  # the worker's end of this pipe closes when it dies
    configure_logs(for_people=True, least=logging.ERROR)
    carry_out(JobFolder(folder), settings)


for command in (promote, retire, rollback, resume, evaluate, compare):
    models.add_command(command)
