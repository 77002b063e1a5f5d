"""Series of real studies are told apart by what their headers say."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from tests.tools import PROJECT
from triage.core.characteristics import characteristics_of, image_instances
from triage.core.kinds import kinds_of
from triage.core.routing import explained, select_inputs
from triage.core.studies import Series
from triage.models.packages import load_package
from triage.models.try_model import read_study

MANIFEST = load_package(PROJECT / "model_registry/head-ct-hemorrhage/1.0.0").manifest


def words_of(series: Series) -> list[str]:
    """Return what the series is, in words."""
    return [rule.words for rule in kinds_of(image_instances(series))]


def test_scout_and_summary_of_a_head_study_are_recognized(shared_data: Path) -> None:
    study = read_study(shared_data / "dicom" / "head-phantom-multiseries")
    said = {len(series.instances): words_of(series)[:1] for series in study.series}
    assert said == {1: ["it is a localizer"], 6: ["it is a screen capture"], 28: []}
    (chosen,) = select_inputs(study, MANIFEST).chosen
    assert len(chosen.series.instances) == 28
    assert any(
        line.startswith("  chosen   series STD BRAIN") for line in explained(study, MANIFEST)
    )


def test_head_with_a_tilted_gantry_is_axial_original_and_soft(shared_data: Path) -> None:
    study = read_study(shared_data / "dicom" / "head-ct-ge")
    (series,) = study.series
    found = characteristics_of(series, study.patient)
    assert words_of(series) == []
    assert (found.orientations, found.kernel_kind, found.contrast) == (("axial",), "soft", None)
    assert found.common_image_types == {"ORIGINAL", "PRIMARY", "AXIAL"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("CT_small.dcm", []),
        ("MR_small.dcm", ["its images are secondary, not acquired"]),
        ("examples_overlay.dcm", ["its images are secondary, not acquired"]),
        ("SC_rgb_rle.dcm", ["its images are secondary, not acquired"]),
        ("693_J2KI.dcm", ["its images are derived, not original"]),
    ],
)
def test_files_of_pydicom(name: str, words: list[str], tmp_path: Path) -> None:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"this pydicom comes without {name}")
    (tmp_path / name).symlink_to(str(path))
    (series,) = read_study(tmp_path).series
    assert words_of(series)[:1] == words
