"""The watermarks of the disk."""

from __future__ import annotations

from structlog.testing import capture_logs

from triage.store.disk import DiskFullError, DiskLevel, Watermarks


class Disk:
    """A disk whose free bytes a test sets."""

    free = 1000

    def __call__(self) -> int:
        return self.free


def is_taken(watermarks: Watermarks, size: int = 10) -> bool:
    """Return whether an instance of `size` bytes is let in."""
    try:
        watermarks.hold_room(size)
    except DiskFullError:
        return False
    watermarks.free_room(size)
    return True


def test_warning_comes_first_then_refusal_until_there_is_room_again() -> None:
    disk = Disk()
    watermarks = Watermarks(disk, minimum=100, resume=200, warning=500)
    seen = []
    for disk.free in (1000, 499, 99, 150, 199, 200, 600):
        seen.append((is_taken(watermarks), watermarks.level()))
    low, refusing, roomy = DiskLevel.LOW, DiskLevel.REFUSING, DiskLevel.ROOMY
    assert seen == [
        (True, roomy),
        (True, low),
        (False, refusing),
        (False, refusing),
        (False, refusing),
        (True, low),
        (True, roomy),
    ]


def test_each_change_is_logged_once() -> None:
    disk = Disk()
    watermarks = Watermarks(disk, minimum=100, resume=200, warning=500)
    with capture_logs() as lines:
        for disk.free in (1000, 400, 300, 50, 40, 150, 300, 900):
            is_taken(watermarks)
    levels = [line["level"] for line in lines]
    assert levels == ["low", "refusing", "low", "roomy"]


def test_what_is_being_written_counts() -> None:
    disk = Disk()
    watermarks = Watermarks(disk, minimum=100)
    watermarks.hold_room(500)
    assert not is_taken(watermarks, 500)
    assert is_taken(watermarks, 300)
    watermarks.free_room(500)
    assert is_taken(watermarks, 500)


def test_one_large_instance_that_does_not_fit_keeps_small_ones_in() -> None:
    watermarks = Watermarks(Disk(), minimum=100, resume=200)
    assert not is_taken(watermarks, 950)
    assert is_taken(watermarks, 10)
