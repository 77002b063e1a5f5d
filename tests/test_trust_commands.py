"""The commands of trust, as a vendor and an administrator type them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.models.test_archives import pack
from tests.models.tiny import make_segmentation
from triage.cli import main
from triage.models.packages import ModelPackage


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return make_segmentation(tmp_path_factory.mktemp("packages") / "tiny")


@pytest.fixture
def triage(tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run `triage` on a database of its own and return what it says."""
    monkeypatch.setenv("TRIAGE_DATA_DIRECTORY", str(tmp_path / "data"))
    monkeypatch.setenv("TRIAGE_DATABASE__URL", sqlite_url)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object, fails: bool = False) -> str:
        result = CliRunner().invoke(main, [str(a) for a in arguments])
        assert (result.exit_code != 0) is fails, result.output
        return " ".join(result.output.split())

    return run


def test_code_is_shown_approved_once_and_then_runs(
    triage: Callable[..., str], bundle: ModelPackage, tmp_path: Path
) -> None:
    archive = pack(bundle.path, tmp_path / "tiny.tgz", "tiny/")
    assert "waits for approval" in triage("models", "register", archive)
    assert "waits for approval of its code" in triage("models", "list")
    named = ("models", "approve", "tiny-segmentation", "1.0.0")
    shown = triage(*named)
    assert "configs/inference.json, imports#1: $import os" in shown
    assert "approve it with --who and --reason" in shown
    assert "say both" in triage(*named, "--who", "Dr Grey", fails=True)
    assert "may run from now on" in triage(*named, "--who", "Dr Grey", "--reason", "read it")
    assert "was approved before" in triage(*named, "--who", "Dr Grey", "--reason", "read it")
    assert "waits for" not in triage("models", "list")


def test_package_signed_by_a_vendor_is_registered_with_its_name(
    triage: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("OpenSSL", reason="model-signing imports pyopenssl")
    package = make_segmentation(tmp_path / "tiny")
    assert "give away" in triage("models", "keygen", tmp_path / "vendor")
    monkeypatch.setenv("TRIAGE_TRUST__REQUIRE_SIGNATURE", "true")
    monkeypatch.setenv(
        "TRIAGE_TRUST__PUBLIC_KEYS", f'[{{"name": "Vendor", "path": "{tmp_path / "vendor.pub"}"}}]'
    )
    assert "is not signed" in triage("models", "register", package.path, fails=True)
    triage("models", "sign", package.path, "--key", tmp_path / "vendor.key")
    assert "signed by Vendor" in triage("models", "register", package.path)
    assert "Vendor" in triage("models", "list")
