"""Where a study is opened."""

from __future__ import annotations

from dataclasses import dataclass

from triage.worklist.opening import opening_of
from triage.worklist.stacks import ImageView, SeriesView


@dataclass(frozen=True)
class Said:
    """What opening asks of a finding."""

    finding_id: int
    key_image_uids: tuple[str, ...] = ()
    key_image_frames: tuple[int, ...] = ()
    present: bool = True
    withdrawn: str = ""


def series(uid: str, *frames: int, is_result: bool = False) -> SeriesView:
    return SeriesView(
        series_instance_uid=uid,
        number=1,
        modality="CT",
        description="",
        body_part="",
        kind="image",
        is_result=is_result,
        is_superseded=False,
        model="",
        instances=len(frames),
        images=tuple(
            ImageView(
                sop_instance_uid=f"{uid}.{place}",
                number=place,
                frames=count,
                pixel_spacing_mm=None,
            )
            for place, count in enumerate(frames, start=1)
        ),
    )


LONG, SHORT = series("1", 1, 1, 1, 1, 1), series("2", 1, 1)
AI = series("9", *[1] * 20, is_result=True)


def opened(
    *findings: Said, of: tuple[SeriesView, ...] = (SHORT, LONG, AI)
) -> tuple[str, int] | None:
    found = opening_of(of, findings)
    return (found.sop_instance_uid, found.frame) if found else None


def test_at_the_key_image_of_the_most_urgent_finding_that_stands() -> None:
    withdrawn = Said(1, ("2.1",), withdrawn="withdrawn by ada")
    absent, nowhere = Said(2, ("2.1",), present=False), Said(3, ("7.7",))
    assert opened(withdrawn, absent, nowhere, Said(4, ("2.2", "1.1"), (3,))) == ("2.2", 3)


def test_in_the_middle_of_the_longest_received_series() -> None:
    assert opened() == ("1.3", 1)
    assert opened(of=(series("3", 4, 10),)) == ("3.2", 4)


def test_at_a_result_where_nothing_else_is_left_and_nowhere_without_images() -> None:
    assert opened(of=(AI,)) == ("9.11", 1)
    assert opened(of=()) is None
    assert opened(of=(series("4"),)) is None
