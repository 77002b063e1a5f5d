"""The jobs that run a registered version: on one study, and on a labelled set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from triage.core.analysis import InputRefusedError
from triage.core.jobs import Evaluated, EvaluateOrder, Tried, TriedFinding, TryOrder
from triage.core.studies import Study
from triage.jobs.packages import room
from triage.models.archives import unpack
from triage.models.held import held_study
from triage.models.packages import ModelPackage
from triage.models.registry import find_package
from triage.models.try_model import read_study
from triage.settings import Settings
from triage.store.code_approvals import check_code_approved
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.job_files import JobFolder
from triage.store.model_tables import ModelRow
from triage.trial import try_on_study


def try_version(order: TryOrder, folder: JobFolder, settings: Settings) -> Tried:
    """Run a version on a study, outside the queue: findings, objects and pictures are results.

    Raises:
        TriageError: the study is not there, or the model does not take it, or failed.
    """
    folder.tell("reading the study")
    with _opened(settings) as database:
        package = _runnable(database, order.model, order.version)
        if order.images:
            study = read_study(_unpacked(order.images, folder, settings))
        else:
            study = _held(database, order.study_instance_uid, settings)
        folder.tell("running the model")
        trial = try_on_study(package, study, folder.out, settings)
    manifest, analysis = package.manifest, trial.analysis
    names = [path.name for path in folder.results()]
    return Tried(
        model=manifest.identity,
        notice=manifest.notice,
        findings=tuple(
            TriedFinding(
                key=one.key, present=one.present, confidence=one.confidence, text=one.in_words()
            )
            for one in analysis.findings
        ),
        remarks=tuple(analysis.remarks),
        timings_s=dict(analysis.timings_s),
        pictures=tuple(name for name in names if name.endswith(".png")),
        objects=tuple(name for name in names if name.endswith(".dcm")),
    )


def evaluate(order: EvaluateOrder, folder: JobFolder, settings: Settings) -> Evaluated:
    """Run a version on labelled cases and compare: the figures, and the report's files.

    Raises:
        TriageError: labels and images do not fit together, or the model failed.
    """
    # SciPy's statistics take a second, which trying a model need not wait for.
    from triage.models.evaluate import evaluate_model  # noqa: PLC0415
    from triage.models.evaluation_report import write_report  # noqa: PLC0415

    folder.tell("reading labels and images")
    with _opened(settings) as database:
        package = _runnable(database, order.model, order.version)
        images = _unpacked(order.images, folder, settings) if order.images else None
        figures = evaluate_model(
            package,
            folder.uploads / order.labels,
            images,
            held_study=lambda uid: _find(database, uid, settings) if images is None else None,
            held_out_only=order.held_out_only,
            worker=settings.worker,
            sandbox=settings.trust.sandbox,
            on_progress=lambda done, of: folder.tell(f"{done} of {of} cases"),
        )
    folder.tell("drawing the curves")
    write_report(figures, folder.out, order.labels_name)
    return Evaluated(model=package.manifest.identity, figures=figures)


@contextmanager
def _opened(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_url)
    try:
        yield database
    finally:
        database.close()


def _runnable(database: Database, name: str, version: str) -> ModelPackage:
    with database.reading() as session:
        row = session.query(ModelRow).filter_by(name=name, version=version).one_or_none()
        if row is not None:
            check_code_approved(session, row)
        return find_package(session, name, version)


def _unpacked(archive: str, folder: JobFolder, settings: Settings) -> Path:
    home = folder.work / "images"
    home.mkdir(parents=True)
    unpack(folder.uploads / archive, home, maximum_bytes=room(settings))
    return home


def _held(database: Database, study_instance_uid: str, settings: Settings) -> Study:
    study = _find(database, study_instance_uid, settings)
    if study is None:
        raise InputRefusedError(
            f"Triage holds no images of the study {study_instance_uid}; they may have been deleted"
        )
    return study


def _find(database: Database, study_instance_uid: str, settings: Settings) -> Study | None:
    with database.reading() as session:
        return held_study(session, InstanceFiles(settings.data_directory), study_instance_uid)
