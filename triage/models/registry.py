"""The registry: which model versions this installation knows, and in which stage each is."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.stages import Stage
from triage.models.admission import Admission
from triage.models.code import code_in
from triage.models.packages import MANIFEST_NAME, ModelPackage, PackageError, load_package
from triage.models.shipped import APPROVED_BECAUSE, APPROVED_BY, is_shipped
from triage.store.code_approvals import approve_code, ask_for_approval
from triage.store.model_events import record_event
from triage.store.model_tables import ModelRow

REGISTERED = "registered"
BY_PREPARE = "triage prepare"


def register_package(
    session: Session,
    package: ModelPackage,
    *,
    stage: Stage | None = None,
    who: str = BY_PREPARE,
    reason: str = "",
    now: datetime,
    replace: bool = False,
    signed_by: str = "",
) -> ModelRow:
    """Register `package`, or find it registered already; a second call changes nothing.

    A new version begins in `stage`, or as a shadow; a registered one keeps the stage that an
    administrator gave it. `replace` lets the content of a version change, for development only:
    the runs of the old content would no longer say which model they came from. `signed_by` is
    whose signature the package bears.

    A package with code waits for an administrator's approval, unless it was shipped with Triage.

    Raises:
        PackageError: the same name and version is registered with other content.
    """
    manifest = package.manifest
    row = session.scalar(
        select(ModelRow).where(ModelRow.name == manifest.name, ModelRow.version == manifest.version)
    )
    is_new = row is None
    if row is None:
        row = ModelRow(
            name=manifest.name,
            version=manifest.version,
            stage=stage or Stage.SHADOW,
            registered_at=now,
        )
        session.add(row)
    elif row.package_sha256 != package.sha256 and not replace:
        raise PackageError(
            f"{package.path / MANIFEST_NAME}: version: {manifest.identity} is registered with "
            "other content, and a registered version never changes; raise the version"
        )
    row.manifest = manifest.model_dump(mode="json")
    row.package_path = str(package.path)
    row.package_sha256 = package.sha256
    row.signed_by = signed_by or row.signed_by
    session.flush()
    if is_new:
        record_event(session, row, REGISTERED, who=who, at=now, reason=reason, after=row.stage)
    if code_in(package):
        ask_for_approval(session, package.sha256, now=now)
    if is_shipped(package):
        approve_code(session, package.sha256, who=APPROVED_BY, reason=APPROVED_BECAUSE, now=now)
    return row


def register_all(
    session: Session,
    registry_folder: Path,
    admission: Admission,
    now: datetime,
    *,
    replace: bool = False,
) -> tuple[str, ...]:
    """Register every package `NAME/VERSION/` below `registry_folder`; return what is wrong.

    At the first start the newest version of each model goes to production, and the older ones are
    there to go back to. A version that comes later begins as a shadow. A broken package is
    reported with its reason and does not keep the others out.
    """
    known = set(session.scalars(select(ModelRow.name)))
    newest: set[str] = set()
    problems: list[str] = []
    for folder in _folders_newest_first(registry_folder):
        try:
            admitted = admission.admit(folder)
            name = admitted.package.manifest.name
            if name in known:
                stage = Stage.SHADOW
            else:
                stage = Stage.RETIRED if name in newest else Stage.PRODUCTION
            register_package(
                session,
                admitted.package,
                stage=stage,
                now=now,
                replace=replace,
                signed_by=admitted.signed_by,
            )
            newest.add(name)
        except PackageError as error:
            problems.append(str(error))
    return tuple(problems)


def _folders_newest_first(registry_folder: Path) -> list[Path]:
    folders = [manifest.parent for manifest in registry_folder.glob(f"*/*/{MANIFEST_NAME}")]
    by_version = sorted(folders, key=lambda f: _version_key(f.name), reverse=True)
    return sorted(by_version, key=lambda f: f.parent.name)


def package_named(model: str, registry_folder: Path) -> ModelPackage:
    """Return the package that a person means by `model`, registered or not.

    `model` is a package's folder, or the name of one in `registry_folder`, alone (its newest
    version) or with a version: "head-ct-hemorrhage", "head-ct-hemorrhage/1.0.0".

    Raises:
        PackageError: there is no such package, or it is broken.
    """
    if (Path(model) / MANIFEST_NAME).is_file():
        return load_package(Path(model))
    name, _, version = model.partition("/")
    manifests = registry_folder.glob(f"{name}/{version or '*'}/{MANIFEST_NAME}")
    folders = sorted((m.parent for m in manifests), key=lambda f: _version_key(f.name))
    if not folders:
        known = sorted({m.parent.parent.name for m in registry_folder.glob(f"*/*/{MANIFEST_NAME}")})
        raise PackageError(
            f"{model} is neither the folder of a package nor a model in {registry_folder}; "
            f"there are: {', '.join(known) or 'none'}"
        )
    return load_package(folders[-1])


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


def find_package(session: Session, name: str, version: str | None = None) -> ModelPackage:
    """Return a registered package; without a version the newest one that is not retired.

    Raises:
        PackageError: there is none of that name and version, or its folder changed since.
    """
    rows = session.scalars(select(ModelRow).order_by(ModelRow.name, ModelRow.version)).all()
    named = [row for row in rows if row.name == name]
    if version is None:
        fitting = [row for row in named if row.stage is not Stage.RETIRED]
    else:
        fitting = [row for row in named if row.version == version]
    if not fitting:
        known = ", ".join(f"{row.name} {row.version}" for row in named or rows) or "none"
        wanted = f"{name} {version}" if version else name
        raise PackageError(f"no model {wanted} is registered; registered are: {known}")
    newest = max(fitting, key=lambda row: tuple(map(int, row.version.split("."))))
    return registered_package(newest.package_path, newest.package_sha256)


@lru_cache(maxsize=64)
def registered_package(package_path: str, package_sha256: str) -> ModelPackage:
    """Return the package that a row of the registry points to, checked once in this process.

    Raises:
        PackageError: what lies in the folder is not what was registered.
    """
    package = load_package(Path(package_path))
    if package.sha256 != package_sha256:
        raise PackageError(
            f"{package_path}: the content changed since {package.manifest.identity} was "
            "registered; restore it, or register it as a new version"
        )
    return package
