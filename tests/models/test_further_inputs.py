"""Further images of a run: decoded, brought onto the grid of the first, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from tests.models.tiny import axial_series, write_all
from triage.core.analysis import InputRefusedError
from triage.core.manifest import ModelManifest, parse_manifest
from triage.models.further_inputs import FurtherInputs, load_further_volumes
from triage.models.sources import Source
from triage.models.tensors import ModelInput
from triage.models.volume import load_volume

FRAME = "1.2.3.99"


def manifest(**second: Any) -> ModelManifest:
    """Return the manifest of a model with two inputs, the second with these keys."""
    from tests.store.rows import manifest as of_one

    content = of_one()
    accepts = content.pop("accepts")
    content["inputs"] = [
        {"name": "first", "accepts": accepts},
        {"name": "second", "accepts": accepts, **second},
    ]
    return parse_manifest(content, source="model.yaml")


def ramp(slices: int, frame: str | None = FRAME, first_mm: float = 0.0, mm: float = 5.0) -> Any:
    """Return slices whose values are their depth in mm times ten."""
    depths = [first_mm + mm * n for n in range(slices)]
    values = np.empty((slices, 12, 10), np.int16)
    values[:] = (np.array(depths) * 10)[:, None, None]
    images = axial_series(values, depths_mm=depths)
    for image in images:
        if frame is not None:
            image.FrameOfReferenceUID = frame
    return images


def load(first: list[Dataset], second: list[Dataset], wanted: ModelManifest, folder: Path) -> Any:
    """Return the further inputs, and the first volume."""
    volume = load_volume(write_all(first, folder / "first"))
    sources: dict[str, list[Source]] = {"second": write_all(second, folder / "second")}
    prepared = ModelInput(volume.values, volume.affine)
    return load_further_volumes(wanted, sources, volume, prepared), volume


def test_unaligned_volume_keeps_its_own_grid(tmp_path: Path) -> None:
    further, _ = load(ramp(6), ramp(11, first_mm=2.5, mm=2.5), manifest(), tmp_path)
    image = further.images["second"]
    assert image.values.shape == (11, 12, 10)
    assert image.affine[2, 2] == pytest.approx(2.5)


def test_aligned_volume_lies_on_the_grid_of_the_first(tmp_path: Path) -> None:
    second = ramp(11, first_mm=2.5, mm=2.5)
    further, volume = load(ramp(6), second, manifest(align="first"), tmp_path)
    image = further.images["second"]
    assert image.values.shape == volume.values.shape
    np.testing.assert_allclose(image.affine, volume.affine)
    # Values are depths, so that what lies at the same place has the same value in both.
    np.testing.assert_allclose(image.values[1:], volume.values[1:], atol=0.01)
    assert (image.values[0] == -1000).all()  # the second begins 2.5 mm further on


def test_alignment_is_refused_where_nothing_says_that_the_places_are_the_same(
    tmp_path: Path,
) -> None:
    wanted = manifest(align="first")
    for name, second, because in (
        ("other", ramp(6, frame="1.2.3.98"), "is not the first input's"),
        ("unstated", ramp(6, frame=None), "is not stated"),
        ("elsewhere", ramp(6, first_mm=500.0), "it shows no part of what the first input shows"),
    ):
        with pytest.raises(InputRefusedError, match=f"input second: .*{because}"):
            load(ramp(6), second, wanted, tmp_path / name)


def test_what_is_no_volume_names_the_input(tmp_path: Path) -> None:
    with pytest.raises(InputRefusedError, match="input second: the series has 1 images"):
        load(ramp(6), ramp(6)[:1], manifest(), tmp_path)


def test_required_input_must_be_given_and_an_optional_one_need_not(tmp_path: Path) -> None:
    volume = load_volume(write_all(ramp(6), tmp_path))
    prepared = ModelInput(volume.values, volume.affine)
    with pytest.raises(InputRefusedError, match="input second: no series was given"):
        load_further_volumes(manifest(), {}, volume, prepared)
    none = load_further_volumes(manifest(optional=True), {}, volume, prepared)
    assert none.images == {}
    assert none.input_sha256("ab") == "ab"


def test_digest_is_over_all_inputs() -> None:
    one = FurtherInputs({}, {"second": "cd"}, ()).input_sha256("ab")
    other = FurtherInputs({}, {"second": "ce"}, ()).input_sha256("ab")
    assert len({one, other, "ab"}) == 3
