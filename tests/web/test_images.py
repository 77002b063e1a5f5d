"""Pixels and overlays: exactly what pydicom reads and what highdicom was told to outline."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import JPEG2000Lossless, generate_uid
from sqlalchemy import select

from tests.web.hospital import Hospital, hemorrhage, segmentation
from triage.store.tables import ResultObjectRow
from triage.web.first_picture import picture_of
from triage.web.pixels import PixelError, Window, read_frame, stated_window
from triage.web.segments import _rgb_of_cielab, read_segmentation


def frame_address(image: Dataset, number: int = 1) -> str:
    return (
        f"/studies/{image.StudyInstanceUID}/series/{image.SeriesInstanceUID}"
        f"/instances/{image.SOPInstanceUID}/frames/{number}"
    )


def values(answer: Any) -> NDArray[Any]:
    shape = [int(answer.headers[f"X-Image-{name}"]) for name in ("Rows", "Columns")]
    samples = int(answer.headers["X-Image-Samples"])
    kind = np.dtype(answer.headers["X-Image-Kind"]).newbyteorder("<")
    return np.frombuffer(answer.content, kind).reshape(shape + ([samples] if samples > 1 else []))


def test_frame_is_exactly_what_pydicom_reads(client: TestClient, hospital: Hospital) -> None:
    image = hospital.head_ct()[0]
    hospital.receive(image)
    answer = client.get(frame_address(image))
    assert answer.status_code == 200
    np.testing.assert_array_equal(values(answer), apply_modality_lut(image.pixel_array, image))
    assert answer.headers["X-Image-Kind"] == "int16"
    assert answer.headers["X-Image-Photometric"] == "MONOCHROME2"
    assert float(answer.headers["X-Image-Window-Width"]) == 80
    assert answer.headers["Cache-Control"].startswith("private")
    again = client.get(frame_address(image), headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_implicit.dcm",
        "JPEG2000.dcm",
        "image_dfl.dcm",
        "examples_overlay.dcm",
        "SC_rgb_small_odd.dcm",
        "examples_palette.dcm",
        "examples_ybr_color.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "SC_rgb_rle_16bit_2frame.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
    ],
)
def test_odd_images_are_exactly_what_pydicom_reads(name: str) -> None:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom ships no {name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = dcmread(path)
        last = int(image.get("NumberOfFrames") or 1)
        frame = read_frame(Path(path), last)
        expected = pixel_array(image, index=last - 1)
        if image.PhotometricInterpretation == "PALETTE COLOR":
            expected = apply_color_lut(expected, image)
        elif image.SamplesPerPixel == 1:
            expected = apply_modality_lut(expected, image)
    if frame.samples == 3 and expected.dtype == np.uint16:
        expected = expected >> 8
    found = np.frombuffer(frame.data, np.dtype(frame.kind).newbyteorder("<"))
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)
    assert frame.window.width > 0


def test_every_transfer_syntax_is_shown(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "transfer-syntaxes"
    for path in sorted(folder.glob("*.dcm")):
        if path.stem.endswith("_JPLY"):  # 12 bits, for which there is no free decoder
            with pytest.raises(PixelError, match="12-bit"):
                read_frame(path, 1)
            continue
        image = dcmread(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = read_frame(path, 1)
        assert (frame.rows, frame.columns) == (image.Rows, image.Columns), path.name


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small.dcm", "SC_rgb_small_odd.dcm", "examples_palette.dcm"]
)
def test_picture_is_the_frame_through_its_window(name: str) -> None:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom ships no {name}")
    frame = read_frame(Path(path), 1)
    with Image.open(BytesIO(picture_of(frame))) as picture:
        assert picture.format == "PNG"
        shown = np.asarray(picture)
    values = np.frombuffer(frame.data, frame.kind).reshape(shown.shape)
    if frame.samples == 3:
        np.testing.assert_array_equal(shown, values)
        return
    center, width = frame.window.center, frame.window.width
    # DICOM PS3.3 C.11.2.1.2.1, as pixels.js has it
    level = ((values - (center - 0.5)) / (width - 1) + 0.5) * 255
    np.testing.assert_allclose(shown, np.clip(level, 0, 255), atol=0.501)


def test_picture_turns_monochrome1_over_and_is_kept_by_the_browser(
    client: TestClient, hospital: Hospital
) -> None:
    image, other = hospital.head_ct(slices=2)
    other.PhotometricInterpretation = "MONOCHROME1"
    other.PixelData = image.PixelData
    hospital.receive(image, other)
    answers = [client.get(f"{frame_address(one)}/picture") for one in (image, other)]
    shown, turned = (np.asarray(Image.open(BytesIO(one.content))) for one in answers)
    np.testing.assert_array_equal(shown, 255 - turned)
    assert answers[0].headers["Cache-Control"].startswith("private")
    tag = {"If-None-Match": answers[0].headers["etag"]}
    assert client.get(f"{frame_address(image)}/picture", headers=tag).status_code == 304
    assert client.get(frame_address(image), headers=tag).status_code == 200  # another thing
    assert client.get(f"{frame_address(image, 2)}/picture").status_code == 422


def test_window_is_stated_where_the_pixels_are_not_needed_for_it(hospital: Hospital) -> None:
    image, silent = hospital.head_ct(slices=2)
    del silent.WindowCenter, silent.WindowWidth
    path = hospital.files.absolute(hospital.store(image).path)
    assert stated_window(path) == read_frame(path, 1).window == Window(40, 80)
    assert stated_window(hospital.files.absolute(hospital.store(silent).path)) is None


def test_rescale_with_fractions_keeps_its_values(hospital: Hospital) -> None:
    image = hospital.head_ct(slices=1)[0]
    image.RescaleSlope, image.RescaleIntercept = 0.25, -10.5
    frame = read_frame(hospital.files.absolute(hospital.store(image).path), 1)
    assert frame.kind == "float32"
    expected = apply_modality_lut(image.pixel_array, image)
    found = np.frombuffer(frame.data, "<f4").reshape(expected.shape)
    np.testing.assert_allclose(found, expected)


def test_rescale_of_functional_groups_is_applied(hospital: Hospital) -> None:
    image = hospital.head_ct(slices=1)[0]
    stored = image.pixel_array.astype(int)
    del image.RescaleSlope, image.RescaleIntercept
    transformation, group = Dataset(), Dataset()
    transformation.RescaleSlope, transformation.RescaleIntercept = 2, -5
    group.PixelValueTransformationSequence = [transformation]
    image.SharedFunctionalGroupsSequence = [group]
    frame = read_frame(hospital.files.absolute(hospital.store(image).path), 1)
    found = np.frombuffer(frame.data, f"<{np.dtype(frame.kind).str[1:]}").reshape(stored.shape)
    np.testing.assert_array_equal(found, stored * 2 - 5)


def test_voi_lut_becomes_the_window_that_is_nearest(hospital: Hospital) -> None:
    image = hospital.head_ct(slices=1)[0]
    del image.WindowCenter, image.WindowWidth
    lut = Dataset()
    lut.LUTDescriptor = [256, 100, 8]
    lut.LUTData = np.arange(256, dtype="<u2").tobytes()
    image.VOILUTSequence = [lut]  # its data are written as words
    frame = read_frame(hospital.files.absolute(hospital.store(image).path), 1)
    assert frame.window.center == pytest.approx(100 + 127.5, abs=4)


def test_monochrome1_is_marked_for_the_viewer_to_invert(hospital: Hospital) -> None:
    image = hospital.head_ct(slices=1, PhotometricInterpretation="MONOCHROME1")[0]
    image.PhotometricInterpretation = "MONOCHROME1"
    frame = read_frame(hospital.files.absolute(hospital.store(image).path), 1)
    assert frame.photometric == "MONOCHROME1"


def test_damaged_pixels_are_said_in_words(client: TestClient, hospital: Hospital) -> None:
    image = hospital.head_ct()[0]
    image.file_meta.TransferSyntaxUID = JPEG2000Lossless
    image.PixelData = encapsulate([b"no image at all "])
    image["PixelData"].VR = "OB"
    hospital.receive(image)
    answer = client.get(frame_address(image))
    assert answer.status_code == 422
    assert "JPEG 2000" in answer.json()["detail"]
    assert "damaged" in answer.json()["detail"]


def test_frames_and_images_that_are_not_there(client: TestClient, hospital: Hospital) -> None:
    image = hospital.head_ct()[0]
    hospital.receive(image)
    assert client.get(frame_address(image, 2)).status_code == 422
    assert client.get(frame_address(image, 0)).status_code == 422
    other = hospital.head_ct()[0]
    hospital.receive(other)
    mixed = frame_address(image).replace(image.StudyInstanceUID, other.StudyInstanceUID)
    assert client.get(mixed).status_code == 404
    nowhere = frame_address(image).replace(image.SOPInstanceUID, generate_uid())
    assert client.get(nowhere).status_code == 404


def labels(slices: int, rows: int) -> NDArray[np.uint8]:
    masks = np.zeros((slices, rows, rows), np.uint8)
    masks[1, 10:20, 12:24] = 1
    masks[2, 30:33, 5:50] = 2
    masks[2, 40:44, 5:9] = 1
    return masks


def received_with_segmentation(
    hospital: Hospital, kind: str, *, without_derivation: bool = False
) -> tuple[list[Dataset], Dataset, NDArray[np.uint8]]:
    hospital.register_model()
    images = hospital.head_ct(slices=4, rows=63)  # odd: frames of a BINARY SEG share bytes
    uid = hospital.receive(*images)
    hospital.complete(uid)
    masks = labels(4, 63)
    seg = segmentation(images, masks, kind=kind)
    if without_derivation:
        for group in seg.PerFrameFunctionalGroupsSequence:
            del group.DerivationImageSequence
    hospital.finish(hospital.claim(), hemorrhage(), objects=[seg])
    return images, seg, masks


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("without_derivation", [False, True])
def test_overlay_lies_on_the_images_it_was_made_from(
    client: TestClient, hospital: Hospital, kind: str, *, without_derivation: bool
) -> None:
    images, seg, masks = received_with_segmentation(
        hospital, kind, without_derivation=without_derivation
    )
    uid = images[0].StudyInstanceUID
    (overlay,) = client.get(f"/studies/{uid}/overlays").json()
    assert overlay["error"] == ""
    assert overlay["model"] == "head-ct-hemorrhage 1.0.0"
    assert [s["label"] for s in overlay["segments"]] == ["Lesion 1", "Lesion 2"]
    assert {i["sop_instance_uid"]: i["segments"] for i in overlay["images"]} == {
        images[1].SOPInstanceUID: [1],
        images[2].SOPInstanceUID: [1, 2],
    }
    for index, image in enumerate(images):
        answer = client.get(
            f"/studies/{uid}/overlays/{seg.SOPInstanceUID}/images/{image.SOPInstanceUID}/frames/1"
        )
        numbers = [int(n) for n in answer.headers["X-Overlay-Segments"].split(",") if n]
        assert numbers == sorted(set(np.unique(masks[index])) - {0})
        each = -(-63 * 63 // 8)
        for place, number in enumerate(numbers):
            packed = np.frombuffer(answer.content[place * each : (place + 1) * each], np.uint8)
            bits = np.unpackbits(packed, bitorder="little")[: 63 * 63].reshape(63, 63)
            np.testing.assert_array_equal(bits, masks[index] == number)


def test_segmentation_that_outlines_nothing_marks_no_image(
    client: TestClient, hospital: Hospital
) -> None:
    images = hospital.head_ct(slices=2)
    hospital.register_model()
    uid = hospital.receive(*images)
    hospital.complete(uid)
    masks = np.zeros((2, 64, 64), np.uint8)
    masks[0, 5, 5] = 1
    seg = segmentation(images, masks)
    seg.PixelData = bytes(len(seg.PixelData))
    hospital.finish(hospital.claim(), hemorrhage(present=False), objects=[seg])
    (overlay,) = client.get(f"/studies/{uid}/overlays").json()
    assert (overlay["error"], overlay["images"]) == ("", [])


def test_segmentation_of_superseded_or_shadow_runs_is_not_laid_over(
    client: TestClient, hospital: Hospital
) -> None:
    images, _, _ = received_with_segmentation(hospital, "BINARY")
    uid = images[0].StudyInstanceUID
    late = hospital.head_ct(
        slices=1, StudyInstanceUID=uid, SeriesInstanceUID=images[0].SeriesInstanceUID
    )
    hospital.receive(*late)
    hospital.complete(uid)
    assert client.get(f"/studies/{uid}/overlays").json() == []
    study = client.get(f"/api/v1/studies/{uid}").json()
    assert [s["is_superseded"] for s in study["series"]] == [False, True]


def test_segmentation_made_again_for_a_destination_is_not_laid_over_twice(
    client: TestClient, hospital: Hospital
) -> None:
    images, seg, _ = received_with_segmentation(hospital, "BINARY")
    uid = images[0].StudyInstanceUID
    with hospital.database.transaction() as session:
        (made,) = session.scalars(
            select(ResultObjectRow).where(ResultObjectRow.sop_instance_uid == seg.SOPInstanceUID)
        )
        made.variant = "labelmap"
    assert client.get(f"/studies/{uid}/overlays").json() == []


def test_segmentation_that_cannot_be_read_is_said_in_words(
    client: TestClient, hospital: Hospital
) -> None:
    images, seg, _ = received_with_segmentation(hospital, "BINARY")
    for path in hospital.files.root.rglob("*.dcm"):
        if dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID == seg.SOPInstanceUID:
            path.write_bytes(b"damaged")
    read_segmentation.cache_clear()
    (overlay,) = client.get(f"/studies/{images[0].StudyInstanceUID}/overlays").json()
    assert "cannot be read" in overlay["error"]


@pytest.mark.parametrize(
    ("lab", "rgb"),
    [
        ((65535, 32896, 32896), (255, 255, 255)),
        ((0, 32896, 32896), (0, 0, 0)),
        ((35579, 53662, 50860), (255, 0, 0)),
    ],
)
def test_recommended_colours(lab: tuple[int, int, int], rgb: tuple[int, int, int]) -> None:
    assert _rgb_of_cielab(lab) == pytest.approx(rgb, abs=6)
