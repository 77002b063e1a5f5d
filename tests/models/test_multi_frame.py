"""Multi-frame images: which frames are one volume, and what each frame says of itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from tests.models.images import enhanced, item, reconstructed_tomogram, written
from tests.models.test_radiograph import ACCEPTS
from triage.core.analysis import InputRefusedError
from triage.core.manifest import ImageInput, InputSpec, VolumeInput
from triage.core.manifest.tensors import FrameSelection
from triage.models.radiograph import load_radiograph
from triage.models.scope import check_scope
from triage.models.volume import load_volume


def numbered(frames: int) -> np.ndarray:
    """Return frames whose pixels are their number, from 1."""
    return np.arange(1, frames + 1, dtype=np.int16)[:, None, None] * np.ones((1, 6, 5), np.int16)


def up(depths: list[float]) -> list[list[float]]:
    return [[-10.0, -20.0, depth] for depth in depths]


def test_frames_are_sorted_by_place_and_each_has_its_own_rescale(tmp_path: Path) -> None:
    transformation = [
        {"PixelValueTransformationSequence": item(RescaleSlope=str(n), RescaleIntercept="-5")}
        for n in (1, 2, 3, 4)
    ]
    dataset = enhanced(numbered(4), up([9, 6, 3, 0]), per_frame=transformation)
    volume = load_volume(written(dataset, tmp_path))
    assert volume.frame_numbers == (4, 3, 2, 1)
    assert volume.values[:, 0, 0].tolist() == [11, 4, -1, -4]
    assert volume.spacing_mm == (3.0, 0.5, 0.5)
    assert [i.sop_instance_uid for i in volume.instances] == [dataset.SOPInstanceUID]


def diffusion(b_values: list[float]) -> Dataset:
    """Return three slices for each b-value, one volume after the other."""
    groups = [{"MRDiffusionSequence": item(DiffusionBValue=b)} for b in b_values for _ in range(3)]
    places = up([0, 2, 4]) * len(b_values)
    return enhanced(numbered(len(groups)), places, per_frame=groups, is_mr=True)


def test_of_several_volumes_the_manifest_chooses(tmp_path: Path) -> None:
    sources = written(diffusion([1000, 0, 500]), tmp_path)
    high = FrameSelection(diffusion_b_value={"minimum": 800, "maximum": 1200})
    assert load_volume(sources, VolumeInput(select=high)).frame_numbers == (1, 2, 3)
    first = load_volume(sources)
    assert first.frame_numbers == (4, 5, 6)
    assert first.remarks == (
        "the series holds 3 volumes that differ in b-value (0, 500, 1000 s/mm2); the first is "
        "analysed",
    )
    digests = {first.input_sha256, load_volume(sources, VolumeInput(select=high)).input_sha256}
    assert len(digests) == 2
    with pytest.raises(InputRefusedError, match="3 volumes that differ in b-value"):
        load_volume(sources, VolumeInput(several_volumes="refuse"))
    with pytest.raises(InputRefusedError, match="no image has a temporal position"):
        load_volume(sources, VolumeInput(select=FrameSelection(temporal_position={"minimum": 1})))


def test_stacks_are_volumes_of_their_own(tmp_path: Path) -> None:
    groups = [{"FrameContentSequence": item(StackID=s)} for s in ("1", "1", "1", "2", "2", "2")]
    dataset = enhanced(numbered(6), up([0, 2, 4, 40, 42, 44]), per_frame=groups)
    sources = written(dataset, tmp_path)
    assert load_volume(sources).frame_numbers == (1, 2, 3)
    second = VolumeInput(select=FrameSelection(stack="2"))
    assert load_volume(sources, second).frame_numbers == (4, 5, 6)
    with pytest.raises(InputRefusedError, match="no image belongs to stack 3"):
        load_volume(sources, VolumeInput(select=FrameSelection(stack="3")))


def test_echo_times_that_differ_from_slice_to_slice_are_one_volume(tmp_path: Path) -> None:
    groups = [{"MREchoSequence": item(EffectiveEchoTime=30.0 + n / 100)} for n in range(4)]
    dataset = enhanced(numbered(4), up([0, 2, 4, 6]), per_frame=groups, is_mr=True)
    assert len(load_volume(written(dataset, tmp_path)).values) == 4


def test_of_several_multi_frame_images_the_largest_is_the_volume(tmp_path: Path) -> None:
    small = written(enhanced(numbered(2), up([0, 2])), tmp_path, "small")
    large = written(enhanced(numbered(4), up([0, 2, 4, 6])), tmp_path, "large")
    volume = load_volume([*small, *large])
    assert set(volume.sop_instance_uids) == {large[0][0]}
    assert volume.remarks == ("2 frames of other images of the series left out",)


@pytest.mark.parametrize("spacing_mm", [4.0, -4.0])
def test_reconstructed_tomogram_is_a_volume(tmp_path: Path, spacing_mm: float) -> None:
    volume = load_volume(written(reconstructed_tomogram(numbered(3), spacing_mm), tmp_path))
    assert volume.frame_numbers == ((1, 2, 3) if spacing_mm > 0 else (3, 2, 1))
    lowest = 30.0 if spacing_mm > 0 else 22.0
    assert volume.affine[:3, 3].tolist() == [-10.0, -20.0, lowest]


def test_number_of_frames_that_are_not_described_is_refused(tmp_path: Path) -> None:
    dataset = enhanced(numbered(3), up([0, 2, 4]))
    dataset.NumberOfFrames = 5
    with pytest.raises(InputRefusedError, match="is 5, and 3 frames are described"):
        load_volume(written(dataset, tmp_path))


@pytest.mark.parametrize(
    ("accepted", "reason"),
    [
        ({"slice_thickness_mm": {"maximum": 1}}, "slices of 2 mm, model accepts up to 1 mm"),
        ({"pixel_spacing_mm": {"minimum": 1}}, "pixels of 0.5 mm, model accepts from 1 mm"),
        (
            {"slice_spacing_mm": {"minimum": 1, "maximum": 2.5}},
            "a slice distance of 3 mm, model accepts from 1 up to 2.5 mm",
        ),
    ],
)
def test_what_only_frames_say_is_held_against_the_manifest(
    tmp_path: Path, accepted: dict[str, dict[str, float]], reason: str
) -> None:
    volume = load_volume(written(enhanced(numbered(3), up([0, 3, 6])), tmp_path))
    check_scope(volume, InputSpec(modalities=("CT",)))
    with pytest.raises(InputRefusedError, match=reason):
        check_scope(volume, InputSpec.model_validate({"modalities": ["CT"]} | accepted))


@pytest.mark.parametrize(
    ("frame", "expected"), [("first", 1), ("middle", 4), ("representative", 2)]
)
def test_image_model_takes_the_frame_that_its_manifest_names(
    tmp_path: Path, frame: str, expected: int
) -> None:
    dataset = enhanced(numbered(7), up([0.0] * 7))
    dataset.RepresentativeFrameNumber = 2
    wanted = ImageInput(kind="image", size=32, frame=frame)
    shown = load_radiograph(written(dataset, tmp_path), ACCEPTS, wanted)
    assert shown.frame_numbers == (expected,)
    assert shown.display[0, 0] == expected
    assert shown.remarks == (f"frame {expected} of 7 analysed",)


def test_image_model_refuses_frames_unless_its_manifest_names_one(tmp_path: Path) -> None:
    sources = written(enhanced(numbered(3), up([0.0] * 3)), tmp_path)
    with pytest.raises(InputRefusedError, match="its Number of Frames is 3"):
        load_radiograph(sources, ACCEPTS)
