"""Images are decoded while their study arrives, within bounds, and make no other result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from flows.arrivals import Arrivals
from tests.models.images import enhanced, written
from tests.models.tiny import axial_series, head_with_lesion, write_all
from tests.tools import ManualClock
from tests.web.hospital import Hospital
from triage.core.analysis import InputRefusedError
from triage.models.ahead import DecodedAhead
from triage.models.volume import load_volume
from triage.store.database import Database
from triage.store.files import InstanceFiles

ROOM = 64 * 1024**2


@pytest.fixture
def hospital(sqlite_database: Database, files: InstanceFiles, clock: ManualClock) -> Hospital:
    """A hospital with a model of CT."""
    hospital = Hospital(sqlite_database, files, clock)
    hospital.register_model()
    return hospital


def arrivals_of(hospital: Hospital, decoded: DecodedAhead) -> Arrivals:
    """Return one that has looked for the first time."""
    arrivals = Arrivals(hospital.database, hospital.files, decoded)
    arrivals.decode_now()
    return arrivals


def test_images_are_decoded_while_they_arrive_and_dropped_when_all_is_done(
    hospital: Hospital,
) -> None:
    decoded = DecodedAhead(ROOM)
    arrivals = arrivals_of(hospital, decoded)
    images = hospital.head_ct(slices=4, rows=32)
    study_uid = hospital.receive(*images[:2])
    arrivals.decode_now()
    assert decoded.used_bytes == 2 * 32 * 32 * 2
    hospital.receive(*images[2:])
    arrivals.decode_now()
    assert decoded.used_bytes == 4 * 32 * 32 * 2
    hospital.complete(study_uid)
    arrivals.decode_now()
    assert decoded.used_bytes  # its run is still to be done
    run = hospital.claim()
    hospital.finish(run)
    arrivals.decode_now()
    assert decoded.used_bytes == 0


def test_images_that_no_model_may_get_are_not_decoded(hospital: Hospital) -> None:
    decoded = DecodedAhead(ROOM)
    arrivals = arrivals_of(hospital, decoded)
    images = hospital.head_ct(slices=2, rows=32)
    for image in images:
        image.Modality = "MR"
    hospital.receive(*images)
    arrivals.decode_now()
    assert decoded.used_bytes == 0


def series(kind: str, folder: Path) -> list[tuple[str, Path]]:
    """Return the same volume as single-frame images or as one multi-frame image."""
    values, _ = head_with_lesion()
    if kind == "single":
        return write_all(axial_series(values), folder)
    return written(enhanced(values, [[-10, -20, 5 * n] for n in range(6)]), folder)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_volume_is_the_same_decoded_ahead_or_not(tmp_path: Path, kind: str) -> None:
    sources = series(kind, tmp_path)
    decoded = DecodedAhead(ROOM)
    assert all(decoded.add(1, source) for source in sources)
    cold, warm = load_volume(sources), load_volume(sources, read=decoded.read)
    np.testing.assert_array_equal(cold.values, warm.values)
    np.testing.assert_array_equal(cold.affine, warm.affine)
    assert cold.input_sha256 == warm.input_sha256
    assert len(warm.instances[0].decoded) == (1 if kind == "single" else 6)


def test_memory_is_bounded_and_a_changed_file_is_read_again(tmp_path: Path) -> None:
    values, _ = head_with_lesion()
    sources = write_all(axial_series(values), tmp_path)
    one = values[0].nbytes
    decoded = DecodedAhead(3 * one)
    assert sum(decoded.add(1, source) for source in sources) == 3
    assert decoded.used_bytes == 3 * one
    changed = write_all(axial_series(values + 1), tmp_path / "changed")
    for (_, path), (_, other) in zip(sorted(sources), sorted(changed), strict=True):
        path.write_bytes(other.read_bytes() + b"")
        path.touch()
    np.testing.assert_array_equal(load_volume(sources, read=decoded.read).values, values + 1)
    decoded.forget(frozenset({1}))
    assert (decoded.used_bytes, decoded.study_ids) == (0, frozenset())


def test_what_cannot_be_decoded_is_left_to_the_run_which_says_why(tmp_path: Path) -> None:
    images: list[Dataset] = axial_series(head_with_lesion()[0])
    images[2].PixelData = images[2].PixelData[:10]
    sources = write_all(images, tmp_path)
    decoded = DecodedAhead(ROOM)
    assert sum(decoded.add(1, source) for source in sources) == len(images) - 1
    with pytest.raises(InputRefusedError, match=r"pixel data of instance 1\.2\.3\.4 cannot be"):
        load_volume(sources, read=decoded.read)
    (tmp_path / "0000.dcm").unlink()
    with pytest.raises(InputRefusedError, match="cannot be read"):
        load_volume(sources, read=decoded.read)
