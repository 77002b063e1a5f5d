"""The jobs about packages: make one of what was uploaded, and check one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from triage.core.jobs import Checked, CheckedThing, CheckOrder, InitOrder, Scaffolded
from triage.models.archives import ARCHIVE_ENDINGS, only_folder, unpack
from triage.models.bundles import METADATA
from triage.models.packages import MANIFEST_NAME, ModelPackage, PackageError, load_package
from triage.models.placeholders import unfilled
from triage.models.registry import find_package
from triage.models.scaffold import Said, scaffold
from triage.models.shipped import is_shipped
from triage.settings import Settings
from triage.store.code_approvals import is_approved
from triage.store.database import Database
from triage.store.job_files import JobFolder

PACKAGE_FILE = "package.zip"


def scaffold_upload(order: InitOrder, folder: JobFolder, settings: Settings) -> Scaffolded:
    """Make a package of a bundle's archive or a network's file: `package.zip` in the results.

    Nothing in the upload is run.

    Raises:
        TriageError: no package can be made of it.
    """
    folder.tell("reading the upload")
    upload = source = folder.uploads / order.source
    name = order.name or upload.name.partition(".")[0]
    if upload.name.lower().endswith(ARCHIVE_ENDINGS):
        home = _made(folder.work / "bundle")
        unpack(upload, home, maximum_bytes=room(settings))
        source = only_folder(upload, home, METADATA)
    said = Said(name, order.version, order.modality, order.size, order.labels)
    made = scaffold(source, folder.work / "made" / "package", said)
    package = load_package(made)
    manifest = package.manifest
    named = made.rename(made.parent / manifest.name)
    folder.tell("packing")
    packed = folder.out / PACKAGE_FILE
    shutil.make_archive(str(packed.with_suffix("")), "zip", named.parent, named.name)
    left = tuple(unfilled(manifest.model_dump(mode="json")))
    return Scaffolded(model=manifest.identity, left_to_say=left)


def check(order: CheckOrder, folder: JobFolder, settings: Settings) -> Checked:
    """Check a registered version or an uploaded package, with a run on its samples.

    Code that nobody has approved is looked at and not run: whoever reaches the pages may upload
    some, and only an administrator may let it run.

    Raises:
        TriageError: there is no such package.
    """
    from triage.models.check import check_package  # noqa: PLC0415 (what runs models takes a while)

    folder.tell("checking, and running its samples")
    begin = time.perf_counter()
    with _package_of(order, folder, settings) as home:
        report = check_package(
            home,
            settings.worker,
            settings.trust.sandbox,
            may_run=lambda package: _may_run(package, settings),
        )
        try:
            package = load_package(home)
            model, digest = package.manifest.identity, package.sha256
        except PackageError:
            model, digest = order.package or f"{order.model} {order.version}", ""
    return Checked(
        model=model,
        package_sha256=digest,
        is_ok=report.is_ok,
        checks=tuple(
            CheckedThing(name=c.name, verdict=c.verdict.value, text=c.text) for c in report.checks
        ),
        seconds=round(time.perf_counter() - begin, 2),
    )


def room(settings: Settings) -> int:
    """Return how many bytes a job may unpack: the receiver's disk must not become low by it."""
    free = shutil.disk_usage(settings.data_directory).free
    return max(0, free - settings.receiver.warning_free_mb * 1024 * 1024)


@contextmanager
def _package_of(order: CheckOrder, folder: JobFolder, settings: Settings) -> Iterator[Path]:
    if order.package:
        upload, home = folder.uploads / order.package, _made(folder.work / "package")
        unpack(upload, home, maximum_bytes=room(settings))
        yield only_folder(upload, home, MANIFEST_NAME)
        return
    database = Database(settings.database_url)
    try:
        with database.reading() as session:
            package = find_package(session, order.model, order.version)
        yield package.path
    finally:
        database.close()


def _may_run(package: ModelPackage, settings: Settings) -> bool:
    if is_shipped(package):
        return True
    database = Database(settings.database_url)
    try:
        with database.reading() as session:
            return is_approved(session, package.sha256)
    finally:
        database.close()


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path
