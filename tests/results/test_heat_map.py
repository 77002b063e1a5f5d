"""The picture for those who see nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.data import get_testdata_file

from tests.results.scenes import build, chest_analysis, chest_manifest, write_chest
from triage.core.analysis import Analysis
from triage.decoding.heat_pictures import heat_of, picture_size, says_heat
from triage.results.build import BuiltObject
from triage.results.tint import to_picture, with_heat


def _picture(file: Path, *, is_present: bool = True) -> pydicom.Dataset | None:
    built = build(chest_analysis(file, is_present=is_present), chest_manifest())
    return next((each.dataset for each in built if each.role == "heat-map"), None)


def test_the_picture_says_that_it_is_burnt_in_and_what_it_is_of(tmp_path: Path) -> None:
    file = write_chest(tmp_path)
    picture = _picture(file)
    assert picture is not None
    source = pydicom.dcmread(file, stop_before_pixels=True)
    assert picture.BurnedInAnnotation == "YES"
    assert picture.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert picture.StudyInstanceUID == source.StudyInstanceUID
    assert picture.PatientOrientation == ["L", "F"]
    assert "PixelSpacing" not in picture
    assert picture.DerivationDescription == "Pneumothorax, chest-xray 2.1.0"


def test_text_stands_above_the_image_and_colour_where_the_heat_is(tmp_path: Path) -> None:
    picture = _picture(write_chest(tmp_path))
    assert picture is not None
    pixels = picture.pixel_array.astype(int)
    image_rows = 512
    banner, image = pixels[:-image_rows], pixels[-image_rows:]
    assert banner.shape[0] > 50
    assert banner.max() == 255
    colourful = image[..., 0] - image[..., 2] > 20
    scale = image_rows / 120
    assert colourful[int(25 * scale), int(75 * scale)]
    assert not colourful[int(80 * scale), int(20 * scale)]
    assert np.array_equal(image[-1, :, 0], image[-1, :, 2])


def test_heat_is_read_back_from_the_colours_of_the_picture(tmp_path: Path) -> None:
    file = write_chest(tmp_path, Rows=2400, Columns=2000, ImagerPixelSpacing=[0.2, 0.1])
    picture = _picture(file)
    assert picture is not None
    assert says_heat(picture)
    columns, rows = picture_size(pydicom.dcmread(file), 0)
    assert (columns, rows) == (round(2000 * 1024 / 4800), 1024)
    heat = heat_of(picture.pixel_array[-rows:])
    assert heat.shape == (1024, picture.Columns)
    middle_of_it = heat[round(25 / 2400 * 1024), round(75 / 2000 * columns)]
    assert middle_of_it == 255
    assert not heat[rows // 2 :].any()


@given(
    st.lists(
        st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)), min_size=1, max_size=64
    )
)
def test_any_heat_over_any_grey_is_read_back(pixels: list[tuple[float, float]]) -> None:
    grey, strength = np.array(pixels, np.float32).T
    base: NDArray[np.float32] = np.repeat(grey[np.newaxis, :, np.newaxis], 3, axis=-1)
    picture = to_picture(with_heat(base, strength[np.newaxis]))
    assert heat_of(picture)[0] / 255 == pytest.approx(strength, abs=1 / 140 + 1 / 510)


def test_nothing_present_makes_no_picture(tmp_path: Path) -> None:
    assert _picture(write_chest(tmp_path), is_present=False) is None


def test_an_inverted_radiograph_is_shown_as_it_is_read(tmp_path: Path) -> None:
    def bottom_of(**changes: str) -> float:
        picture = _picture(write_chest(tmp_path, **changes))
        assert picture is not None
        return float(picture.pixel_array[-1].mean())

    assert bottom_of() > 200
    assert bottom_of(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE") < 50


def test_a_large_radiograph_is_made_smaller(tmp_path: Path) -> None:
    picture = _picture(write_chest(tmp_path, Rows=2400, Columns=2000))
    assert picture is not None
    assert picture.Columns == round(2000 * 1024 / 2400)
    assert picture.Rows > 1024


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm"])
def test_images_of_other_kinds_can_be_shown(name: str) -> None:
    file = Path(str(get_testdata_file(name)))
    picture = _picture(file)
    assert picture is not None
    assert picture.pixel_array.std() > 5


def test_an_outline_is_shown_where_there_is_no_heat_map(
    head: Analysis, head_results: tuple[BuiltObject, ...]
) -> None:
    picture = next(each.dataset for each in head_results if each.role == "heat-map")
    shown = picture.SourceImageSequence[0].ReferencedSOPInstanceUID
    assert shown == head.findings[0].key_image_uids[0]
    image = picture.pixel_array[-512:].astype(int)
    assert head.segmentation is not None
    lesion = head.segmentation[11] == 3
    redness = image[..., 0] - image[..., 1]
    assert redness[lesion].mean() > 40
    assert redness[~lesion].mean() < 2
    assert not says_heat(picture)  # it would be taken for where the model looked
