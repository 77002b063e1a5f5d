"""Packages on disk and in the registry."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from sqlalchemy import select

from tests.models.tiny import make_segmentation
from tests.tools import ManualClock
from triage.core.stages import Stage
from triage.models.admission import Admission
from triage.models.packages import ModelPackage, PackageError, load_package, package_sha256
from triage.models.registry import (
    find_package,
    package_named,
    register_all,
    register_package,
)
from triage.settings import Settings
from triage.store.database import Database
from triage.store.model_tables import ModelRow


@pytest.fixture
def folder(segmentation: ModelPackage, tmp_path: Path) -> Path:
    """A copy of the package that a test may spoil."""
    return Path(shutil.copytree(segmentation.path, tmp_path / "packages" / "tiny" / "1.0.0"))


@pytest.fixture
def admission(tmp_path: Path) -> Admission:
    """The door of an installation in a folder of its own."""
    return Admission(Settings(data_directory=tmp_path / "data"))


def change_manifest(folder: Path, **changes: object) -> None:
    path = folder / "model.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def test_package_has_its_manifest_weights_and_digest(folder: Path) -> None:
    package = load_package(folder)
    assert package.manifest.identity == "tiny-segmentation 1.0.0"
    assert package.weights.is_file()
    assert package.sha256 == package_sha256(folder)


def test_digest_is_of_names_and_contents_but_not_of_caches(folder: Path) -> None:
    before = package_sha256(folder)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "recipe.pyc").write_bytes(b"cache")
    assert package_sha256(folder) == before
    (folder / "configs" / "inference.json").rename(folder / "configs" / "other.json")
    renamed = package_sha256(folder)
    assert renamed != before
    (folder / "models" / "model.pt").write_bytes(b"other")
    assert package_sha256(folder) not in {before, renamed}


def test_other_weights_than_the_manifest_names_are_refused(folder: Path) -> None:
    (folder / "models" / "model.pt").write_bytes(b"other")
    with pytest.raises(PackageError, match=r"runner\.weights_sha256: models/model\.pt has the"):
        load_package(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model.yaml").unlink(), "there is no such file"),
        (lambda f: (f / "model.yaml").write_text("a: [1"), "not valid YAML"),
        (lambda f: (f / "model.yaml").write_text("- a"), "expected a mapping"),
        (lambda f: (f / "configs" / "inference.json").unlink(), "a monai-bundle needs it"),
        (lambda f: (f / "models" / "model.pt").unlink(), r"runner\.weights: there is no file"),
        (lambda f: change_manifest(f, titel="Typo"), "titel: this key is unknown"),
        (lambda f: change_manifest(f, licence=None), "licence: "),
    ],
)
def test_broken_package_says_what_to_mend(folder: Path, spoil: object, message: str) -> None:
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(PackageError, match=message):
        load_package(folder)


def test_registering_twice_changes_nothing(
    database: Database, segmentation: ModelPackage, clock: ManualClock
) -> None:
    for _ in range(2):
        with database.transaction() as session:
            register_package(session, segmentation, now=clock())
    with database.reading() as session:
        (row,) = session.scalars(select(ModelRow)).all()
        assert (row.stage, row.package_sha256) == (Stage.SHADOW, segmentation.sha256)


def test_registered_version_never_changes(
    sqlite_database: Database, folder: Path, clock: ManualClock
) -> None:
    with sqlite_database.transaction() as session:
        register_package(session, load_package(folder), now=clock())
    (folder / "README.md").write_text("changed")
    changed = load_package(folder)
    with (
        sqlite_database.transaction() as session,
        pytest.raises(PackageError, match=r"tiny-segmentation 1\.0\.0 is registered with other"),
    ):
        register_package(session, changed, now=clock())
    with sqlite_database.transaction() as session:
        register_package(session, changed, now=clock(), replace=True)
        assert find_package(session, "tiny-segmentation").sha256 == changed.sha256


def test_stage_that_an_administrator_set_survives_a_restart(
    sqlite_database: Database, folder: Path, clock: ManualClock, admission: Admission
) -> None:
    registry = folder.parents[1]
    with sqlite_database.transaction() as session:
        assert register_all(session, registry, admission, now=clock()) == ()
        row = session.scalars(select(ModelRow)).one()
        assert row.stage is Stage.PRODUCTION
        row.stage = Stage.RETIRED
        session.flush()
        assert register_all(session, registry, admission, now=clock()) == ()
        assert session.scalars(select(ModelRow)).one().stage is Stage.RETIRED
        with pytest.raises(PackageError, match="no model tiny-segmentation is registered"):
            find_package(session, "tiny-segmentation")


def test_broken_package_does_not_keep_the_others_out(
    sqlite_database: Database, folder: Path, clock: ManualClock, admission: Admission
) -> None:
    packages = folder.parents[1]
    broken = Path(shutil.copytree(folder, packages / "broken" / "1.0.0"))
    (broken / "models" / "model.pt").write_bytes(b"")
    with sqlite_database.transaction() as session:
        (problem,) = register_all(session, packages, admission, now=clock())
        assert str(broken) in problem
        assert find_package(session, "tiny-segmentation", "1.0.0").path != folder


def test_newest_version_is_found_by_number(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock, admission: Admission
) -> None:
    packages = tmp_path / "packages"
    for version in ("1.9.0", "1.10.0"):
        make_segmentation(packages / "tiny" / version, version=version)
    with sqlite_database.transaction() as session:
        register_all(session, packages, admission, now=clock())
        assert find_package(session, "tiny-segmentation").manifest.version == "1.10.0"
        assert find_package(session, "tiny-segmentation", "1.9.0").manifest.version == "1.9.0"
        with pytest.raises(PackageError, match=r"no model other is registered; registered are: "):
            find_package(session, "other")


def test_package_that_changed_after_registration_is_not_run(
    sqlite_database: Database, folder: Path, clock: ManualClock
) -> None:
    with sqlite_database.transaction() as session:
        register_package(session, load_package(folder), now=clock())
        (folder / "README.md").write_text("changed")
        with pytest.raises(PackageError, match="the content changed since"):
            find_package(session, "tiny-segmentation")


def test_package_is_named_by_folder_or_by_name_and_version(tmp_path: Path) -> None:
    for version in ("1.9.0", "1.10.0"):
        make_segmentation(tmp_path / "tiny" / version, version=version)
    assert package_named("tiny", tmp_path).manifest.version == "1.10.0"
    assert package_named("tiny/1.9.0", tmp_path).manifest.version == "1.9.0"
    assert package_named(str(tmp_path / "tiny" / "1.9.0"), tmp_path).manifest.version == "1.9.0"
    with pytest.raises(PackageError, match=r"other is neither .*; there are: tiny"):
        package_named("other", tmp_path)
