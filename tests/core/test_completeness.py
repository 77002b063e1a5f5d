"""When a study counts as complete."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from triage.core.completeness import (
    Announcement,
    Arrival,
    Bounds,
    QuietPeriods,
    SeriesArrival,
    Source,
    Standing,
    Tally,
    completion_reason,
    series_is_enough,
    waiting_for,
)

LAST = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUIET = QuietPeriods(30.0, {"CT": 5.0, "MR": 10.0})
BOUNDS = Bounds(expected_wait_s=60, maximum_age_s=1800)
modalities = st.frozensets(st.sampled_from(["CT", "MR", "SR", "DX"]))
seconds = st.floats(0, 1000, allow_nan=False)


def reason_after(seconds: float, found: frozenset[str], open_associations: int = 0) -> str | None:
    """Return the reason `seconds` after the last image."""
    arrival = Arrival(found, LAST, open_associations)
    return completion_reason(arrival, QUIET, LAST + timedelta(seconds=seconds))


def arriving(
    *announcements: Announcement,
    series: dict[str, int] | None = None,
    open_associations: int = 0,
    began_s: float = 10,
) -> Arrival:
    """Return a CT study whose last image came at LAST, with so many images in each series."""
    held = {"1": 40} if series is None else series
    return Arrival(
        modalities=frozenset({"CT"}),
        last_instance_at=LAST,
        open_associations=open_associations,
        calling_ae_titles=frozenset({"CT1"}),
        receiving_since=LAST - timedelta(seconds=began_s),
        series=[SeriesArrival(uid, "CT", n, LAST, frozenset({"CT1"})) for uid, n in held.items()],
        announcements=announcements,
    )


def announced(
    source: Source,
    series: dict[str, tuple[int, int]] | None = None,
    standing: Standing = Standing.FINAL,
    whole: tuple[int, int] | None = None,
) -> Announcement:
    """Return an announcement of (expected, held) images for each series."""
    tallies = {uid: Tally(*numbers) for uid, numbers in (series or {}).items()}
    return Announcement(source, standing, tallies, Tally(*whole) if whole else None)


def reason(arrival: Arrival, after: float = 0) -> str | None:
    """Return the reason `after` seconds after the last image."""
    return completion_reason(arrival, QUIET, LAST + timedelta(seconds=after), BOUNDS)


def test_reason_says_how_long_it_was_quiet() -> None:
    assert reason_after(4.9, frozenset({"CT"})) is None
    assert reason_after(5, frozenset({"CT"})) == "association released and no image for 5 s"


def test_the_slowest_modality_of_the_study_decides() -> None:
    assert QUIET.for_modalities(frozenset({"CT", "MR"})) == timedelta(seconds=10)
    assert QUIET.for_modalities(frozenset({"CT", "SR"})) == timedelta(seconds=30)
    assert QUIET.for_modalities(frozenset()) == timedelta(seconds=30)


def test_a_named_sender_goes_before_its_modality_and_the_slowest_sender_decides() -> None:
    quiet = QuietPeriods(30.0, {"CT": 5.0}, {"CT1": 1.0, "CT2": 12.0})
    ct = frozenset({"CT"})
    assert quiet.for_study(ct, frozenset({"CT1"})) == timedelta(seconds=1)
    assert quiet.for_study(ct, frozenset({"CT1", "CT2"})) == timedelta(seconds=12)
    assert quiet.for_study(ct, frozenset({"CT1", "OTHER"})) == timedelta(seconds=5)
    assert quiet.for_study(ct, frozenset({"CT2", "OTHER"})) == timedelta(seconds=12)
    assert quiet.for_study(ct, frozenset()) == timedelta(seconds=5)
    assert quiet.shortest == timedelta(seconds=1)


@given(modalities, seconds, st.integers(1, 5))
def test_never_complete_while_an_association_is_open(
    found: frozenset[str], after: float, open_associations: int
) -> None:
    assert reason_after(after, found, open_associations) is None


@given(modalities, seconds, seconds)
def test_once_complete_it_stays_so_until_another_image(
    found: frozenset[str], after: float, more: float
) -> None:
    if reason_after(after, found) is not None:
        assert reason_after(after + more, found) is not None


@given(modalities, seconds)
def test_never_complete_before_the_shortest_quiet_period(
    found: frozenset[str], after: float
) -> None:
    if reason_after(after, found) is not None:
        assert timedelta(seconds=after) >= QUIET.shortest


def test_completed_step_whose_images_are_all_held_completes_the_study_at_once() -> None:
    step = announced(Source.MPPS, {"1": (40, 40)})
    assert reason(arriving(step)) == "all 40 images are here (MPPS)"
    # Many modalities keep an association open long after the last image.
    assert reason(arriving(step, open_associations=1)) == "all 40 images are here (MPPS)"


def test_step_that_does_not_name_every_series_held_speaks_only_of_its_own() -> None:
    step = announced(Source.MPPS, {"1": (40, 40)})
    two = arriving(step, series={"1": 40, "2": 3})
    assert reason(two) is None
    assert reason(two, 5) == "association released and no image for 5 s"


def test_second_step_that_goes_on_makes_the_quiet_period_decide() -> None:
    first = announced(Source.MPPS, {"1": (40, 40)})
    second = announced(Source.MPPS, {}, Standing.OPEN)
    both = arriving(first, second)
    assert reason(both) is None
    assert reason(both, 5) == "association released and no image for 5 s"


def test_discontinued_step_promises_nothing() -> None:
    step = announced(Source.MPPS, {"1": (60, 40)}, Standing.VOID)
    assert waiting_for(arriving(step)) is None
    assert reason(arriving(step)) is None
    assert reason(arriving(step), 5) == "association released and no image for 5 s"


def test_announced_images_of_a_begun_series_are_waited_for_and_then_named() -> None:
    short = arriving(announced(Source.MPPS, {"1": (40, 38)}), series={"1": 38})
    assert waiting_for(short) == "waiting for 2 of 40 images (MPPS)"
    assert reason(short, 59.9) is None
    assert reason(short, 60) == (
        "association released and no image for 60 s; 38 of 40 images came (MPPS)"
    )


def test_series_that_never_begins_is_not_waited_for_beyond_the_quiet_period() -> None:
    step = announced(Source.MPPS, {"1": (40, 40), "dose": (1, 0)})
    routed = arriving(step)
    assert waiting_for(routed) is None
    assert reason(routed) is None
    assert reason(routed, 5) == (
        "association released and no image for 5 s; 40 of 41 images came (MPPS)"
    )


def test_available_instances_complete_the_study_once_its_association_is_released() -> None:
    notice = announced(Source.AVAILABILITY, {"1": (40, 40)})
    said = "all 40 images are here (Instance Availability Notification)"
    assert reason(arriving(notice, open_associations=1)) is None
    assert reason(arriving(notice)) == said
    assert reason(arriving(notice, series={"1": 40, "2": 1})) is None
    partly = announced(Source.AVAILABILITY, {"1": (40, 40)}, Standing.OPEN)
    assert reason(arriving(partly)) is None


def test_archive_count_completes_the_study_when_it_is_settled_and_equal() -> None:
    said = "all 40 images are here (archive's count)"
    equal = announced(Source.ARCHIVE, {"1": (40, 40)})
    assert reason(arriving(equal)) == said
    assert reason(arriving(equal, open_associations=1)) is None
    assert reason(arriving(announced(Source.ARCHIVE, whole=(40, 40)))) == said
    # The archive may still be receiving: one answer is a lower bound.
    assert reason(arriving(announced(Source.ARCHIVE, {"1": (40, 40)}, Standing.OPEN))) is None
    # Behind us, or without a series that we hold.
    assert reason(arriving(announced(Source.ARCHIVE, {"1": (30, 40)}))) is None
    assert reason(arriving(announced(Source.ARCHIVE, whole=(30, 40)))) is None
    assert reason(arriving(equal, series={"1": 40, "2": 1})) is None
    # It has no such study.
    assert reason(arriving(announced(Source.ARCHIVE, whole=(0, 40)))) is None


def test_archive_count_does_not_overrule_what_the_modality_announced() -> None:
    count = announced(Source.ARCHIVE, {"1": (30, 30)})
    step = announced(Source.MPPS, {"1": (40, 30)})
    both = arriving(count, step, series={"1": 30})
    assert reason(both) is None
    assert waiting_for(both) == "waiting for 10 of 40 images (MPPS)"


def test_images_in_acquisition_never_complete_a_study_but_are_waited_for() -> None:
    whole = announced(Source.ACQUISITION, {"1": (40, 40)})
    assert reason(arriving(whole)) is None
    assert reason(arriving(whole), 5) == "association released and no image for 5 s"
    short = arriving(announced(Source.ACQUISITION, {"1": (40, 1)}), series={"1": 1})
    assert waiting_for(short) == "waiting for 39 of 40 images (Images in Acquisition)"
    assert reason(short, 5) is None
    assert reason(short, 60) == (
        "association released and no image for 60 s; 1 of 40 images came (Images in Acquisition)"
    )


def test_late_image_of_an_announced_series_is_none_of_those_announced() -> None:
    step = announced(Source.MPPS, {"1": (40, 40)})
    late = arriving(step, series={"1": 41})
    assert reason(late) is None
    assert reason(late, 5) == "association released and no image for 5 s"
    # What another step, or the archive, has announced beside it counts.
    second = announced(Source.MPPS, {"1": (1, 1)})
    assert reason(arriving(step, second, series={"1": 41})) == "all 41 images are here (MPPS)"
    notice = announced(Source.AVAILABILITY, {"1": (41, 41)})
    assert reason(arriving(step, notice, series={"1": 41})) is not None


def test_silence_while_nobody_was_listening_does_not_count() -> None:
    restarted = Bounds(listening_since=LAST + timedelta(seconds=100))
    for after, expected in ((104.9, None), (105, "association released and no image for 5 s")):
        now = LAST + timedelta(seconds=after)
        assert completion_reason(arriving(), QUIET, now, restarted) == expected


def test_sender_that_states_wrong_numbers_is_not_heeded() -> None:
    short = arriving(announced(Source.ACQUISITION, {"1": (400, 40)}))
    bounds = Bounds(wrong_acquisitions_from=frozenset({"CT1"}))
    assert reason(short, 5) is None
    later = LAST + timedelta(seconds=5)
    assert completion_reason(short, QUIET, later, bounds) == (
        "association released and no image for 5 s"
    )
    assert series_is_enough(short.series[0], short, QUIET, later, bounds) is not None


def test_study_that_never_ends_is_complete_at_its_maximum_age() -> None:
    endless = arriving(open_associations=1, began_s=1799)
    assert reason(endless) is None
    assert reason(endless, 1) == "still arriving after 1800 s, the maximum age of a study"


tallies = st.builds(Tally, st.integers(0, 50), st.integers(0, 50))
announcements = st.builds(
    Announcement,
    st.sampled_from(Source),
    st.sampled_from(Standing),
    st.dictionaries(st.sampled_from(["1", "2", "3"]), tallies, max_size=3),
    st.none() | tallies,
)
arrivals = st.builds(
    lambda said, held, associations, age: arriving(
        *said, series=held, open_associations=associations, began_s=age
    ),
    st.lists(announcements, max_size=4),
    st.dictionaries(st.sampled_from(["1", "2"]), st.integers(1, 50), min_size=1),
    st.integers(0, 2),
    st.floats(0, 3000),
)


@given(arrivals)
def test_every_wait_has_an_end(arrival: Arrival) -> None:
    assert reason(arrival, BOUNDS.maximum_age_s) is not None
    if not arrival.open_associations:
        assert reason(arrival, BOUNDS.expected_wait_s) is not None


@given(arrivals, seconds, seconds)
def test_whatever_was_announced_it_stays_complete_until_something_new_is_known(
    arrival: Arrival, after: float, more: float
) -> None:
    if reason(arrival, after) is not None:
        assert reason(arrival, after + more) is not None


@given(arrivals)
def test_numbers_complete_no_study_while_any_promised_image_is_missing(arrival: Arrival) -> None:
    said = reason(arrival)
    if said is not None and not said.startswith("still arriving"):
        assert not any(a.is_short for a in arrival.promised)


def enough(arrival: Arrival, after: float = 0) -> str | None:
    """Return why the first series is enough `after` seconds after its last image."""
    return series_is_enough(
        arrival.series[0], arrival, QUIET, LAST + timedelta(seconds=after), BOUNDS
    )


def test_series_is_enough_by_its_own_number_or_when_it_is_quiet() -> None:
    whole = arriving(announced(Source.ACQUISITION, {"1": (40, 40)}), open_associations=1)
    assert enough(whole) == "all 40 images of the series are here (Images in Acquisition)"
    assert enough(arriving(open_associations=1), 4.9) is None
    assert enough(arriving(open_associations=1), 5) == "no image of the series for 5 s"
    unsettled = arriving(announced(Source.ARCHIVE, {"1": (40, 40)}, Standing.OPEN))
    assert enough(unsettled) is None


def test_series_that_is_known_to_be_short_is_waited_for() -> None:
    short = arriving(announced(Source.MPPS, {"1": (40, 38)}), series={"1": 38})
    assert enough(short, 59) is None
    assert enough(short, 60) == "no image of the series for 60 s"
