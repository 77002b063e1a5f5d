"""STOW-RS: what is stored, what is answered, and what is refused."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless
from sqlalchemy import select

from tests.datasets import ct_slice
from tests.orthanc import Orthanc
from tests.receiver.conftest import receiver_settings
from tests.tools import ManualClock, wait_until
from triage.receiver import Receiver
from triage.settings import Settings, StowSettings
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.tables import InstanceRow, OpenAssociationRow, StudyRow
from triage.web.app import create_app

BOUNDARY = "gate42"
TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


def file_of(dataset: Dataset) -> bytes:
    content = io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()


def body_of(*files: bytes, media_type: str = "application/dicom", closed: bool = True) -> bytes:
    parts = [
        f"--{BOUNDARY}\r\nContent-Type: {media_type}\r\n\r\n".encode() + file + b"\r\n"
        for file in files
    ]
    return b"".join(parts) + (f"--{BOUNDARY}--\r\n".encode() if closed else b"")


def post(client: TestClient, body: Any, path: str = "", **headers: str) -> httpx.Response:
    return client.post(
        f"/dicom-web/studies{path}",
        content=body,
        headers={"Content-Type": TYPE, "Accept": "application/dicom+json", **headers},
    )


def uids_in(answer: httpx.Response, tag: str) -> list[str]:
    return sorted(item["00081155"]["Value"][0] for item in answer.json()[tag]["Value"])


def stored(database: Database) -> list[str]:
    with database.reading() as session:
        return list(
            session.scalars(select(InstanceRow.sop_instance_uid).order_by("sop_instance_uid"))
        )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return receiver_settings(tmp_path / "data")


@pytest.fixture
def app(settings: Settings, sqlite_database: Database, files: InstanceFiles) -> FastAPI:
    return create_app(settings, sqlite_database, files, ManualClock())


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def limited(
    settings: Settings, database: Database, files: InstanceFiles, **stow: Any
) -> TestClient:
    changed = settings.model_copy(update={"stow": StowSettings(**stow)})
    return TestClient(create_app(changed, database, files), base_url="http://127.0.0.1")


def test_every_instance_is_stored_and_named_in_the_answer(
    client: TestClient, sqlite_database: Database
) -> None:
    one, two = ct_slice(number=1), ct_slice(number=2)
    answer = post(client, body_of(file_of(one), file_of(two)))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    assert uids_in(answer, "00081199") == sorted([one.SOPInstanceUID, two.SOPInstanceUID])
    assert "00081198" not in answer.json()
    url = answer.json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    retrieved = client.get(url, headers={"Accept": "application/dicom"}).content
    assert dcmread(io.BytesIO(retrieved)) in (one, two)
    assert stored(sqlite_database) == sorted([one.SOPInstanceUID, two.SOPInstanceUID])


def test_study_is_no_longer_held_open_after_the_request(
    client: TestClient, sqlite_database: Database
) -> None:
    post(client, body_of(file_of(ct_slice())))
    with sqlite_database.reading() as session:
        assert session.scalars(select(OpenAssociationRow)).all() == []
        assert session.scalars(select(StudyRow.calling_ae_title)).all() == ["STOW-RS"]


def test_study_is_held_open_while_the_request_goes_on(
    address: str, sqlite_database: Database
) -> None:
    def is_held() -> bool:
        with sqlite_database.reading() as session:
            return session.scalars(select(OpenAssociationRow)).first() is not None

    def slowly() -> Iterator[bytes]:
        yield body_of(file_of(ct_slice("1.2.3", 1)), closed=False)
        yield f"--{BOUNDARY}\r\n\r\n".encode()
        wait_until(is_held, "the study is held open")
        yield file_of(ct_slice("1.2.3", 2)) + f"\r\n--{BOUNDARY}--".encode()

    answer = httpx.post(
        f"{address}/dicom-web/studies", content=slowly(), headers={"Content-Type": TYPE}
    )
    assert answer.status_code == 200
    assert stored(sqlite_database) == ["1.2.3.1.1", "1.2.3.1.2"]
    assert not is_held()


def test_client_that_breaks_off_keeps_no_study_open(
    address: str, sqlite_database: Database
) -> None:
    def broken() -> Iterator[bytes]:
        yield body_of(file_of(ct_slice("1.2.3", 1)), closed=False)
        yield f"--{BOUNDARY}\r\n\r\n".encode()
        wait_until(lambda: stored(sqlite_database), "the first instance is stored")
        raise ConnectionError("the client is gone")

    def held() -> list[OpenAssociationRow]:
        with sqlite_database.reading() as session:
            return list(session.scalars(select(OpenAssociationRow)))

    with pytest.raises(ConnectionError):
        httpx.post(f"{address}/dicom-web/studies", content=broken(), headers={"Content-Type": TYPE})
    wait_until(lambda: held() == [], "the study is no longer held open")
    assert stored(sqlite_database) == ["1.2.3.1.1"]


def test_the_same_instance_by_dimse_and_by_stow_is_one_file(
    client: TestClient, settings: Settings, sqlite_database: Database, files: InstanceFiles
) -> None:
    from tests.receiver.conftest import send

    one = ct_slice()
    receiver = Receiver(settings, sqlite_database, files)
    receiver.start()
    try:
        assert [status.Status for status in send(receiver, one)] == [0]
    finally:
        receiver.stop()
    answer = post(client, body_of(file_of(one)))
    assert answer.status_code == 200
    assert stored(sqlite_database) == [one.SOPInstanceUID]
    assert len(list(files.root.rglob("*.dcm"))) == 1


def test_compressed_instance_is_stored_as_sent(
    client: TestClient, sqlite_database: Database, files: InstanceFiles
) -> None:
    from pydicom.encaps import encapsulate

    one = ct_slice()
    one.PixelData = encapsulate([b"\xff\x4f\xff\x51 not decoded here"])
    one["PixelData"].is_undefined_length = True
    one.file_meta.TransferSyntaxUID = JPEG2000Lossless
    content = file_of(one)
    assert post(client, body_of(content)).status_code == 200
    with sqlite_database.reading() as session:
        row = session.scalars(select(InstanceRow)).one()
    assert row.transfer_syntax_uid == JPEG2000Lossless
    assert files.absolute(row.path).read_bytes()[-200:] == content[-200:]


def test_some_stored_is_202_and_names_the_others(
    client: TestClient, sqlite_database: Database
) -> None:
    good = ct_slice("1.2.3")
    answer = post(client, body_of(file_of(good), b"no DICOM at all"))
    assert answer.status_code == 202
    assert uids_in(answer, "00081199") == [good.SOPInstanceUID]
    assert answer.json()["0008119A"]["Value"][0]["00081197"]["Value"] == [0xC000]
    assert stored(sqlite_database) == [good.SOPInstanceUID]


def test_study_of_the_address_must_be_the_instances(
    client: TestClient, sqlite_database: Database
) -> None:
    one, other = ct_slice("1.2.3"), ct_slice("1.2.4")
    answer = post(client, body_of(file_of(one), file_of(other)), "/1.2.3")
    assert answer.status_code == 202
    assert uids_in(answer, "00081198") == [other.SOPInstanceUID]
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA900]
    assert post(client, body_of(file_of(other)), "/1.2.3").status_code == 409
    assert stored(sqlite_database) == [one.SOPInstanceUID]


def test_a_full_disk_is_answered_with_503_so_that_the_client_comes_again(
    settings: Settings, sqlite_database: Database, files: InstanceFiles
) -> None:
    receiver = settings.receiver.model_copy(update={"minimum_free_mb": 10**9})
    full = settings.model_copy(update={"receiver": receiver})
    app = create_app(full, sqlite_database, files)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = post(client, body_of(file_of(ct_slice())))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "30"
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA700]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/dicom", 415),
        ("multipart/form-data; boundary=gate42", 415),
        ('multipart/related; type="application/dicom+json"; boundary=gate42', 415),
        ('multipart/related; type="application/dicom"', 400),
        (f'multipart/related; type="application/dicom"; boundary={"x" * 300}', 400),
    ],
)
def test_other_content_types_are_refused(
    client: TestClient, sqlite_database: Database, content_type: str, status: int
) -> None:
    answer = post(client, body_of(file_of(ct_slice())), **{"Content-Type": content_type})
    assert answer.status_code == status
    assert stored(sqlite_database) == []


@pytest.mark.parametrize(
    "body", [b"", b"nothing with a boundary", b"--gate42--\r\n", b"--gate42 what\r\n\r\n"]
)
def test_malformed_bodies_are_400(client: TestClient, body: bytes) -> None:
    assert post(client, body).status_code == 400


def test_a_body_that_breaks_off_is_400_and_what_came_whole_is_kept(
    client: TestClient, sqlite_database: Database
) -> None:
    whole, cut = ct_slice("1.2.3", 1), ct_slice("1.2.3", 2)
    body = body_of(file_of(whole), file_of(cut), closed=False)[:-100]
    assert post(client, body).status_code == 400
    assert stored(sqlite_database) == [whole.SOPInstanceUID]


@pytest.mark.parametrize("size", [1, 7, 1000, 65536])
def test_boundaries_are_found_wherever_the_body_is_cut(
    client: TestClient, sqlite_database: Database, size: int
) -> None:
    tricky = ct_slice("1.2.3", 1, PixelData=b"\r\n--gate4\r\n--gate4\r\n--ga\r\r\n--gate43"[:32])
    body = b"preamble to be ignored\r\n" + body_of(file_of(tricky), file_of(ct_slice("1.2.3", 2)))
    chunks: Sequence[bytes] = [body[i : i + size] for i in range(0, len(body), size)]
    from triage.receiver.multipart import PartCutter

    cutter = PartCutter(BOUNDARY.encode(), largest_part_bytes=10**6)
    parts = [part for chunk in chunks for part in cutter.feed(chunk)]
    cutter.finish()
    assert [part.content() for part in parts] == [
        file_of(tricky),
        file_of(ct_slice("1.2.3", 2)),
    ]
    assert parts[0].media_type == "application/dicom"


def test_an_instance_that_is_too_long_for_memory_is_stored(
    client: TestClient, sqlite_database: Database, files: InstanceFiles
) -> None:
    long = ct_slice("1.2.3", 1, PixelData=bytes(range(256)) * 40_000)
    content = file_of(long)
    assert post(client, body_of(content, file_of(ct_slice("1.2.3", 2)))).status_code == 200
    with sqlite_database.reading() as session:
        first = session.scalars(select(InstanceRow).order_by(InstanceRow.number)).first()
    assert first is not None
    assert files.absolute(first.path).read_bytes()[-10_240_000:] == content[-10_240_000:]


def test_too_long_a_request_is_413(
    settings: Settings, sqlite_database: Database, files: InstanceFiles
) -> None:
    with limited(settings, sqlite_database, files, maximum_request_mb=1) as client:
        answer = post(client, body_of(bytes(2 * 1024 * 1024)))
        assert answer.status_code == 413

        def without_length() -> Iterator[bytes]:
            for _ in range(20):
                yield bytes(100_000)

        assert post(client, without_length()).status_code in (400, 413)


def test_too_large_an_instance_does_not_keep_the_others_out(
    settings: Settings, sqlite_database: Database, files: InstanceFiles
) -> None:
    large = ct_slice("1.2.3", 1, PixelData=bytes(2 * 1024 * 1024))
    small = ct_slice("1.2.3", 2)
    with limited(settings, sqlite_database, files, maximum_instance_mb=1) as client:
        answer = post(client, body_of(file_of(large), file_of(small)))
    assert answer.status_code == 202
    assert stored(sqlite_database) == [small.SOPInstanceUID]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_page_of_another_site_cannot_store(
    client: TestClient, sqlite_database: Database, headers: dict[str, str]
) -> None:
    assert post(client, body_of(file_of(ct_slice())), **headers).status_code == 403
    assert stored(sqlite_database) == []


def test_authorization_is_asked_for_where_it_is_configured(
    settings: Settings, sqlite_database: Database, files: InstanceFiles
) -> None:
    body = body_of(file_of(ct_slice()))
    with limited(settings, sqlite_database, files, authorization="Bearer abc") as client:
        refused = post(client, body)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert post(client, body, Authorization="Bearer wrong").status_code == 401
        assert post(client, body, Authorization="Bearer abc").status_code == 200


def test_a_client_that_reads_only_xml_is_told_before_anything_is_stored(
    client: TestClient, sqlite_database: Database
) -> None:
    answer = post(client, body_of(file_of(ct_slice())), Accept="application/dicom+xml")
    assert answer.status_code == 406
    assert stored(sqlite_database) == []


def test_stow_can_be_switched_off(
    settings: Settings, sqlite_database: Database, files: InstanceFiles
) -> None:
    with limited(settings, sqlite_database, files, enabled=False) as client:
        assert post(client, body_of(file_of(ct_slice()))).status_code == 404


def test_orthanc_sends_a_study(
    address: str, sqlite_database: Database, tmp_path: Path, files: InstanceFiles
) -> None:
    more = {
        "DicomWeb": {
            "Enable": True,
            "Root": "/dicom-web/",
            "Servers": {"triage": [f"{address}/dicom-web/"]},
        }
    }
    orthanc = Orthanc(tmp_path / "orthanc", more=more).start()
    try:
        slices = [ct_slice("1.2.3", number) for number in range(1, 6)]
        for one in slices:
            httpx.post(f"{orthanc.url}/instances", content=file_of(one)).raise_for_status()
        [study] = orthanc.get("/studies")
        answer = httpx.post(
            f"{orthanc.url}/dicom-web/servers/triage/stow",
            json={"Resources": [study], "Synchronous": True},
            timeout=60,
        )
        assert answer.is_success, answer.text
    finally:
        orthanc.kill()
    assert sorted(stored(sqlite_database)) == sorted(str(o.SOPInstanceUID) for o in slices)
