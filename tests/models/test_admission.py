"""How packages get in: kept unchanged, signed or not, and their code approved."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.models.test_archives import pack
from tests.tools import ManualClock
from triage.models import registry
from triage.models.admission import Admission
from triage.models.package_store import PackageStore
from triage.models.packages import ModelPackage, PackageError, load_package
from triage.models.registry import register_package
from triage.models.signatures import make_keys, sign_package
from triage.settings import PublicKeySettings, Settings, TrustSettings
from triage.store.code_approvals import (
    CodeNotApprovedError,
    approve_code,
    check_code_approved,
    runnable_models,
)
from triage.store.database import Database
from triage.store.model_tables import CodeApprovalRow, ModelEventRow


@pytest.fixture
def folder(segmentation: ModelPackage, tmp_path: Path) -> Path:
    return Path(shutil.copytree(segmentation.path, tmp_path / "tiny"))


def settings_of(tmp_path: Path, **trust: object) -> Settings:
    return Settings(
        data_directory=tmp_path / "data", trust=TrustSettings.model_validate(trust or {})
    )


def test_admitted_package_is_a_copy_that_outlives_its_source(folder: Path, tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    admitted = Admission(settings).admit(folder).package
    assert admitted.path == settings.packages_directory / admitted.sha256
    shutil.rmtree(folder)
    assert load_package(admitted.path).sha256 == admitted.sha256
    modes = {p: stat.S_IMODE(p.stat().st_mode) for p in (admitted.path, *admitted.path.rglob("*"))}
    assert not any(mode & 0o222 for mode in modes.values())


def test_same_content_is_kept_once_whatever_way_it_comes(folder: Path, tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    admission = Admission(settings)
    ways = [
        folder,
        folder,
        *(pack(folder, tmp_path / name, "tiny/") for name in ("a.zip", "a.tgz")),
    ]
    assert len({admission.admit(way).package.path for way in ways}) == 1
    assert len(list(settings.packages_directory.iterdir())) == 1
    assert list(settings.packages_directory.parent.glob("incoming-*")) == []


def test_package_that_lost_a_race_is_the_winners(folder: Path, tmp_path: Path) -> None:
    store = PackageStore(tmp_path / "store" / "sha256")
    with store.staged(folder) as first, store.staged(folder) as second:
        assert first.path != second.path
        assert store.keep(first).path == store.keep(second).path
    assert list((tmp_path / "store").glob("incoming-*")) == []


def test_kept_package_that_was_changed_is_not_taken_for_the_registered_one(
    folder: Path, tmp_path: Path
) -> None:
    admission = Admission(settings_of(tmp_path))
    kept = admission.admit(folder).package.path
    (kept / "configs").chmod(0o755)
    (kept / "configs" / "more.json").write_text("{}")
    with pytest.raises(PackageError, match="was changed since it was registered"):
        admission.admit(folder)


@pytest.mark.parametrize("target", ["/etc/shadow", "model.yaml", "/nowhere"])
def test_links_in_a_package_are_refused(folder: Path, tmp_path: Path, target: str) -> None:
    (folder / "configs" / "link.json").symlink_to(target)
    with pytest.raises(PackageError, match=r"link\.json: a package holds files and folders only"):
        Admission(settings_of(tmp_path)).admit(folder)


def test_signature_is_required_where_the_settings_say_so(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("OpenSSL", reason="model-signing imports pyopenssl")
    pair = make_keys(tmp_path / "vendor")
    key = PublicKeySettings(name="Vendor Ltd", path=pair.public_key)
    admission = Admission(settings_of(tmp_path, public_keys=[key], require_signature=True))
    archive = pack(folder, tmp_path / "tiny.zip", "")
    for unsigned in (folder, archive):
        with pytest.raises(
            PackageError, match=r"is not signed, and trust\.require_signature is on"
        ):
            admission.admit(unsigned)
    signature = sign_package(folder, pair.private_key)
    assert admission.admit(folder).signed_by == "Vendor Ltd"
    shutil.copy(signature, tmp_path / "tiny.zip.sig")  # beside the archive
    assert admission.admit(archive).signed_by == "Vendor Ltd"
    (folder / "README.md").write_text("changed")
    with pytest.raises(PackageError, match=r"Vendor Ltd: added since: README\.md"):
        admission.admit(folder)
    keyless = Admission(settings_of(tmp_path, require_signature=True))
    with pytest.raises(PackageError, match="is signed by nobody who is known"):
        keyless.admit(folder)


def test_code_waits_for_an_administrator(
    database: Database, segmentation: ModelPackage, classification: ModelPackage, clock: ManualClock
) -> None:
    with database.transaction() as session:
        waiting = register_package(session, segmentation, now=clock())
        register_package(session, classification, now=clock())
        assert [m.name for m in runnable_models(session)] == ["tiny-classification"]
        with pytest.raises(CodeNotApprovedError, match="triage models approve tiny-segmentation"):
            check_code_approved(session, waiting)
        with pytest.raises(CodeNotApprovedError, match="needs --who and --reason"):
            approve_code(session, segmentation.sha256, who="", reason="read", now=clock())
        for is_first in (True, False):
            approved = approve_code(
                session, segmentation.sha256, who="Dr Grey", reason="read it", now=clock()
            )
            assert approved is is_first
        register_package(session, segmentation, now=clock())  # a restart takes nothing back
        check_code_approved(session, waiting)
        assert len(runnable_models(session)) == 2
        (event,) = session.scalars(
            select(ModelEventRow).where(ModelEventRow.action == "approved")
        ).all()
        assert (event.action, event.who, event.reason) == ("approved", "Dr Grey", "read it")


def test_shipped_package_needs_nobody(
    sqlite_database: Database,
    segmentation: ModelPackage,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "is_shipped", lambda package: True)
    with sqlite_database.transaction() as session:
        register_package(session, segmentation, now=clock())
        assert len(runnable_models(session)) == 1
        (approval,) = session.scalars(select(CodeApprovalRow)).all()
        assert (approval.who, approval.reason) == ("Triage", "shipped with Triage")
