"""Who is read when: small cohorts whose course can be followed by hand, and what always holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triage.core.priority import Priority
from triage.simulation.cohorts import NO_DISEASE, Cohort, Flag, draw_cohort, durations
from triage.simulation.compare import compare
from triage.simulation.room import Reading, read_cohort
from triage.simulation.scenario import Duration, ScenarioError, scenario_of


def cohort(*studies: tuple[float, float, Priority], flags: tuple[Flag, ...] = ()) -> Cohort:
    """Return studies given as (arrives, reading, order)."""
    count = len(studies)
    return Cohort(
        arrives=np.array([one[0] for one in studies]),
        reading=np.array([one[1] for one in studies]),
        order=np.array([int(one[2]) for one in studies]),
        kind=np.zeros(count, dtype=np.int64),
        disease=np.full(count, NO_DISEASE),
        is_flagged=np.zeros(count, dtype=bool),
        flags=flags,
        counts=np.ones(count, dtype=bool),
    )


def waits(studies: Cohort, **how: object) -> list[float]:
    given: dict[str, object] = {"with_ai": False, **how}
    return read(studies, **given).wait.tolist()


def read(studies: Cohort, **how: object) -> Reading:
    hours = how.pop("readers", (1,))
    return read_cohort(studies, hours, **how)  # type: ignore[arg-type]


ROUTINE, HIGH, STAT = Priority.ROUTINE, Priority.HIGH, Priority.STAT


def test_urgent_studies_go_first_and_what_is_begun_is_finished() -> None:
    three = cohort((0, 10, ROUTINE), (1, 10, ROUTINE), (2, 5, STAT))
    assert waits(three) == [0, 14, 8]


def test_an_interrupted_study_goes_on_where_it_was_left() -> None:
    three = cohort((0, 10, ROUTINE), (1, 10, ROUTINE), (2, 5, STAT))
    reading = read(three, with_ai=False, interrupting_from=STAT)
    assert reading.wait.tolist() == [5, 14, 0]
    assert reading.opened.tolist() == [0, 14, 0]


def test_only_from_the_given_priority_on_is_anything_interrupted() -> None:
    two = cohort((0, 10, ROUTINE), (2, 5, HIGH))
    assert waits(two, interrupting_from=STAT) == [0, 8]
    assert waits(two, interrupting_from=HIGH) == [5, 0]


def test_the_least_urgent_of_what_is_open_is_interrupted() -> None:
    three = cohort((0, 10, HIGH), (1, 20, ROUTINE), (2, 5, STAT))
    assert waits(three, readers=(2,), interrupting_from=HIGH) == [0, 5, 0]


def test_a_flag_moves_a_study_up_when_it_comes_and_not_before() -> None:
    studies = [(0.0, 10.0, ROUTINE), (1.0, 10.0, ROUTINE), (2.0, 10.0, ROUTINE)]
    in_time = cohort(*studies, flags=(Flag(5, 2, int(HIGH)),))
    assert waits(in_time, with_ai=True) == [0, 19, 8]
    assert waits(in_time, with_ai=False) == [0, 9, 18]
    too_late = cohort(*studies, flags=(Flag(12, 2, int(HIGH)),))
    assert waits(too_late, with_ai=True) == [0, 9, 18]


def test_a_flag_never_lowers() -> None:
    studies = [(0.0, 10.0, ROUTINE), (1.0, 10.0, HIGH), (2.0, 10.0, STAT)]
    flagged = cohort(*studies, flags=(Flag(3, 2, int(HIGH)),))
    assert waits(flagged, with_ai=True) == waits(flagged, with_ai=False) == [0, 19, 8]


def test_a_flag_of_a_study_that_is_being_read_keeps_it_from_being_interrupted() -> None:
    studies = [(0.0, 10.0, ROUTINE), (4.0, 5.0, HIGH)]
    flagged = cohort(*studies, flags=(Flag(2, 0, int(HIGH)),))
    assert waits(flagged, with_ai=True, interrupting_from=HIGH) == [0, 6]
    assert waits(flagged, with_ai=False, interrupting_from=HIGH) == [5, 0]


def test_nobody_reads_outside_of_shifts_but_what_is_open_is_finished() -> None:
    hours = (1, 0, 1) + (0,) * 21
    three = cohort((50, 30, ROUTINE), (55, 10, ROUTINE), (70, 10, ROUTINE))
    assert waits(three, readers=hours) == pytest.approx([0, 65, 60], abs=1e-3)


def test_a_second_reader_comes_and_goes() -> None:
    hours = (1, 2) + (1,) * 22
    four = cohort(*((0.0, 100.0, ROUTINE) for _ in range(3)), (200.0, 1.0, ROUTINE))
    # The second reader takes the second study at 60, and goes home when it is read at 160.
    assert waits(four, readers=hours) == pytest.approx([0, 60, 100, 0], abs=1e-3)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 4),
    st.sampled_from([None, HIGH, STAT]),
)
def test_the_ai_changes_the_order_and_not_the_work(
    seed: int, readers: int, interrupting_from: Priority | None
) -> None:
    scenario = scenario_of(
        {
            "readers": readers,
            "arrivals_per_hour": 4.5 * readers,
            "days": 1,
            "warm_up_days": 0,
            "orders": [
                {"priority": "stat", "share": 0.2},
                {"priority": "routine", "share": 0.8},
            ],
            "studies": [{"reading": {"mean_min": 10, "spread": "constant"}}],
        }
    )
    drawn = draw_cohort(scenario, np.random.default_rng(seed))
    without, with_ai = (
        read_cohort(
            drawn,
            scenario.hourly_readers,
            interrupting_from=interrupting_from,
            with_ai=with_ai,
        )
        for with_ai in (False, True)
    )
    for reading in (without, with_ai):
        assert (reading.wait >= 0).all()
        assert (reading.opened >= 0).all()
        assert (reading.opened <= reading.wait + 1e-9).all()
    if interrupting_from is None:
        # All take equally long, so whoever goes first, somebody is read at the same moments.
        assert without.wait.sum() == pytest.approx(with_ai.wait.sum())


def test_the_same_seed_gives_the_same_figures_and_another_others() -> None:
    scenario = scenario_of({"days": 2, "replications": 3})
    assert compare(scenario, seed=5) == compare(scenario, seed=5)
    assert compare(scenario, seed=5) != compare(scenario, seed=6)


def test_others_wait_longer_and_the_figures_say_so() -> None:
    comparison = compare(scenario_of({"days": 20, "replications": 10}), seed=2)
    ill, others = comparison.group("disease"), comparison.group("other")
    assert ill.difference_min.high < 0 < others.difference_min.low
    assert others.waits_longer > 0.1
    assert others.longer_p95_min > 5
    assert others.with_ai.within_target.mean < others.without_ai.within_target.mean
    # Common random numbers: the difference is far surer than either of the two.
    width = others.difference_min.high - others.difference_min.low
    assert width < (others.with_ai.mean_min.high - others.with_ai.mean_min.low) / 2
    assert list(ill.with_ai.curve) == sorted(ill.with_ai.curve)
    assert comparison.group("all").share == 1


def test_a_slow_or_absent_ai_delays_nobody() -> None:
    ai = {"sensitivity": 0.9, "specificity": 0.9}
    for changes in ({"answers": 0.0}, {"turnaround": {"mean_min": 1440, "spread": "constant"}}):
        disease = {"name": "a", "prevalence": 0.1, "ai": {**ai, **changes}}
        scenario = scenario_of({"days": 3, "replications": 3, "studies": [{"diseases": [disease]}]})
        everybody = compare(scenario, seed=1).group("all")
        assert everybody.difference_min.mean == pytest.approx(0, abs=0.5)


def test_more_than_may_be_played_is_refused_before_it_begins() -> None:
    with pytest.raises(ScenarioError, match="give fewer days") as refused:
        compare(scenario_of({"days": 3660, "replications": 1000}), most_studies=1000)
    assert refused.value.field == "days"


@pytest.mark.parametrize("spread", ["exponential", "lognormal", "constant"])
def test_durations_have_the_moments_that_formulas_take(spread: str) -> None:
    duration = Duration(mean_min=8, spread=spread, variation=0.6)  # type: ignore[arg-type]
    middles = (np.arange(200_000) + 0.5) / 200_000
    minutes = durations(duration, middles)
    assert minutes.mean() == pytest.approx(8, rel=1e-3)
    assert (minutes**2).mean() == pytest.approx(duration.second_moment, rel=5e-3)


def test_studies_come_at_the_rate_of_the_hour() -> None:
    rates = [float(hour) for hour in range(24)]
    scenario = scenario_of({"arrivals_per_hour": rates, "readers": 4, "days": 200})
    drawn = draw_cohort(scenario, np.random.default_rng(1))
    counts = np.bincount((drawn.arrives // 60).astype(int) % 24, minlength=24)
    expected = 204 * np.array(rates)
    assert (np.abs(counts - expected) <= 4 * np.sqrt(expected)).all()  # of a Poisson variable
