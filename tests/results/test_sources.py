"""Source images that break the standard, mended in memory."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from tests.results.scenes import write_chest
from triage.results.errors import ResultError
from triage.results.sources import read_sources, repair


def test_missing_type_2_attributes_become_empty(tmp_path: Path) -> None:
    file = write_chest(
        tmp_path, PatientSex=None, PatientBirthDate=None, StudyID=None, AccessionNumber=None
    )
    [source] = read_sources([file], study_instance_uid="1.2.3")
    for keyword in ("PatientSex", "PatientBirthDate", "StudyID", "AccessionNumber"):
        assert source[keyword].is_empty
    assert source.PatientName == "Muster^Anna"


def test_empty_type_1c_attributes_are_dropped() -> None:
    dataset = Dataset()
    dataset.DeidentificationMethod = ""
    dataset.PatientSize = 0
    dataset.IssuerOfPatientID = None
    repaired = repair(dataset, "1.2.3")
    assert "DeidentificationMethod" not in repaired
    assert "IssuerOfPatientID" not in repaired
    assert repaired.PatientSize == 0


def test_a_deidentified_patient_without_a_method_gets_one_that_says_so() -> None:
    dataset = Dataset()
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = ""
    assert repair(dataset, "1.2.3").DeidentificationMethod == "not stated by the source"


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientSex", "W"),
        ("PatientBirthDate", "1950"),
        ("StudyDate", "yesterday"),
        ("StudyTime", "8 o'clock"),
    ],
)
def test_values_that_no_result_may_repeat_become_empty(keyword: str, value: str) -> None:
    dataset = Dataset()
    tag = tag_for_keyword(keyword)
    assert tag is not None
    with warnings.catch_warnings(action="ignore"):  # pydicom's own, about the same values
        dataset[tag] = DataElement(tag, dictionary_VR(tag), value)
    assert repair(dataset, "1.2.3")[keyword].is_empty


def test_files_are_only_read(tmp_path: Path) -> None:
    file = write_chest(tmp_path, PatientSex=None, AccessionNumber="")
    before = file.read_bytes()
    read_sources([file], study_instance_uid="1.2.3")
    assert file.read_bytes() == before


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    file = tmp_path / "notes.dcm"
    file.write_text("not DICOM")
    with pytest.raises(ResultError, match=r"notes\.dcm"):
        read_sources([file], study_instance_uid="1.2.3")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"gone\.dcm cannot be read"):
        read_sources([tmp_path / "gone.dcm"], study_instance_uid="1.2.3")


def test_no_file_at_all_is_refused() -> None:
    with pytest.raises(ResultError, match="no source image"):
        read_sources([], study_instance_uid="1.2.3")
