"""Stages: promoting, retiring and rolling back, with a history that says who and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from tests.models.tiny import manifest_of, write_manifest
from tests.tools import ManualClock
from triage.core.stages import Stage, is_in_share
from triage.models.admission import Admission
from triage.models.packages import ModelPackage
from triage.models.registry import register_all, register_package
from triage.models.stages import Decision, StageError, promote, retire, rollback
from triage.settings import Settings
from triage.store.database import Database
from triage.store.model_tables import ModelEventRow, ModelRow

Decide = Callable[..., Decision]


def package_of(folder: Path, version: str, name: str = "tiny") -> ModelPackage:
    """Write a package whose weights nobody will load."""
    home = folder / name / version
    (home / "models").mkdir(parents=True)
    (home / "configs").mkdir()
    (home / "configs" / "inference.json").write_text("{}")
    weights = home / "models" / "model.pt"
    weights.write_bytes(version.encode())
    return write_manifest(home, manifest_of(weights, name=name, version=version))


@pytest.fixture
def decide(clock: ManualClock) -> Decide:
    def decision(reason: str = "it does better") -> Decision:
        return Decision("ada", clock.advance(1), reason)

    return decision


@pytest.fixture
def three(sqlite_database: Database, tmp_path: Path, clock: ManualClock) -> Database:
    """Version 1.0.0 is in production, 1.1.0 and 2.0.0 came later."""
    with sqlite_database.transaction() as session:
        for version in ("1.0.0", "1.1.0", "2.0.0"):
            package = package_of(tmp_path, version)
            stage = Stage.PRODUCTION if version == "1.0.0" else None
            register_package(session, package, stage=stage, who="ada", now=clock())
    return sqlite_database


def stages(session: Session) -> dict[str, str]:
    return {row.version: row.stage.value for row in session.scalars(select(ModelRow))}


def test_new_version_begins_as_a_shadow(three: Database) -> None:
    with three.reading() as session:
        assert stages(session) == {"1.0.0": "production", "1.1.0": "shadow", "2.0.0": "shadow"}
        events = session.scalars(select(ModelEventRow)).all()
        assert [(e.action, e.to_stage) for e in events] == [
            ("registered", "production"),
            ("registered", "shadow"),
            ("registered", "shadow"),
        ]


def test_promotion_retires_the_former_version_and_says_who_and_why(
    three: Database, decide: Decide
) -> None:
    with three.transaction() as session:
        promote(session, "tiny", "1.1.0", Stage.PRODUCTION, decide())
        assert stages(session) == {"1.0.0": "retired", "1.1.0": "production", "2.0.0": "shadow"}
        former, present = session.scalars(select(ModelEventRow).order_by(ModelEventRow.id)).all()[
            -2:
        ]
        assert (former.from_stage, former.to_stage) == ("production", "retired")
        assert former.reason == "made room for 1.1.0: it does better"
        assert (present.who, present.action, present.reason) == (
            "ada",
            "promoted",
            "it does better",
        )


def test_rollback_goes_back_one_version_at_a_time_and_never_forth(
    three: Database, decide: Decide
) -> None:
    with three.transaction() as session:
        promote(session, "tiny", "1.1.0", Stage.PRODUCTION, decide())
        promote(session, "tiny", "2.0.0", Stage.PRODUCTION, decide())
        assert rollback(session, "tiny", decide("false alarms")).version == "1.1.0"
        assert rollback(session, "tiny", decide("still")).version == "1.0.0"
        assert stages(session) == {"1.0.0": "production", "1.1.0": "retired", "2.0.0": "retired"}
        with pytest.raises(StageError, match="no version of tiny was in production before"):
            rollback(session, "tiny", decide())


def test_rollback_after_retiring_brings_the_last_one_back(three: Database, decide: Decide) -> None:
    with three.transaction() as session:
        retire(session, "tiny", "1.0.0", decide("fire"))
        assert rollback(session, "tiny", decide("smoke only")).version == "1.0.0"


def test_one_canary_at_a_time(three: Database, decide: Decide) -> None:
    with three.transaction() as session:
        assert promote(session, "tiny", "1.1.0", Stage.CANARY, decide()).share == 0.2
        promote(session, "tiny", "2.0.0", Stage.CANARY, decide(), share=0.5)
        assert stages(session) == {"1.0.0": "production", "1.1.0": "shadow", "2.0.0": "canary"}
        promote(session, "tiny", "2.0.0", Stage.CANARY, decide(), share=0.7)
        promote(session, "tiny", "2.0.0", Stage.PRODUCTION, decide())
        assert stages(session) == {"1.0.0": "retired", "1.1.0": "shadow", "2.0.0": "production"}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            ("9.0.0", Stage.SHADOW, None),
            "version: tiny has no version 9.0.0; registered are: 1.0.0",
        ),
        (("1.1.0", Stage.CANARY, 1.0), "share: give a number above 0 and below 1"),
        (("1.1.0", Stage.SHADOW, 0.2), "share: only a canary has a share"),
        (("1.1.0", Stage.SHADOW, None), "to: tiny 1.1.0 is in shadow already"),
        (("1.0.0", Stage.CANARY, None), "to: a canary stands beside a version in production"),
        (("1.1.0", Stage.RETIRED, None), "to: use retire"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field(
    three: Database, decide: Decide, wanted: tuple[str, Stage, float | None], message: str
) -> None:
    version, to, share = wanted
    with three.transaction() as session, pytest.raises(StageError, match=message):
        promote(session, "tiny", version, to, decide(), share=share)


def test_decision_needs_a_reason(clock: ManualClock) -> None:
    with pytest.raises(StageError, match="reason: say why"):
        Decision("ada", clock(), "  ")


def test_damaged_package_does_not_go_to_production(
    three: Database, decide: Decide, tmp_path: Path
) -> None:
    (tmp_path / "tiny" / "1.1.0" / "models" / "model.pt").write_bytes(b"other")
    with three.transaction() as session:
        with pytest.raises(StageError, match="version: its package cannot be used"):
            promote(session, "tiny", "1.1.0", Stage.PRODUCTION, decide())
        assert stages(session)["1.0.0"] == "production"


def test_registry_fills_production_at_the_first_start_only(
    sqlite_database: Database, tmp_path: Path, clock: ManualClock
) -> None:
    for version in ("1.9.0", "1.10.0"):
        package_of(tmp_path, version)
    admission = Admission(Settings(data_directory=tmp_path / "data"))
    with sqlite_database.transaction() as session:
        assert register_all(session, tmp_path, admission, now=clock()) == ()
        assert stages(session) == {"1.9.0": "retired", "1.10.0": "production"}
        package_of(tmp_path, "2.0.0")
        register_all(session, tmp_path, admission, now=clock())
        assert stages(session)["2.0.0"] == "shadow"
        assert stages(session)["1.10.0"] == "production"


def test_share_of_the_studies_is_about_what_was_asked_for() -> None:
    studies = [f"1.2.826.{n}" for n in range(2000)]
    chosen = {s for s in studies if is_in_share("tiny", s, 0.2)}
    assert 300 < len(chosen) < 500
    assert chosen <= {s for s in studies if is_in_share("tiny", s, 0.3)}
    assert chosen != {s for s in studies if is_in_share("other", s, 0.2)}
