"""Every kind of object from every kind of source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy, deepcopy
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from tests.results.modalities import (
    ALL_KINDS,
    SOURCES,
    Made,
    analysis_of,
    make,
    manifest_of_all_kinds,
)
from tests.results.scenes import PRODUCED_AT, run_tool
from triage.results.build import BuiltObject, build_results
from triage.results.errors import ResultError
from triage.settings import ResultSettings

# What dciodvfy does not know yet: that a Label Map is a segmentation too.
NOT_KNOWN_TO_DCIODVFY = "Shall not be present for Referenced SOP Class that is not segmentation"
# Where no direction in the patient is stated, no map can state one.
WITHOUT_MAP = {"US", "US, palette", "US, multi-frame"}


# The kinds whose pixels or segments are derived from images; the others refer to them.
DERIVED = {"seg", "heat-map", "parametric-map", "secondary-capture"}


def _errors_of(file: Path) -> set[str]:
    said = run_tool("dciodvfy", "-new", file).errors()
    return {line for line in said if NOT_KNOWN_TO_DCIODVFY not in line}


def _written(built: BuiltObject, folder: Path) -> Path:
    dataset = built.dataset
    if dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        dataset = copy(dataset)
        dataset.file_meta = deepcopy(dataset.file_meta)
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian  # dciodvfy inflates nothing
    file = folder / f"{built.role}-{built.variant}-{dataset.InstanceNumber}.dcm"
    dataset.save_as(file, enforce_file_format=True)
    return file


def _references(dataset: Dataset) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield each image that frames or pixels were derived from, with its frames."""
    items = [dataset, *dataset.get("PerFrameFunctionalGroupsSequence", ())]
    derivations = [d for i in items for d in i.get("DerivationImageSequence", ())]
    for holder in (dataset, *derivations):
        for source in holder.get("SourceImageSequence", ()):
            frames = source.get("ReferencedFrameNumber") or ()
            named = (frames,) if isinstance(frames, int) else frames
            yield str(source.ReferencedSOPInstanceUID), tuple(map(int, named))


@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_is_valid_and_says_where_it_comes_from(
    name: str, made: Callable[[str], Made], tmp_path: Path
) -> None:
    images, built = made(name).images, made(name).built
    expected = set(ALL_KINDS) - ({"parametric-map"} if name in WITHOUT_MAP else set())
    expected -= set() if images.has_place else {"rtstruct"}
    assert {each.role for each in built if not each.variant} == expected

    header = images.header
    own_errors = _errors_of(images.files[0])
    uids = {str(pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID) for f in images.files}
    for each in built:
        dataset = each.dataset
        assert _errors_of(_written(each, tmp_path)) <= own_errors, f"{each.role} {each.variant}"
        assert dataset.StudyInstanceUID == header.StudyInstanceUID
        assert str(dataset.PatientID or "") == str(header.get("PatientID") or "")
        assert dataset.SeriesInstanceUID != header.SeriesInstanceUID
        for uid, frames in _references(dataset):
            assert uid in uids
            assert set(frames) <= set(images.frames or (1,))
        if images.has_place and each.role in ("seg", "parametric-map", "rtstruct"):
            assert dataset.FrameOfReferenceUID == header.FrameOfReferenceUID


@pytest.mark.parametrize("name", ["DX", "CT, oblique series"])
def test_derived_images_name_the_images_that_they_are_derived_from(
    name: str, made: Callable[[str], Made]
) -> None:
    for each in made(name).built:
        if each.role in DERIVED:
            assert list(_references(each.dataset)), each.role


def test_of_a_multi_frame_image_only_analysed_frames_are_named(made: Callable[[str], Made]) -> None:
    for each in made("MR, enhanced multi-frame").built:
        if each.role == "seg":
            named = [frames for _, frames in _references(each.dataset)]
            assert all(frames and set(frames) <= {6, 7, 8, 9, 10} for frames in named)
    for each in made("XA, multi-frame").built:
        if each.role in DERIVED:
            assert {frames for _, frames in _references(each.dataset)} == {(3,)}, each.role


def test_what_was_analysed_is_not_changed_by_what_is_made_of_it(
    made: Callable[[str], Made],
) -> None:
    built = made("MR, enhanced multi-frame").built
    report = next(e.dataset for e in built if e.role == "sr")
    named = [e.value for e in report.iterall() if e.keyword == "ReferencedFrameNumber"]
    # Five of ten frames were analysed: what is absent is absent on these.
    assert [6, 7, 8, 9, 10] in [list(value) for value in named if not isinstance(value, int)]


def test_all_objects_have_uids_of_their_own_and_the_same_again(tmp_path: Path) -> None:
    images = SOURCES["DX"](tmp_path)
    first, second = make(images), make(images)
    uids = [str(each.dataset.SOPInstanceUID) for each in first]
    assert len(set(uids)) == len(uids)
    assert uids == [str(each.dataset.SOPInstanceUID) for each in second]
    series = {(each.role, each.variant): str(each.dataset.SeriesInstanceUID) for each in first}
    assert len(set(series.values())) == len(series)
    for one, other in zip(first, second, strict=True):
        assert one.dataset == other.dataset


def test_each_kind_has_its_series_number(made: Callable[[str], Made]) -> None:
    built = made("CT").built
    digits = {each.role: int(each.dataset.SeriesNumber) % 10 for each in built}
    assert digits == {kind: number for number, kind in enumerate(ALL_KINDS, start=1)}


def test_an_analysis_of_another_shape_is_refused(tmp_path: Path) -> None:
    images = SOURCES["CT, oblique series"](tmp_path)
    analysis = analysis_of(images)
    wrong = {key: values[1:] for key, values in analysis.probabilities.items()}
    with pytest.raises(ResultError, match="the probabilities has shape"):
        build_results(
            replace(analysis, probabilities=wrong),
            manifest_of_all_kinds(),
            study_instance_uid=str(images.header.StudyInstanceUID),
            settings=ResultSettings(),
            produced_at=PRODUCED_AT,
        )
