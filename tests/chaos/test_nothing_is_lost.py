"""Nothing answered with success is lost, whatever kills the receiver and whenever."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.round import run_round

pytestmark = pytest.mark.timeout(300)

_KILLS = 3


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_what_was_acknowledged_is_whole_and_indexed_after_sigkill(
    tmp_path: Path, seed: int
) -> None:
    outcome = run_round(tmp_path / "round", seed=seed, instances=300, kills=_KILLS)
    assert outcome.killed.total() == _KILLS
    assert outcome.audit.acknowledged >= 300
    assert outcome.audit.breaches == []
