"""WADO-RS: frames in every encoding, bulk data, pictures and thumbnails."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from tests.tools import missing, shared_data_directory
from tests.web.dicomweb.conftest import address_of, parts_of
from tests.web.hospital import Hospital, segmentation
from triage.store.files import InstanceFiles

AS_STORED = {"Accept": "multipart/related; type=application/octet-stream; transfer-syntax=*"}
DECODED = {"Accept": 'multipart/related; type="application/octet-stream"'}
EXPLICIT = "1.2.840.10008.1.2.1"


def frames_of(client: TestClient, image: Dataset, numbers: str, form: dict[str, str]) -> Any:
    answer = client.get(f"{address_of(image)}/frames/{numbers}", headers=form)
    assert answer.status_code == 200, answer.text
    return parts_of(answer)


def multi_frame(hospital: Hospital, frames: int = 4) -> Dataset:
    [image] = hospital.head_ct(slices=1)
    values = np.arange(frames * 64 * 64, dtype="<u2").reshape(frames, 64, 64)
    image.NumberOfFrames, image.PixelData = frames, values.tobytes()
    return image


def test_frames_are_cut_out_of_uncompressed_pixels(client: TestClient, hospital: Hospital) -> None:
    image = multi_frame(hospital)
    hospital.receive(image)
    size = 64 * 64 * 2
    found = frames_of(client, image, "2,4,2", AS_STORED)
    expected = [image.PixelData[(n - 1) * size : n * size] for n in (2, 4, 2)]
    assert [content for _, content in found] == expected
    assert found[0][0] == f"application/octet-stream; transfer-syntax={EXPLICIT}"
    single = client.get(
        f"{address_of(image)}/frames/3", headers={"Accept": "application/octet-stream"}
    )
    assert single.content == image.PixelData[2 * size : 3 * size]
    several = client.get(
        f"{address_of(image)}/frames/3,4", headers={"Accept": "application/octet-stream"}
    )
    assert several.status_code == 406


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_frames_come_as_stored_or_decoded(
    client: TestClient, hospital: Hospital, syntax: str
) -> None:
    image = multi_frame(hospital)
    plain = image.PixelData
    image.compress(syntax, generate_instance_uid=False)
    hospital.receive(image)
    stored = list(generate_frames(image.PixelData, number_of_frames=4))
    found = frames_of(client, image, "1,3", AS_STORED)
    assert [content.rstrip(b"\0") for _, content in found] == [
        stored[n].rstrip(b"\0") for n in (0, 2)
    ]
    assert found[0][0] == f"application/octet-stream; transfer-syntax={syntax}"
    decoded = frames_of(client, image, "1,3", DECODED)
    assert decoded[1] == (
        f"application/octet-stream; transfer-syntax={EXPLICIT}",
        plain[2 * 8192 : 3 * 8192],
    )
    kind = {RLELossless: "dicom-rle", JPEGLSLossless: "jls"}[syntax]
    named = client.get(f"{address_of(image)}/frames/1", headers={"Accept": f"image/{kind}"})
    assert named.headers["content-type"] == f"image/{kind}; transfer-syntax={syntax}"
    other = client.get(f"{address_of(image)}/frames/1", headers={"Accept": "image/gif"})
    assert other.status_code == 406
    bulk = client.get(f"{address_of(image)}/bulkdata/7FE00010", headers=AS_STORED)
    assert len(parts_of(bulk)) == 4


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_every_uncompressed_encoding_gives_little_endian(
    client: TestClient, hospital: Hospital, syntax: str
) -> None:
    image = multi_frame(hospital, frames=2)
    plain = image.PixelData
    image.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        image.PixelData = np.frombuffer(plain, "<u2").astype(">u2").tobytes()
        image["PixelData"].VR = "OW"
    content = io.BytesIO()
    image.save_as(
        content,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=True,
    )
    content.seek(0)
    hospital.receive(dcmread(content))
    for form in (AS_STORED, DECODED):
        assert [c for _, c in frames_of(client, image, "1,2", form)] == [plain[:8192], plain[8192:]]
    [said] = client.get(f"{address_of(image)}/metadata").json()
    assert said["00280008"]["Value"] == [2]
    assert said["00083002"]["Value"] == [syntax]


def test_frames_of_single_bits_begin_on_a_byte(client: TestClient, hospital: Hospital) -> None:
    images = hospital.head_ct(slices=3, rows=5)
    mask = np.zeros((3, 5, 5), np.uint8)
    mask[:, 1:3, 2:4] = 1
    mask[1, 4, 4] = 1
    result = segmentation(images, mask)
    hospital.receive(*images, result)
    found = frames_of(client, result, "1,2,3", AS_STORED)
    bits = [np.unpackbits(np.frombuffer(c, np.uint8), bitorder="little")[:25] for _, c in found]
    assert np.array_equal(np.array(bits).reshape(3, 5, 5), result.pixel_array)


def test_real_images_in_every_transfer_syntax_are_given_and_shown(
    client: TestClient, hospital: Hospital
) -> None:
    folder = shared_data_directory()
    if folder is None:
        missing("the folder of real DICOM files is not there")
        raise AssertionError
    files = [f for f in sorted((folder / "dicom" / "transfer-syntaxes").rglob("*")) if f.is_file()]
    seen = set()
    for file in files:
        try:
            image = dcmread(file)
            expected = image.pixel_array
        except Exception:  # noqa: BLE001 - not a file for this test
            continue
        syntax = image.file_meta.TransferSyntaxUID
        if syntax in seen or int(image.Rows) * int(image.Columns) > 1 << 20:
            continue
        seen.add(syntax)
        hospital.receive(image)
        [(kind, _)] = frames_of(client, image, "1", AS_STORED)
        assert kind.endswith(syntax if syntax.is_encapsulated else EXPLICIT)
        [(_, content)] = frames_of(client, image, "1", DECODED)
        first = expected[0] if int(image.get("NumberOfFrames") or 1) > 1 else expected
        assert len(content) == first.nbytes, file.name
        shown = client.get(f"{address_of(image)}/rendered")
        assert Image.open(io.BytesIO(shown.content)).size == (image.Columns, image.Rows)
    assert len(seen) >= 4


def test_picture_has_the_window_region_and_size_that_are_asked_for(
    client: TestClient, hospital: Hospital
) -> None:
    [image] = hospital.head_ct(slices=1)
    hospital.receive(image)
    address = f"{address_of(image)}/rendered"

    def shown(query: str = "", accept: str = "image/png") -> Image.Image:
        answer = client.get(f"{address}{query}", headers={"Accept": accept})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == accept
        return Image.open(io.BytesIO(answer.content))

    assert shown("", "image/jpeg").format == "JPEG"
    middle = (32, 32)
    # The brain of the simulated slice has 36 HU.
    assert shown().getpixel(middle) == round(((36 - 39.5) / 79 + 0.5) * 255)
    assert shown("?window=36,1").getpixel(middle) in (127, 128, 255)
    assert shown("?window=0,10").getpixel(middle) == 255
    assert shown("?window=100,10,linear-exact").getpixel(middle) == 0
    assert shown("?window=36,100,sigmoid").getpixel(middle) in (127, 128)
    assert shown("?viewport=128,32").size == (32, 32)
    assert shown("?viewport=100,100,0,0,32,16").size == (100, 50)
    frame = client.get(f"{address_of(image)}/frames/1/rendered", headers={"Accept": "image/png"})
    assert Image.open(io.BytesIO(frame.content)).size == (64, 64)
    warned = client.get(f"{address}?annotation=patient")
    assert "annotation" in warned.headers["warning"]
    for wrong in (
        "window=1",
        "window=1,0",
        "window=a,b",
        "window=1,2,cubic",
        "viewport=0,1",
        "viewport=1e9,1",
        "viewport=9999,1",
        "viewport=1,1,60,60,20,20",
        "quality=0",
        "quality=x",
        "window=nan,1",
    ):
        answer = client.get(f"{address}?{wrong}")
        assert answer.status_code == 400, wrong
        assert wrong.partition("=")[0] in answer.json()["detail"]
    assert client.get(f"{address_of(image)}/frames/2/rendered").status_code == 406
    tag = client.get(address).headers["etag"]
    assert client.get(address, headers={"If-None-Match": tag}).status_code == 304
    assert client.get(address, headers={"Accept": "image/gif"}).status_code == 406


def test_thumbnails_are_small_at_every_level(
    client: TestClient, head: list[Dataset], hospital: Hospital
) -> None:
    for level in ("study", "series", "instance"):
        answer = client.get(f"{address_of(head[0], level=level)}/thumbnail")
        assert max(Image.open(io.BytesIO(answer.content)).size) == 128, level
    small = client.get(f"{address_of(head[0], level='study')}/thumbnail?viewport=32,32")
    assert max(Image.open(io.BytesIO(small.content)).size) == 32
    report = dcmread(get_testdata_file("reportsi.dcm"))
    hospital.receive(report)
    for level in ("study", "instance"):
        assert client.get(f"{address_of(report, level=level)}/thumbnail").status_code == 404
    assert client.get(f"{address_of(report)}/frames/1").status_code == 404
    assert client.get(f"{address_of(report)}/rendered").status_code == 406


def test_outside_client_gets_frames_pictures_and_bulk_data(
    outside: DICOMwebClient, hospital: Hospital
) -> None:
    image = multi_frame(hospital)
    hospital.receive(image)
    uids = (image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID)
    assert outside.retrieve_instance_frames(*uids, [2, 3]) == [
        image.PixelData[8192:16384],
        image.PixelData[16384:24576],
    ]
    metadata = outside.retrieve_instance_metadata(*uids)
    assert outside.retrieve_bulkdata(metadata["7FE00010"]["BulkDataURI"]) == [image.PixelData]
    shown = outside.retrieve_instance_rendered(*uids, media_types=("image/png",))
    assert Image.open(io.BytesIO(shown)).size == (64, 64)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    tail=st.from_regex(
        r"(frames|bulkdata|rendered|thumbnail|metadata)/[0-9A-Fa-f,/.x-]{0,30}", fullmatch=True
    ),
    accept=st.text(st.sampled_from('aimoqd/*;,="+-. 01'), max_size=40),
    ranges=st.sampled_from(["bytes=0-", "bytes=-1", "bytes=5-2", "bytes=a-b", "bytes=0-0,2-3", ""]),
)
def test_no_path_or_header_makes_the_server_fail(
    client: TestClient, head: list[Dataset], tail: str, accept: str, ranges: str
) -> None:
    address = f"{address_of(head[0])}/{tail.strip()}"
    answer = client.get(address, headers={"Accept": accept, "Range": ranges})
    assert answer.status_code in (200, 206, 304, 307, 400, 404, 406, 416)


def test_file_that_is_gone_is_said_to_be_gone(
    client: TestClient, head: list[Dataset], files: InstanceFiles
) -> None:
    for file in files.root.rglob("*.dcm"):
        file.unlink()
    for tail in ("", "/metadata", "/frames/1", "/rendered", "/bulkdata/7FE00010"):
        assert client.get(f"{address_of(head[0])}{tail}").status_code == 410, tail
