"""Head CTs in several forms, and what was built of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedCTImage

from tests.orthanc import Orthanc
from tests.results.modalities import SOURCES, Made, make
from tests.results.scenes import build, by_position, head_analysis, head_manifest, save
from triage.core.analysis import Analysis
from triage.results.build import BuiltObject
from triage.results.sources import repair


@pytest.fixture(scope="session")
def head_files(shared_data: Path) -> tuple[Path, ...]:
    """28 slices of a real head CT with gantry tilt, uneven distances and missing attributes."""
    return by_position(sorted((shared_data / "dicom" / "head-ct-ge").glob("*.dcm")))


@pytest.fixture(scope="session")
def straight_head_files(
    head_files: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ...]:
    """The same slices upright and 5 mm apart: the only geometry that ITK files can hold."""
    folder = tmp_path_factory.mktemp("straight")
    series = pydicom.uid.generate_uid()
    files = []
    for number, file in enumerate(head_files):
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID = series
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = (
            pydicom.uid.generate_uid()
        )
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [-125, -125, 5 * number]
        dataset.SliceThickness = 5
        files.append(folder / f"{number:02}.dcm")
        dataset.save_as(files[-1])
    return tuple(files)


@pytest.fixture(scope="session")
def head(head_files: tuple[Path, ...]) -> Analysis:
    """The analysis of the head CT that finds hemorrhage."""
    return head_analysis(head_files)


@pytest.fixture(scope="session")
def head_results(head: Analysis) -> tuple[BuiltObject, ...]:
    """SEG, SR and heat map of the head CT, not to be altered."""
    return build(head, head_manifest())


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """What is made of each of `SOURCES`, built once and not to be altered."""

    @cache
    def made_of(name: str) -> Made:
        folder = tmp_path_factory.mktemp("made")
        images = SOURCES[name](folder / "source")
        built = make(images)
        return Made(images, built, save([each for each in built if not each.variant], folder))

    return made_of


@pytest.fixture(scope="session")
def multi_frame_file(
    head_files: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Four slices of the head CT as one enhanced multi-frame image."""
    datasets = [pydicom.dcmread(file) for file in head_files[9:13]]
    study = str(datasets[0].StudyInstanceUID)
    image = LegacyConvertedEnhancedCTImage(
        legacy_datasets=[repair(dataset, study) for dataset in datasets],
        series_instance_uid=pydicom.uid.generate_uid(),
        series_number=2,
        sop_instance_uid=pydicom.uid.generate_uid(),
        instance_number=1,
    )
    file = tmp_path_factory.mktemp("enhanced") / "enhanced.dcm"
    image.save_as(file)
    return file


@pytest.fixture(scope="session")
def running_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An Orthanc for the tests that only look for what they sent."""
    orthanc = Orthanc(tmp_path_factory.mktemp("orthanc")).start()
    yield orthanc
    orthanc.kill()


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """An Orthanc that is not yet started and that the test may start and stop."""
    orthanc = Orthanc(tmp_path / "orthanc")
    yield orthanc
    orthanc.kill()
