"""WADO-RS: instances and metadata, as files, parts and JSON."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from fastapi.testclient import TestClient
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, RLELossless
from sqlalchemy import select
from structlog.testing import capture_logs

from tests.tools import missing, shared_data_directory
from tests.web.dicomweb.conftest import ROOT, address_of, parts_of, search
from tests.web.hospital import Hospital, segmentation
from tests.web.test_purged import analysed, purge
from triage.settings import DicomwebSettings, Settings, StowSettings
from triage.store.tables import InstanceRow
from triage.web.app import create_app

AS_STORED = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
ONE = {"Accept": "application/dicom; transfer-syntax=*"}
JSON = {"Accept": "application/dicom+json"}


def file_of(hospital: Hospital, image: Dataset) -> bytes:
    with hospital.database.reading() as session:
        path = session.scalars(
            select(InstanceRow.path).where(
                InstanceRow.sop_instance_uid == image.SOPInstanceUID,
                InstanceRow.conflicts_with.is_(None),
            )
        ).one()
    return hospital.files.absolute(path).read_bytes()


def real_image(name: str) -> Dataset:
    """Return one of pydicom's files with all that Triage's index asks of it."""
    image = dcmread(get_testdata_file(name))
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    return image


def compressed(hospital: Hospital, syntax: str = RLELossless) -> Dataset:
    """Receive a compressed image."""
    [image] = hospital.head_ct(slices=1)
    image.compress(syntax, generate_instance_uid=False)
    hospital.receive(image)
    return image


def test_study_series_and_instance_come_byte_for_byte(
    client: TestClient, hospital: Hospital, head: list[Dataset]
) -> None:
    held = [file_of(hospital, image) for image in head]
    for level, expected in (("study", held), ("series", held), ("instance", held[:1])):
        answer = client.get(address_of(head[0], level=level), headers=AS_STORED)
        assert answer.status_code == 200
        assert [content for _, content in parts_of(answer)] == expected
        assert parts_of(answer)[0][0] == "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"
    answer = client.get(address_of(head[0]), headers=ONE)
    assert answer.content == held[0]
    assert answer.headers["content-length"] == str(len(held[0]))


def test_outside_client_gets_studies_and_metadata(
    outside: DICOMwebClient, head: list[Dataset]
) -> None:
    uid = head[0].StudyInstanceUID
    assert list(outside.retrieve_study(uid)) == head
    assert list(outside.retrieve_series(uid, head[0].SeriesInstanceUID)) == head
    one = head[2]
    uids = (uid, one.SeriesInstanceUID, one.SOPInstanceUID)
    assert outside.retrieve_instance(*uids) == one
    metadata = outside.retrieve_instance_metadata(*uids)
    said = Dataset.from_json({k: v for k, v in metadata.items() if "BulkDataURI" not in v})
    del said.AvailableTransferSyntaxUID
    del one.PixelData
    assert said == one
    assert len(outside.retrieve_study_metadata(uid)) == len(head)


def test_compressed_instance_comes_as_stored_or_decompressed(
    client: TestClient, hospital: Hospital
) -> None:
    image = compressed(hospital)
    stored = file_of(hospital, image)
    for accept in ("*", str(RLELossless)):
        form = {"Accept": f"application/dicom; transfer-syntax={accept}"}
        answer = client.get(address_of(image), headers=form)
        assert answer.content == stored
        assert answer.headers["content-type"].endswith(RLELossless)
    # Without a transfer syntax Explicit VR Little Endian is meant.
    for form in (
        {"Accept": "application/dicom"},
        {"Accept": "multipart/related; type=application/dicom"},
    ):
        answer = client.get(address_of(image), headers=form)
        content = parts_of(answer)[0][1] if "multipart" in form["Accept"] else answer.content
        explicit = dcmread(io.BytesIO(content))
        assert explicit.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert np.array_equal(explicit.pixel_array, image.pixel_array)
        assert explicit.SOPInstanceUID == image.SOPInstanceUID
    other = {"Accept": f"application/dicom; transfer-syntax={JPEG2000Lossless}"}
    assert client.get(address_of(image), headers=other).status_code == 406
    other = {
        "Accept": f"multipart/related; type=application/dicom; transfer-syntax={JPEG2000Lossless}"
    }
    assert client.get(address_of(image, level="study"), headers=other).status_code == 406


def test_what_a_client_accepts_decides_between_parts_and_a_file(
    client: TestClient, head: list[Dataset]
) -> None:
    address = address_of(head[0])
    for accept, is_multipart in (
        ("", True),
        ("*/*", True),
        ("application/dicom", False),
        ("text/html, application/dicom;q=0.5", False),
        ('multipart/related;q=0.1; type="application/dicom", application/dicom', False),
        ('application/dicom;q=0.1, multipart/related; type="application/dicom";q=0.9', True),
    ):
        answer = client.get(address, headers={"Accept": accept})
        assert answer.status_code == 200, accept
        assert answer.headers["content-type"].startswith("multipart") is is_multipart, accept
    by_parameter = client.get(
        f"{address}?accept=application/dicom", headers={"Accept": "text/html"}
    )
    assert by_parameter.headers["content-type"].startswith("application/dicom")
    for refused in ("text/html", "image/jpeg", "application/dicom;q=0"):
        assert client.get(address, headers={"Accept": refused}).status_code == 406
    study = address_of(head[0], level="study")
    assert client.get(study, headers={"Accept": "application/dicom"}).status_code == 406


def test_range_and_tag_of_an_instance(
    client: TestClient, hospital: Hospital, head: list[Dataset]
) -> None:
    stored, address = file_of(hospital, head[0]), address_of(head[0])
    whole = client.get(address, headers=ONE)
    tag = whole.headers["etag"]
    assert whole.headers["cache-control"] == "private, max-age=3600, immutable"
    part = client.get(address, headers=ONE | {"Range": "bytes=128-131"})
    assert (part.status_code, part.content) == (206, b"DICM")
    assert part.headers["content-range"] == f"bytes 128-131/{len(stored)}"
    assert client.get(address, headers=ONE | {"Range": "bytes=-4"}).content == stored[-4:]
    assert client.get(address, headers=ONE | {"Range": f"bytes={len(stored)}-"}).status_code == 416
    outdated = ONE | {"Range": "bytes=0-1", "If-Range": '"other"'}
    assert client.get(address, headers=outdated).status_code == 200
    assert client.get(address, headers=ONE | {"If-None-Match": tag}).status_code == 304
    study = client.get(address_of(head[0], level="study"), headers=AS_STORED)
    again = AS_STORED | {"If-None-Match": study.headers["etag"]}
    assert client.get(address_of(head[0], level="study"), headers=again).status_code == 304
    hospital.receive(*[_late(head[0])])
    assert client.get(address_of(head[0], level="study"), headers=again).status_code == 200


def _late(image: Dataset) -> Dataset:
    late = dcmread(io.BytesIO(_bytes_of(image)))
    late.SOPInstanceUID = f"{image.SOPInstanceUID[:50]}.99"
    late.file_meta.MediaStorageSOPInstanceUID = late.SOPInstanceUID
    return late


def _bytes_of(image: Dataset) -> bytes:
    content = io.BytesIO()
    image.save_as(content, enforce_file_format=True)
    return content.getvalue()


def test_metadata_has_no_pixels_and_says_where_long_values_are(
    client: TestClient, hospital: Hospital
) -> None:
    [image] = hospital.head_ct(slices=1)
    icon, waveform = Dataset(), Dataset()
    icon.BitsAllocated = 8
    icon.PixelData = b"\1\2" * 1000
    waveform.WaveformBitsAllocated = 8
    waveform.WaveformData = b"\1\2"
    image.add_new(0x00091010, "OB", b"\7" * 3000)
    image.add_new(0x00090010, "LO", "SOMEBODY")
    image.add_new(0x00091011, "OB", b"\7" * 10)
    image.IconImageSequence, image.WaveformSequence = [icon], [waveform]
    image.EventElapsedTimes = float("nan")
    hospital.receive(image)
    [said] = client.get(f"{address_of(image)}/metadata", headers=JSON).json()
    address = f"http://127.0.0.1{address_of(image)}/bulkdata"
    assert said["7FE00010"] == {"vr": "OW", "BulkDataURI": f"{address}/7FE00010"}
    assert said["00091010"] == {"vr": "OB", "BulkDataURI": f"{address}/00091010"}
    assert said["00091011"] == {"vr": "OB", "InlineBinary": "BwcHBwcHBwcHBw=="}
    [shown] = said["00880200"]["Value"]
    assert shown["7FE00010"]["BulkDataURI"] == f"{address}/00880200/1/7FE00010"
    assert said["00082130"] == {"vr": "DS", "Value": [None]}
    assert said["00083002"]["Value"] == ["1.2.840.10008.1.2.1"]
    assert not any(tag.startswith("0002") for tag in said)
    for path, expected in (
        ("7FE00010", image.PixelData),
        ("00091010", b"\7" * 3000),
        ("00880200/1/7FE00010", icon.PixelData),
    ):
        answer = client.get(f"{address_of(image)}/bulkdata/{path}")
        assert (answer.content, answer.headers["accept-ranges"]) == (expected, "bytes")
        part = client.get(f"{address_of(image)}/bulkdata/{path}", headers={"Range": "bytes=2-5"})
        assert (part.status_code, part.content) == (206, expected[2:6])


def test_metadata_reads_no_pixels_from_the_file(
    client: TestClient, hospital: Hospital, head: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = file_of(hospital, head[0])
    with hospital.database.reading() as session:
        found = session.scalars(select(InstanceRow)).first()
        assert found is not None
        path = hospital.files.absolute(found.path)
    # What is cut off after the head of the pixels is not missed.
    path.write_bytes(stored[: -len(head[0].PixelData)])
    [said] = client.get(f"{address_of(head[0])}/metadata", headers=JSON).json()
    assert "BulkDataURI" in said["7FE00010"]
    answer = client.get(f"{address_of(head[0])}/frames/1", headers={"Accept": "multipart/related"})
    assert answer.status_code == 406


def test_damaged_file_is_left_out_of_many_and_said_of_one(
    client: TestClient, hospital: Hospital, head: list[Dataset]
) -> None:
    with hospital.database.reading() as session:
        found = session.scalars(select(InstanceRow)).first()
        assert found is not None
        hospital.files.absolute(found.path).write_bytes(b"no DICOM")
    series = client.get(f"{address_of(head[0], level='series')}/metadata", headers=JSON)
    assert len(series.json()) == len(head) - 1
    one = client.get(f"{address_of(head[0])}/metadata", headers=JSON)
    assert one.status_code == 500
    assert "cannot be read" in one.json()["detail"]


def test_values_that_are_none_of_their_vr_do_not_spoil_the_rest(
    client: TestClient, hospital: Hospital
) -> None:
    [image] = hospital.head_ct(slices=1)
    image.PatientWeight = "70"
    content = _bytes_of(image).replace(b"DS\x02\x0070", b"DS\x02\x00kg")
    hospital.receive(image)
    with hospital.database.reading() as session:
        path = session.scalars(select(InstanceRow.path)).one()
    hospital.files.absolute(path).write_bytes(content)
    [said] = client.get(f"{address_of(image)}/metadata", headers=JSON).json()
    assert "00101030" not in said
    assert said["00100020"]["Value"] == [image.PatientID]


def test_what_is_not_held_gone_or_malformed_has_its_own_status(
    client: TestClient, hospital: Hospital
) -> None:
    images = analysed(hospital)
    image, address = images[0], address_of(images[0])
    other = f"{ROOT}/studies/1.2.3"
    below = ("", "/metadata", "/rendered", "/thumbnail", "/frames/1", "/bulkdata/7FE00010")
    for path in (other, f"{other}/metadata", f"{address_of(image, level='study')}/series/1.2"):
        assert client.get(path).status_code == 404, path
    for tail in below:
        assert client.get(f"{ROOT}/studies/1.2/series/1.2/instances/1.2{tail}").status_code == 404
        assert client.get(f"{ROOT}/studies/x/series/1.2/instances/1.2{tail}").status_code == 400
    assert client.get(f"{address}/frames/2").status_code == 404
    assert client.get(f"{address}/bulkdata/00100010").status_code == 404
    assert client.get(f"{address}/bulkdata/../../x").status_code in (400, 404)
    purge(hospital, images)
    for tail in below:
        answer = client.get(f"{address}{tail}")
        assert answer.status_code == 410, tail
        assert "deleted" in answer.json()["detail"]
    assert client.get(address_of(image, level="series")).status_code == 410
    # Of the study the result is left, and that not all is there has a status too.
    study = client.get(address_of(image, level="study"), headers=AS_STORED)
    assert (study.status_code, len(parts_of(study))) == (206, 1)
    metadata = client.get(f"{address_of(image, level='study')}/metadata", headers=JSON)
    assert (metadata.status_code, len(metadata.json())) == (206, 1)


def test_conflicting_duplicate_is_never_given(
    client: TestClient, hospital: Hospital, head: list[Dataset]
) -> None:
    first = file_of(hospital, head[0])
    head[0].SeriesDescription = "Other content"
    hospital.receive(head[0])
    assert client.get(address_of(head[0]), headers=ONE).content == first
    study = client.get(address_of(head[0], level="study"), headers=AS_STORED)
    assert len(parts_of(study)) == len(head)


def test_shadow_leaves_nothing_to_find_or_to_retrieve(
    client: TestClient, hospital: Hospital
) -> None:
    hospital.register_model("shadow")
    images = hospital.head_ct()
    hospital.complete(hospital.receive(*images))
    mask = np.zeros((4, 64, 64), np.uint8)
    mask[1, 5:9, 5:9] = 1
    result = segmentation(images, mask)
    hospital.finish(hospital.claim(), objects=[result])
    path = f"studies/{images[0].StudyInstanceUID}"
    assert len(search(client, f"{path}/series")) == 1
    assert len(search(client, "instances")) == len(images)
    metadata = client.get(f"{ROOT}/{path}/metadata", headers=JSON).json()
    assert len(metadata) == len(images)
    assert client.get(address_of(result)).status_code == 404


def test_authorization_is_that_of_the_section_or_of_stow(
    hospital: Hospital, head: list[Dataset]
) -> None:
    address = f"{address_of(head[0])}/metadata"

    def asked(given: str, **sections: Any) -> int:
        app = create_app(Settings(**sections), hospital.database, hospital.files, hospital.clock)
        with TestClient(app, base_url="http://127.0.0.1") as client:
            assert client.get(
                f"{ROOT}/studies", headers=JSON | {"Authorization": given}
            ).status_code
            return client.get(address, headers=JSON | {"Authorization": given}).status_code

    own = {"dicomweb": DicomwebSettings(authorization="Bearer read")}
    both = own | {"stow": StowSettings(authorization="Bearer write")}
    assert asked("Bearer read", **own) == 200
    assert asked("Bearer other", **own) == 401
    assert asked("", stow=StowSettings(authorization="Bearer write")) == 401
    assert asked("Bearer write", stow=StowSettings(authorization="Bearer write")) == 200
    assert asked("Bearer write", **both) == 401
    assert asked("Bearer read", **both) == 200
    assert asked("", dicomweb=DicomwebSettings(enabled=False)) == 404


def test_nothing_of_a_patient_is_logged(client: TestClient, head: list[Dataset]) -> None:
    name = str(head[0].PatientName)
    with capture_logs() as said:
        search(client, "studies", PatientName=name)
        client.get(f"{ROOT}/studies", params={"PatientName": name, "StudyDate": name, name: name})
        client.get(f"{address_of(head[0], level='series')}/metadata", headers=JSON)
        client.get(f"{address_of(head[0])}/rendered")
    assert [line["event"] for line in said] == ["QIDO-RS"]
    assert "Synthetic" not in repr(said)
    assert head[0].PatientID not in repr(said)


def test_real_head_ct_is_read_whole_by_an_outside_client(
    outside: DICOMwebClient, hospital: Hospital
) -> None:
    folder = shared_data_directory()
    if folder is None:
        missing("the folder of real DICOM files is not there")
        raise AssertionError
    images = [dcmread(file) for file in sorted((folder / "dicom" / "head-ct-ge").iterdir())]
    hospital.receive(*images)
    uid, series = images[0].StudyInstanceUID, images[0].SeriesInstanceUID
    assert len(outside.retrieve_study_metadata(uid)) == len(images) == 28
    retrieved = {one.SOPInstanceUID: one for one in outside.retrieve_series(uid, series)}
    for image in images[:3]:
        assert np.array_equal(retrieved[image.SOPInstanceUID].pixel_array, image.pixel_array)
        [frame] = outside.retrieve_instance_frames(uid, series, image.SOPInstanceUID, [1])
        assert frame == image.PixelData
