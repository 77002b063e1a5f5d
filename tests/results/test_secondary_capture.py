"""Key images with the answer drawn into them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from tests.results.modalities import SOURCES, analysis_of, manifest_of_all_kinds
from tests.results.scenes import (
    build,
    chest_analysis,
    chest_manifest,
    head_analysis,
    head_manifest,
    write_chest,
)
from triage.core.analysis import Analysis
from triage.core.findings import Box
from triage.core.manifest import ResultSpec
from triage.results.build import BuiltObject
from triage.results.secondary_capture import MOST_PICTURES

KIND = "secondary-capture"
RED, BLUE = (255, 64, 64), (96, 176, 255)


def _pictures(analysis: Analysis, *, of_head: bool = False, **settings: Any) -> list[BuiltObject]:
    manifest = head_manifest() if of_head else manifest_of_all_kinds()
    only = manifest.model_copy(update={"results": ResultSpec(objects=(KIND,))})
    return list(build(analysis, only, **settings))


def _is(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((np.abs(pixels.astype(int) - colour) <= 2).all(axis=-1))


def test_each_key_image_is_drawn_with_an_outline_around_the_lesion(head: Analysis) -> None:
    built = _pictures(head, of_head=True)
    shown = [each.dataset.SourceImageSequence[0].ReferencedSOPInstanceUID for each in built]
    assert shown == list(head.findings[0].key_image_uids)
    assert [int(each.dataset.InstanceNumber) for each in built] == [1, 2]
    assert len({str(each.dataset.SeriesInstanceUID) for each in built}) == 1
    assert head.segmentation is not None
    image = built[0].dataset.pixel_array[-512:]
    rows, columns = np.nonzero(_is(image, RED))
    lesion = np.argwhere(head.segmentation[11] == 3)
    (top, left), (bottom, right) = lesion.min(axis=0), lesion.max(axis=0)
    drawn = np.array([rows.min(), columns.min(), rows.max(), columns.max()])
    assert np.abs(drawn - [top, left, bottom, right]).max() <= 2
    assert not _is(image, RED)[215, 225]  # within, the image is left as it is


def test_the_words_are_in_the_pixels_above_the_image(head: Analysis) -> None:
    [first, _] = _pictures(head, of_head=True)
    dataset = first.dataset
    assert dataset.BurnedInAnnotation == "YES"
    assert dataset.PhotometricInterpretation == "RGB"
    banner = dataset.pixel_array[:-512]
    assert _is(banner, (255, 210, 0)).sum() > 100  # the warning
    assert _is(banner, (255, 255, 255)).sum() > 100  # model, version and notice
    assert _is(banner, RED).sum() > 100  # the finding, in the colour of its outline


def test_boxes_and_outlines_of_several_findings_are_told_apart(tmp_path: Path) -> None:
    analysis = analysis_of(SOURCES["CT"](tmp_path))
    [built] = _pictures(analysis)
    image = built.dataset.pixel_array[-512:]
    scale = 512 / 128
    [box] = analysis.findings[1].boxes
    middle = round((box.left + box.right) / 2 * scale)
    assert _is(image, BLUE)[round(box.top * scale) + 1, middle]
    assert not _is(image, BLUE)[round((box.top + box.bottom) / 2 * scale), middle]
    assert _is(image, RED).any()
    heat = image[-40:, 80:160].astype(int)  # of the third, red to yellow in the lower left corner
    assert (heat[..., 0] - heat[..., 2]).mean() > 40


def test_a_box_without_key_images_is_drawn_where_it_lies(tmp_path: Path) -> None:
    analysis = analysis_of(SOURCES["CT, oblique series"](tmp_path))
    boxed = analysis.findings[1].model_copy(update={"key_image_uids": ()})
    absent = analysis.findings[0].model_copy(update={"present": False})
    [built] = _pictures(replace(analysis, findings=(absent, boxed, analysis.findings[2])))
    [source] = built.dataset.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == boxed.boxes[0].sop_instance_uid


def test_many_boxes_on_many_images_make_few_pictures(head: Analysis) -> None:
    boxes = tuple(
        Box(score=0.9, sop_instance_uid=uid, left=10, top=10, right=50, bottom=50)
        for uid in head.source_sop_instance_uids
    )
    boxed = head.findings[1].model_copy(update={"present": True, "boxes": boxes})
    built = _pictures(replace(head, findings=(head.findings[0], boxed)), of_head=True)
    assert len(built) == MOST_PICTURES


def test_nothing_present_makes_no_picture(head_files: tuple[Path, ...]) -> None:
    assert _pictures(head_analysis(head_files, is_present=False), of_head=True) == []


def test_a_finding_of_the_whole_radiograph_is_said_on_it(tmp_path: Path) -> None:
    analysis = replace(chest_analysis(write_chest(tmp_path)), heat_maps={})
    manifest = chest_manifest(results={"objects": [KIND]})
    [built] = build(analysis, manifest)
    image = built.dataset.pixel_array[-512:].astype(int)
    assert np.array_equal(image[..., 0], image[..., 2])  # with nothing drawn, it stays grey
    assert built.dataset.DerivationDescription == "Pneumothorax, chest-xray 2.1.0"


def test_pixels_that_are_not_square_are_shown_in_proportion(tmp_path: Path) -> None:
    images = SOURCES["CT, oblique series"](tmp_path)  # 24 rows of 0.5 mm, 20 columns of 0.7 mm
    [built] = _pictures(analysis_of(images))
    assert built.dataset.Columns == 512
    banner = built.dataset.Rows - round(512 * 12 / 14)
    assert 50 < banner < 200


@pytest.mark.parametrize("name", ["US", "US, palette", "US, multi-frame"])
def test_colour_stays_colour(name: str, tmp_path: Path) -> None:
    images = SOURCES[name](tmp_path)
    [built] = _pictures(analysis_of(images))
    assert built.dataset.pixel_array.shape[-1] == 3
    assert built.dataset.pixel_array.std() > 10
    assert built.dataset.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
