"""Parametric Maps: the model's numbers, with what they are and where they lie."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from highdicom.pm import ParametricMap
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from tests.results.modalities import SOURCES, analysis_of, manifest_of_all_kinds
from tests.results.scenes import (
    build,
    chest_analysis,
    chest_manifest,
    run_tool,
    save,
    write_chest,
)
from triage.core.analysis import Analysis
from triage.core.manifest import ResultSpec

MAP_ONLY = manifest_of_all_kinds().model_copy(
    update={"results": ResultSpec(objects=("parametric-map",))}
)


def _values(dataset: Dataset) -> NDArray[np.float32]:
    values = np.frombuffer(dataset.FloatPixelData, "<f4")
    return values.reshape(int(dataset.NumberOfFrames), dataset.Rows, dataset.Columns)


def _sources(dataset: Dataset) -> list[tuple[str, int | None]]:
    """Return the image, and its frame, that each frame of the map was derived from."""
    named = [
        derivation.SourceImageSequence[0]
        for frame in dataset.PerFrameFunctionalGroupsSequence
        for derivation in frame.DerivationImageSequence
    ]
    return [(str(n.ReferencedSOPInstanceUID), n.get("ReferencedFrameNumber")) for n in named]


def _analysed(analysis: Analysis) -> list[tuple[str, int | None]]:
    [first, *_] = uids = analysis.source_sop_instance_uids
    return [(first, f) for f in analysis.source_frames] or [(uid, None) for uid in uids]


def _mapping(dataset: Dataset) -> Dataset:
    return dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]


def _chest_map(folder: Path, **changes: Any) -> Dataset | None:
    analysis = chest_analysis(write_chest(folder, **changes))
    manifest = chest_manifest(results={"objects": ["parametric-map"]})
    return next((each.dataset for each in build(analysis, manifest)), None)


@pytest.mark.parametrize("name", ["CT, oblique series", "MR, enhanced multi-frame"])
def test_probabilities_are_on_the_voxels_of_the_source(name: str, tmp_path: Path) -> None:
    analysis = analysis_of(SOURCES[name](tmp_path / "source"))
    [built] = build(analysis, MAP_ONLY)
    dataset = built.dataset
    places = [_analysed(analysis).index(named) for named in _sources(dataset)]
    assert sorted(places) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(_values(dataset), analysis.probabilities["hemorrhage"][places])
    mapping = _mapping(dataset)
    quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
    assert (quantity.CodeValue, quantity.CodeMeaning) == ("122157", "Probability")
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert mapping.LUTExplanation == "Probability: Intracranial hemorrhage"
    assert mapping.RealWorldValueSlope == 1


@pytest.mark.parametrize("name", ["CT, oblique series", "MR, enhanced multi-frame", "NM"])
def test_dcmqi_reads_the_same_numbers_in_the_same_places(name: str, tmp_path: Path) -> None:
    analysis = analysis_of(SOURCES[name](tmp_path / "source"))
    file = save(build(analysis, MAP_ONLY), tmp_path)["parametric-map"]
    arguments = ("--inputDICOM", file, "--outputDirectory", tmp_path, "-t", "nii")
    assert run_tool("paramap2itkimage", *arguments).errors() == []
    content = gzip.decompress((tmp_path / "pmap.nii.gz").read_bytes())
    start = int(np.frombuffer(content, "<f4", count=1, offset=108)[0])
    said = analysis.probabilities["hemorrhage"]
    read = np.frombuffer(content, "<f4", offset=start).reshape(said.shape)
    np.testing.assert_array_equal(read, said)


def test_only_slices_that_show_something_are_written(tmp_path: Path) -> None:
    analysis = analysis_of(SOURCES["CT, oblique series"](tmp_path))
    shown = np.array([0, 1, 1, 1, 0], np.float32)[:, None, None]
    faint = analysis.probabilities["hemorrhage"] * shown
    [built] = build(replace(analysis, probabilities={"hemorrhage": faint}), MAP_ONLY)
    assert isinstance(built.dataset, ParametricMap)
    places = [_analysed(analysis).index(named) for named in _sources(built.dataset)]
    assert sorted(places) == [1, 2, 3]
    np.testing.assert_array_equal(_values(built.dataset), faint[places])


def test_a_heat_map_says_what_counted_and_no_probability(tmp_path: Path) -> None:
    dataset = _chest_map(tmp_path)
    assert dataset is not None
    quantity = _mapping(dataset).QuantityDefinitionSequence[0].ConceptCodeSequence[0]
    assert (quantity.CodeValue, quantity.CodeMeaning) == ("130404", "Saliency")
    assert _values(dataset).max() == 1


def test_a_projection_lies_in_a_frame_of_reference_of_its_own(tmp_path: Path) -> None:
    dataset = _chest_map(tmp_path, FrameOfReferenceUID="1.2.3", PatientOrientation=["L", "F"])
    assert dataset is not None
    assert dataset.FrameOfReferenceUID != "1.2.3"
    [orientation] = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    assert orientation.ImageOrientationPatient == [1, 0, 0, 0, 0, -1]


@pytest.mark.parametrize(
    "changes",
    [
        {"PatientOrientation": None},
        {"PatientOrientation": ["L", "R"]},
        {"ImagerPixelSpacing": None},
    ],
    ids=["no orientation", "two ways along one line", "no spacing"],
)
def test_no_map_states_what_its_image_does_not(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert _chest_map(tmp_path, **changes) is None


def test_every_finding_has_a_map_of_its_own(tmp_path: Path) -> None:
    images = SOURCES["DX"](tmp_path)
    built = build(analysis_of(images), MAP_ONLY)
    said = [_mapping(each.dataset).LUTExplanation for each in built]
    assert said == ["Probability: Intracranial hemorrhage", "Saliency: Pneumothorax"]
    assert [int(each.dataset.InstanceNumber) for each in built] == [1, 2]
    assert len({str(each.dataset.SeriesInstanceUID) for each in built}) == 1
    assert pydicom.uid.UID(built[0].dataset.SOPClassUID).name == "Parametric Map Storage"
