"""`triage pull`, as a person calls it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from tests.datasets import ct_slice
from tests.receiver.archives import dcmqrscp, orthanc_with
from tests.tools import find_free_port
from triage.cli import main
from triage.settings import RemoteSettings
from triage.store.clock import system_clock
from triage.store.contents import priors_of
from triage.store.database import Database
from triage.store.tables import StudyRow
from triage.worklist.queue import reading_list

Pull = Callable[..., Result]


@pytest.fixture
def pull(tmp_path: Path, sqlite_url: str) -> Pull:
    """A function that runs `triage pull` with an entry of [[remotes]]."""

    def run(pacs: RemoteSettings, *arguments: str) -> Result:
        lines = [
            f"{key} = {value!r}" for key, value in pacs.model_dump(exclude_defaults=True).items()
        ]
        (tmp_path / "triage.toml").write_text("[[remotes]]\n" + "\n".join(lines) + "\n")
        environment = {
            "TRIAGE_CONFIG": str(tmp_path / "triage.toml"),
            "TRIAGE_DATA_DIRECTORY": str(tmp_path / "data"),
            "TRIAGE_DATABASE__URL": sqlite_url,
            "TRIAGE_RECEIVER__MINIMUM_FREE_MB": "0",
        }
        return CliRunner().invoke(main, ["pull", *arguments], env=environment)

    return run


def test_a_study_and_its_priors(tmp_path: Path, sqlite_database: Database, pull: Pull) -> None:
    study = ct_slice("1.2.30", StudyDate="20260301", AccessionNumber="A30")
    prior = ct_slice("1.2.5", StudyDate="20250101", AccessionNumber="A5")
    with orthanc_with(tmp_path, study, prior) as (_, pacs):
        done = pull(pacs, "pacs", "--accession", "A30", "--priors", "2")
        assert done.exit_code == 0, done.stderr
        assert "1.2.30: 1 of 1 images are here: 1 came from pacs by dicomweb" in done.stdout
        assert "priors from pacs: 2025-01-01 CT" in done.stdout
        with sqlite_database.reading() as session:
            on_list = reading_list(session, system_clock())
            assert [entry.study_instance_uid for entry in on_list] == ["1.2.30"]
            [row] = session.scalars(
                select(StudyRow.id).where(StudyRow.study_instance_uid == "1.2.30")
            )
            [found] = priors_of(session, row)
            assert found.study_instance_uid == "1.2.5"
        # Asked for by name, the prior becomes a study that is to be read.
        done = pull(pacs, "pacs", "--study", "1.2.5", "--via", "c-get")
        assert done.exit_code == 0
        assert "1 were here before" in done.stdout
    with sqlite_database.reading() as session:
        assert len(reading_list(session, system_clock())) == 2


def test_what_cannot_be_pulled_is_said(tmp_path: Path, pull: Pull) -> None:
    with dcmqrscp(tmp_path, ct_slice("1.2.3")) as pacs:
        unknown = pull(pacs, "pacs", "--study", "1.9.9")
        assert unknown.exit_code == 1
        assert "pacs holds nothing for study 1.9.9" in unknown.stderr
        nobody = pull(pacs, "other", "--study", "1.2.3")
        assert "there is no 'other' in [[remotes]] (known: pacs)" in nobody.stderr
        nothing = pull(pacs, "pacs")
        assert nothing.exit_code == 2
        assert "say which" in nothing.stderr
        # The archive knows TRIAGE at a port at which nobody listens.
        failed = pull(pacs, "pacs", "--study", "1.2.3", "--via", "c-move")
        assert failed.exit_code == 1
        assert "missing 1.2.3.1.1" in failed.stdout
        no_web = pull(pacs, "pacs", "--study", "1.2.3", "--via", "dicomweb")
        assert "has no dicomweb_url" in no_web.stderr
    away = pull(pacs.model_copy(update={"port": find_free_port()}), "pacs", "--study", "1.2.3")
    assert away.exit_code == 1
    assert "cannot be reached" in away.stderr
