"""Single images: PNG and DICOM give a model the same, and heat maps come back to their pixels."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from triage.core.analysis import InputRefusedError
from triage.core.manifest import ImageInput, InputSpec
from triage.models.radiograph import (
    heat_map_on_source,
    load_radiograph,
    model_input,
    resized,
)
from triage.models.sources import Source
from triage.simulator.radiograph import Examination, Subject, radiograph

ACCEPTS = InputSpec(modalities=("DX",), view_positions=("PA", "AP"))
PERCENTILE = ImageInput(
    kind="image", size=32, scaling="percentile", lower_percentile=0.5, upper_percentile=99.5
)
BITS = ImageInput(kind="image", size=32, scaling="bits")


def picture(rows: int = 96, columns: int = 80) -> NDArray[np.uint8]:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:rows, :columns]
    smooth = 90 + 60 * np.sin(x / 9.0) * np.cos(y / 13.0) + rng.normal(0, 5, (rows, columns))
    return np.clip(smooth, 0, 255).astype(np.uint8)


def as_dicom(folder: Path, pixels: NDArray[np.uint8], name: str = "a", **how: object) -> Source:
    examination = Examination("A1", datetime(2026, 1, 1, tzinfo=UTC))
    ds = radiograph(pixels, Subject("P1"), examination, **how)  # type: ignore[arg-type]
    return write(folder, ds, name)


def write(folder: Path, ds: Dataset, name: str) -> Source:
    path = folder / f"{name}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return str(ds.SOPInstanceUID), path


def as_png(folder: Path, pixels: NDArray[np.uint8]) -> Source:
    Image.fromarray(pixels).save(folder / "a.png")
    return "a.png", folder / "a.png"


@pytest.mark.parametrize("wanted", [PERCENTILE, BITS])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_png_and_dicom_of_one_picture_are_the_same_input(
    tmp_path: Path, wanted: ImageInput, photometric: str
) -> None:
    pixels = picture()
    png = load_radiograph([as_png(tmp_path, pixels)], ACCEPTS)
    source = as_dicom(tmp_path, pixels, photometric_interpretation=photometric)
    dicom = load_radiograph([source], ACCEPTS)
    expected = model_input(png, wanted)
    assert expected.shape == (1, 1, 32, 32)
    assert expected.dtype == np.float32
    assert 0 <= expected.min() < expected.max() <= 1
    np.testing.assert_allclose(model_input(dicom, wanted), expected, atol=1e-5)


def test_deep_pixels_are_the_same_picture(tmp_path: Path) -> None:
    pixels = picture()
    deep = pixels.astype(np.uint16) * 16  # the same picture in 12 bits
    expected = model_input(load_radiograph([as_png(tmp_path, pixels)], ACCEPTS), PERCENTILE)
    source = as_dicom(tmp_path, deep, bits_stored=12)  # type: ignore[arg-type]
    found = model_input(load_radiograph([source], ACCEPTS), PERCENTILE)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_window_is_applied(tmp_path: Path) -> None:
    pixels = picture()
    examination = Examination("A1", datetime(2026, 1, 1, tzinfo=UTC))
    ds = radiograph(pixels, Subject("P1"), examination)
    ds.WindowCenter, ds.WindowWidth = "100", "50"
    shown = load_radiograph([write(tmp_path, ds, "a")], ACCEPTS)
    assert shown.display[pixels < 74].max() == 0
    assert shown.display[pixels > 126].min() == 255


def test_voi_lut_is_applied(tmp_path: Path) -> None:
    pixels = picture()
    examination = Examination("A1", datetime(2026, 1, 1, tzinfo=UTC))
    ds = radiograph(pixels, Subject("P1"), examination)
    del ds.WindowCenter, ds.WindowWidth
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, 0, 16])
    item.add_new("LUTData", "US", [int(65535 * (v / 255) ** 2) for v in range(256)])
    ds.VOILUTSequence = [item]
    shown = load_radiograph([write(tmp_path, ds, "a")], ACCEPTS)
    assert shown.greatest == 65535
    np.testing.assert_allclose(shown.display, 65535 * (pixels / 255.0) ** 2, atol=1.0)


def test_padding_is_as_dark_as_the_image(tmp_path: Path) -> None:
    pixels = picture()
    pixels[:10] = 255
    examination = Examination("A1", datetime(2026, 1, 1, tzinfo=UTC))
    ds = radiograph(pixels, Subject("P1"), examination)
    ds.add_new("PixelPaddingValue", "US", 255)
    shown = load_radiograph([write(tmp_path, ds, "a")], ACCEPTS)
    assert (shown.display[:10] == shown.display[10:].min()).all()


def test_frontal_view_of_a_series_is_chosen(tmp_path: Path) -> None:
    pixels = picture()
    examination = Examination("A1", datetime(2026, 1, 1, tzinfo=UTC))
    lateral = radiograph(pixels, Subject("P1"), examination)
    lateral.ViewPosition = "LL"
    frontal = radiograph(
        pixels, Subject("P1"), Examination("A1", examination.acquired, instance_number=2)
    )
    sources = [write(tmp_path, lateral, "l"), write(tmp_path, frontal, "f")]
    chosen = load_radiograph(sources, ACCEPTS)
    assert chosen.instance.sop_instance_uid == frontal.SOPInstanceUID
    assert chosen.remarks == ("1 further images of the series not analysed",)
    with pytest.raises(InputRefusedError, match=r"none of the 1 images .* has an accepted view"):
        load_radiograph(sources[:1], ACCEPTS)


def test_blank_image_is_refused(tmp_path: Path) -> None:
    blank = load_radiograph([as_png(tmp_path, np.full((40, 40), 9, np.uint8))], ACCEPTS)
    with pytest.raises(InputRefusedError, match=r"a\.png is blank"):
        model_input(blank, PERCENTILE)


def test_broken_png_is_refused(tmp_path: Path) -> None:
    uid, path = as_png(tmp_path, picture())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputRefusedError, match=r"the image a\.png cannot be decoded"):
        load_radiograph([(uid, path)], ACCEPTS)


def test_heat_map_comes_back_to_the_pixels_that_it_is_about(tmp_path: Path) -> None:
    pixels = picture(rows=96, columns=64)
    source = load_radiograph([as_png(tmp_path, pixels)], ACCEPTS)
    heat = np.zeros((8, 8), np.float32)
    heat[2, 5] = 1.0
    there = heat_map_on_source(heat, source)
    assert there.shape == (96, 64)
    row, column = np.unravel_index(int(there.argmax()), there.shape)
    assert 2 * 12 <= row < 3 * 12
    assert 5 * 8 <= column < 6 * 8


@pytest.mark.parametrize("shape", [(20, 24), (200, 150)])
def test_stretching_equals_what_recipes_train_with(shape: tuple[int, int]) -> None:
    import torch

    values = picture().astype(np.float32) / 255
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None],
        size=shape,
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )[0, 0].numpy()
    np.testing.assert_allclose(resized(values, shape), expected, atol=2e-6)
