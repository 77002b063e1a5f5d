"""What senders see of the storage SCP, over real sockets."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import __file__ as pydicom_data
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode as encode_dataset
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from tests.datasets import ct_slice
from tests.receiver.conftest import StartReceiver, associate, port_of, receiver_settings, send
from tests.tools import require_tool, wait_until
from triage.receiver import Receiver, ReceiverError
from triage.receiver.part10 import file_header
from triage.store.database import Database
from triage.store.files import GrowingFile, InstanceFiles
from triage.store.tables import InstanceRow, OpenAssociationRow, SeriesRow, StudyEventRow, StudyRow

NODELAY = {**os.environ, "TCP_NODELAY": "1"}


def stored(database: Database) -> dict[str, InstanceRow]:
    """Return the indexed instances by SOP Instance UID."""
    with database.reading() as session:
        return {row.sop_instance_uid: row for row in session.scalars(select(InstanceRow))}


def data_set_bytes(path: Path) -> bytes:
    """Return the encoded data set of a DICOM file, without preamble and file meta."""
    with path.open("rb") as file:
        pydicom.filereader.read_preamble(file, False)
        pydicom.filereader._read_file_meta_info(file)
        return file.read()


def test_echo_is_answered(sqlite_database: Database, start_receiver: StartReceiver) -> None:
    echoscu = require_tool("echoscu")
    receiver = start_receiver(sqlite_database)
    subprocess.run([echoscu, "127.0.0.1", str(port_of(receiver))], check=True)


def test_head_ct_from_storescu_is_stored_and_becomes_a_complete_study(
    database: Database, start_receiver: StartReceiver, shared_data: Path, files: InstanceFiles
) -> None:
    storescu = require_tool("storescu")
    receiver = start_receiver(database)
    folder = shared_data / "dicom" / "head-ct-ge"
    port = str(port_of(receiver))
    subprocess.run(
        [storescu, "-aet", "CT1", "+sd", "127.0.0.1", port, str(folder)], check=True, env=NODELAY
    )
    sent = {pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID: p for p in folder.iterdir()}
    rows = stored(database)
    assert rows.keys() == sent.keys()
    for uid, row in rows.items():
        assert data_set_bytes(files.absolute(row.path)) == data_set_bytes(sent[uid])
        assert row.headers["Rows"] == 512
        assert len(row.headers["ImagePositionPatient"]) == 3

    def study() -> StudyRow:
        with database.reading() as session:
            return session.scalars(select(StudyRow)).one()

    wait_until(lambda: study().state == "complete", "the study is complete")
    assert study().completion_reason == "association released and no image for 0.2 s"
    assert study().calling_ae_title == "CT1"
    assert study().modalities == "CT"


def test_every_transfer_syntax_is_stored_byte_for_byte(
    sqlite_database: Database,
    start_receiver: StartReceiver,
    shared_data: Path,
    files: InstanceFiles,
) -> None:
    receiver = start_receiver(sqlite_database)
    paths = sorted((shared_data / "dicom" / "transfer-syntaxes").glob("*.dcm"))
    pairs = [(pydicom.dcmread(p, stop_before_pixels=True), data_set_bytes(p)) for p in paths]
    assert send_all_encoded(receiver, pairs) == [0] * len(paths)
    sent = {encoded: dataset.file_meta.TransferSyntaxUID for dataset, encoded in pairs}
    rows = all_instances(sqlite_database)
    assert {encoded_of(files, row): row.transfer_syntax_uid for row in rows} == sent
    assert len(set(sent.values())) > 5


def test_every_transfer_syntax_is_taken_from_dcmtk(
    sqlite_database: Database,
    start_receiver: StartReceiver,
    shared_data: Path,
    files: InstanceFiles,
) -> None:
    dcmsend = require_tool("dcmsend")
    receiver = start_receiver(sqlite_database)
    paths = sorted((shared_data / "dicom" / "transfer-syntaxes").glob("*.dcm"))
    # One file a call: the same image in two syntaxes has one SOP Instance UID in some of them.
    for path in paths:
        options = ["--decompress-never", "--no-uid-checks", "127.0.0.1", str(port_of(receiver))]
        subprocess.run([dcmsend, *options, str(path)], check=True, env=NODELAY, capture_output=True)
    # DCMTK writes some lengths of a data set anew, so the data sets are compared and not the bytes.
    rows = all_instances(sqlite_database)
    kept = [pydicom.dcmread(files.absolute(row.path)) for row in rows]
    for path in paths:
        sent = pydicom.dcmread(path)
        syntax = sent.file_meta.TransferSyntaxUID
        assert any(
            k.file_meta.TransferSyntaxUID == syntax and k.PixelData == sent.PixelData for k in kept
        ), path.name


def sendable_test_files() -> list[Path]:
    """Return pydicom's test files that are whole objects of a storage SOP class."""
    sendable = []
    # Those that come with the package, and none that pydicom would have to download.
    for path in Path(pydicom_data).parent.glob("*_files/**/*"):
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
        except Exception:  # noqa: BLE001 - many of them are broken on purpose
            continue
        wanted = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
        meta = getattr(dataset, "file_meta", {})
        if all(dataset.get(k) for k in wanted) and meta.get("TransferSyntaxUID"):
            sendable.append(path)
    return sorted(sendable)


def test_objects_of_many_kinds_are_stored_byte_for_byte(
    sqlite_database: Database, start_receiver: StartReceiver, files: InstanceFiles
) -> None:
    receiver = start_receiver(sqlite_database, maximum_pdu_bytes=16384)
    paths = sendable_test_files()
    assert len(paths) > 40
    pairs = [(pydicom.dcmread(p, stop_before_pixels=True), data_set_bytes(p)) for p in paths]
    assert send_all_encoded(receiver, pairs) == [0] * len(paths)
    sent = {encoded: dataset.file_meta.TransferSyntaxUID for dataset, encoded in pairs}
    rows = all_instances(sqlite_database)
    assert {encoded_of(files, row): row.transfer_syntax_uid for row in rows} == sent


def all_instances(database: Database) -> list[InstanceRow]:
    """Return all index rows."""
    with database.reading() as session:
        return list(session.scalars(select(InstanceRow)))


def encoded_of(files: InstanceFiles, row: InstanceRow) -> bytes:
    """Return the stored data set of a row."""
    return data_set_bytes(files.absolute(row.path))


def send_encoded(receiver: Receiver, dataset: pydicom.Dataset, encoded: bytes) -> int:
    """Send the bytes `encoded` as they are under the UIDs of `dataset`; return the status."""
    return send_all_encoded(receiver, [(dataset, encoded)])[0]


def send_all_encoded(receiver: Receiver, pairs: list[tuple[pydicom.Dataset, bytes]]) -> list[int]:
    """Send each pair's bytes as they are under the UIDs of its data set; return the statuses."""
    association = associate(receiver, *(dataset for dataset, _ in pairs))
    assert association.is_established
    statuses = []
    association._reactor_checkpoint.clear()
    wait_until(lambda: association._is_paused, "the association's own thread pauses")
    for dataset, encoded in pairs:
        request = C_STORE()
        request.MessageID = 1
        request.Priority = 2
        request.AffectedSOPClassUID = dataset.SOPClassUID
        request.AffectedSOPInstanceUID = dataset.SOPInstanceUID
        request.DataSet = BytesIO(encoded)
        wanted = (dataset.SOPClassUID, [dataset.file_meta.TransferSyntaxUID])
        (context,) = [
            c
            for c in association.accepted_contexts
            if (c.abstract_syntax, c.transfer_syntax) == wanted
        ]
        association.dimse.send_msg(request, context.context_id)
        _, response = association.dimse.get_msg(block=True)
        assert response is not None
        statuses.append(int(response.Status))
    association._reactor_checkpoint.set()
    association.release()
    return statuses


def test_unknown_and_private_sop_classes_are_stored(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database)
    private = ct_slice(SOPClassUID="1.2.826.0.1.3680043.9.9999.1")
    future = ct_slice(SOPClassUID="1.2.840.10008.5.1.4.1.1.999999")
    assert [s.Status for s in send(receiver, private, future)] == [0, 0]
    assert stored(sqlite_database).keys() == {private.SOPInstanceUID, future.SOPInstanceUID}


def test_more_than_one_hundred_sop_classes_in_one_association(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database)
    slices = [ct_slice(SOPClassUID=f"1.2.840.10008.5.1.4.1.1.9000.{n}") for n in range(127)]
    association = associate(receiver, *slices)
    assert len(association.accepted_contexts) == 128
    association.release()


def test_a_standard_transfer_syntax_is_preferred_to_a_private_one(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database)
    entity = AE()
    private = "1.2.826.0.1.3680043.9.9999.2"
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2", [private, ExplicitVRLittleEndian])
    association = entity.associate("127.0.0.1", port_of(receiver))
    (context,) = association.accepted_contexts
    association.release()
    assert context.transfer_syntax == [ExplicitVRLittleEndian]


def test_same_instance_again_is_accepted_quietly(
    database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(database)
    one = ct_slice()
    assert send(receiver, one, one)[1].Status == 0
    assert send(receiver, one, calling="OTHER")[0].Status == 0
    assert len(all_instances(database)) == 1


def test_same_uid_with_other_content_is_kept_beside_the_first_and_noted(
    database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(database)
    first = ct_slice()
    second = ct_slice(first.StudyInstanceUID, PixelData=bytes(32))
    assert [s.Status for s in send(receiver, first, second)] == [0, 0]
    rows = all_instances(database)
    assert [row.conflicts_with for row in rows] == [None, rows[0].id]
    assert rows[0].path != rows[1].path
    with database.reading() as session:
        assert "conflict" in session.scalars(select(StudyEventRow.kind)).all()


@pytest.mark.parametrize(
    ("attributes", "status", "comment"),
    [
        ({"StudyInstanceUID": None}, 0xC000, "StudyInstanceUID"),
        ({"SeriesInstanceUID": None}, 0xC000, "SeriesInstanceUID"),
        ({"SeriesInstanceUID": "1.2.x"}, 0x0117, "SeriesInstanceUID is not a valid UID"),
        ({"StudyInstanceUID": "../../x"}, 0x0117, "StudyInstanceUID is not a valid UID"),
    ],
)
def test_data_set_without_identity_is_refused_with_a_comment(
    sqlite_database: Database,
    start_receiver: StartReceiver,
    attributes: dict[str, Any],
    status: int,
    comment: str,
) -> None:
    receiver = start_receiver(sqlite_database)
    (response,) = send(receiver, ct_slice("1.2.3", **attributes))
    assert response.Status == status
    assert comment in response.ErrorComment
    assert all_instances(sqlite_database) == []


def test_hostile_sop_instance_uid_is_refused_and_leaves_no_file(
    sqlite_database: Database, start_receiver: StartReceiver, tmp_path: Path
) -> None:
    receiver = start_receiver(sqlite_database)
    (response,) = send(receiver, ct_slice("1.2.3", SOPInstanceUID="../../x"))
    assert response.Status == 0x0117
    assert list((tmp_path / "data" / "instances").rglob("*")) == []


def test_data_set_of_another_instance_or_class_than_announced_is_refused(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database)
    announced = ct_slice()
    other = ct_slice(SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    for sent in (ct_slice(), other):
        assert send_encoded(receiver, announced, encode(sent)) == 0xA900


def encode(dataset: pydicom.Dataset) -> bytes:
    """Return `dataset` encoded in explicit VR little endian."""
    encoded = encode_dataset(dataset, False, True)
    assert encoded is not None
    return encoded


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\x00", b"not DICOM at all", bytes(1000), b"\xff" * 1000, b"\x08\x00\x05\x00CS\xff\xff"],
)
def test_garbage_is_refused_and_the_receiver_goes_on(
    sqlite_database: Database, start_receiver: StartReceiver, garbage: bytes
) -> None:
    receiver = start_receiver(sqlite_database)
    if garbage:
        assert send_encoded(receiver, ct_slice(), garbage) == 0xC000
    assert send(receiver, ct_slice())[0].Status == 0


def test_bytes_that_are_no_dicom_do_not_stop_the_receiver(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database)
    for nonsense in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff",
        b"\x04\x00\x00\x00\x00\x01\x00",
    ):
        with socket.create_connection(("127.0.0.1", port_of(receiver))) as connection:
            connection.sendall(nonsense)
    assert send(receiver, ct_slice())[0].Status == 0


def test_unknown_calling_ae_title_is_rejected_with_its_reason(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database, allowed_calling_ae_titles=("CT1",))
    association = associate(receiver, calling="STRANGER")
    assert association.is_rejected
    # Rejected permanent, service user, calling AE title not recognized (PS3.8 9.3.4).
    primitive = association.acceptor.primitive
    assert (primitive.result, primitive.result_source, primitive.diagnostic) == (1, 1, 3)
    allowed = associate(receiver, calling="CT1")
    assert allowed.is_established
    allowed.release()


def test_wrong_called_ae_title_is_rejected_with_its_reason(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database, require_called_ae_title=True)
    association = associate(receiver, called="PACS")
    assert association.is_rejected
    primitive = association.acceptor.primitive
    assert (primitive.result, primitive.result_source, primitive.diagnostic) == (1, 1, 7)


def test_one_association_too_many_is_told_to_come_back_later(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database, maximum_associations=1)
    first = associate(receiver)
    second = associate(receiver)
    assert second.is_rejected
    # Rejected transient, presentation layer, local limit exceeded.
    primitive = second.acceptor.primitive
    assert (primitive.result, primitive.result_source, primitive.diagnostic) == (2, 3, 2)
    first.release()
    wait_until(lambda: associate_and_release(receiver), "there is room for an association again")


def associate_and_release(receiver: Receiver) -> bool:
    """Return whether the receiver takes an association now."""
    association = associate(receiver)
    is_established = association.is_established
    association.release()
    return is_established


class FullDisk(InstanceFiles):
    """A store whose disk is full until the test makes room."""

    error: int | None = errno.ENOSPC

    def begin(self) -> GrowingFile:
        """Fail as the disk would."""
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        return super().begin()


@pytest.mark.parametrize(
    ("error", "comment"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "instance could not be written to disk")],
)
def test_disk_that_refuses_is_out_of_resources_until_it_takes_again(
    sqlite_database: Database,
    start_receiver: StartReceiver,
    tmp_path: Path,
    error: int,
    comment: str,
) -> None:
    disk = FullDisk(tmp_path / "data")
    disk.error = error
    receiver = start_receiver(sqlite_database, instance_files=disk)
    one = ct_slice()
    (response,) = send(receiver, one)
    assert (response.Status, response.ErrorComment) == (0xA700, comment)
    assert all_instances(sqlite_database) == []
    disk.error = None
    assert send(receiver, one)[0].Status == 0


def test_less_space_than_is_to_be_kept_free_is_out_of_resources(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database, minimum_free_mb=10**9)
    assert send(receiver, ct_slice())[0].Status == 0xA700


class MeasuredDisk(InstanceFiles):
    """A store whose free space a test sets, in MB."""

    free_mb = 10_000

    def free_bytes(self) -> int:
        """Return what the test says."""
        return self.free_mb * 1024 * 1024


def test_refused_senders_wait_for_room_while_what_was_accepted_goes_on(
    sqlite_database: Database, start_receiver: StartReceiver, tmp_path: Path
) -> None:
    disk = MeasuredDisk(tmp_path / "data")
    limits = {"minimum_free_mb": 100, "resume_free_mb": 200}
    receiver = start_receiver(sqlite_database, instance_files=disk, **limits)
    assert send(receiver, ct_slice("1.2.1"))[0].Status == 0
    disk.free_mb = 99
    (response,) = send(receiver, ct_slice("1.2.2"))
    assert response.Status == 0xA700
    assert response.ErrorComment.startswith("disk")
    disk.free_mb = 150
    assert send(receiver, ct_slice("1.2.2"))[0].Status == 0xA700

    def study() -> StudyRow:
        with sqlite_database.reading() as session:
            return session.scalars(select(StudyRow)).one()

    wait_until(lambda: study().state == "complete", "the accepted study is complete")
    disk.free_mb = 200
    assert send(receiver, ct_slice("1.2.2"))[0].Status == 0


def test_database_that_is_away_is_out_of_resources_until_it_is_back(
    sqlite_database: Database, start_receiver: StartReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = start_receiver(sqlite_database)
    one = ct_slice()

    def away(**_: object) -> None:
        raise OperationalError("BEGIN", {}, Exception("connection refused"))

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_database, "connection", away)
        (response,) = send(receiver, one)
    assert response.Status == 0xA700
    assert "send again" in response.ErrorComment
    assert send(receiver, one)[0].Status == 0
    assert len(all_instances(sqlite_database)) == 1


def test_port_in_use_is_said_in_words(
    sqlite_database: Database, start_receiver: StartReceiver, tmp_path: Path, files: InstanceFiles
) -> None:
    receiver = start_receiver(sqlite_database)
    one = ct_slice()
    association = associate(receiver, one)
    association.send_c_store(one)
    settings = receiver_settings(tmp_path / "data", port=port_of(receiver))
    with pytest.raises(ReceiverError, match=r"is in use by another program.*receiver\.port"):
        Receiver(settings, sqlite_database, files).start()
    # The one that runs still holds its study open, though both have the same name.
    with sqlite_database.reading() as session:
        assert len(session.scalars(select(OpenAssociationRow)).all()) == 1
    association.release()


def test_text_is_decoded_with_the_character_set_of_the_object(
    database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(database)
    japanese = ct_slice(
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=山田^太郎",
        PatientID="J1",
    )
    german = ct_slice(SpecificCharacterSet="ISO_IR 100", StudyDescription="Schädel nativ")
    assert [s.Status for s in send(receiver, japanese, german)] == [0, 0]
    with database.reading() as session:
        studies = session.scalars(select(StudyRow).order_by(StudyRow.id)).all()
    assert studies[0].patient.name == "Yamada^Tarou=山田^太郎"
    assert studies[1].description == "Schädel nativ"


def test_invalid_values_lose_no_image(database: Database, start_receiver: StartReceiver) -> None:
    receiver = start_receiver(database)
    dataset = ct_slice()
    encoded = encode(dataset)
    for good, bad in (
        (b"Test^Patient", b"Te\x00t^P\x00tient"),
        (b"HEAD", b"H\xff\x00D"),
        (b"0.5\\0.5 ", b"0.5\\nan "),
    ):
        assert encoded.count(good) == 1
        encoded = encoded.replace(good, bad)
    assert send_encoded(receiver, dataset, encoded) == 0
    (row,) = all_instances(database)
    assert "PixelSpacing" not in row.headers
    with database.reading() as session:
        assert session.scalars(select(StudyRow)).one().patient.name == "Tet^Ptient"


def test_series_uid_that_two_studies_share_does_not_mix_them(
    database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(database)
    first = ct_slice(PatientID="A")
    second = ct_slice(PatientID="B", SeriesInstanceUID=first.SeriesInstanceUID)
    assert [s.Status for s in send(receiver, first, second)] == [0, 0]
    with database.reading() as session:
        pairs = session.execute(
            select(StudyRow.study_instance_uid, InstanceRow.sop_instance_uid)
            .join(SeriesRow, SeriesRow.study_id == StudyRow.id)
            .join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
        )
        assert {tuple(pair) for pair in pairs} == {
            (d.StudyInstanceUID, d.SOPInstanceUID) for d in (first, second)
        }


def test_file_header_is_read_by_dcmtk(tmp_path: Path) -> None:
    dcmdump = require_tool("dcmdump")
    dataset = ct_slice()
    meta = file_header(
        sop_class_uid=dataset.SOPClassUID,
        sop_instance_uid=dataset.SOPInstanceUID,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    (tmp_path / "one.dcm").write_bytes(meta + encode(dataset))
    dumped = subprocess.run(
        [dcmdump, str(tmp_path / "one.dcm")], check=True, capture_output=True, text=True
    )
    assert dumped.stderr == ""
    assert dataset.SOPInstanceUID in dumped.stdout
