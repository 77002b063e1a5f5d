"""C-MOVE and C-GET: what arrives, in which form, and how a retrieval ends."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import build_role
from sqlalchemy import select

from tests.datasets import ct_slice
from tests.orthanc import Orthanc
from tests.receiver.conftest import port_of
from tests.receiver.query.conftest import StartWith, remote
from tests.receiver.query.test_find import associated, find, identifier
from tests.tools import find_free_port, require_tool, wait_until
from triage.receiver import Receiver
from triage.settings import QuerySettings
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.tables import InstanceRow

MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
GET = "1.2.840.10008.5.1.4.1.2.2.3"
PATIENT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"


def in_rle(dataset: Dataset) -> Dataset:
    """Return the data set with its pixels in RLE."""
    dataset.compress(RLELossless, generate_instance_uid=False)
    return dataset


def implicit(dataset: Dataset) -> Dataset:
    """Return the data set to be sent in implicit VR."""
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return dataset


def mixed_study() -> list[Dataset]:
    """Return a study of three SOP classes in three transfer syntaxes, one class a private one."""
    private = {"SOPClassUID": "1.2.826.0.1.3680043.9.9999.1", "SOPInstanceUID": "1.2.3.4.1"}
    report = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "SOPInstanceUID": "1.2.3.4.2"}
    return [
        ct_slice("1.2.3", 1),
        in_rle(ct_slice("1.2.3", 2)),
        implicit(ct_slice("1.2.3", 3, SeriesInstanceUID="1.2.3.4", **private)),
        ct_slice("1.2.3", 4, SeriesInstanceUID="1.2.3.4", **report),
    ]


class Workstation:
    """A storage SCP that answers as a test says.

    `aborts_at` is the SOP instance at which it aborts the association.

    Attributes:
        statuses: by SOP Instance UID; success for all others.
        received: SOP Instance UID and encoded data set of each request, in order.
    """

    def __init__(self) -> None:
        self.port = find_free_port()
        self.statuses: dict[str, int] = {}
        self.received: list[tuple[str, bytes, str]] = []
        self.originators: list[tuple[str, int]] = []
        self.on_store = lambda: None
        self.aborts_at = ""
        entity = AE(ae_title="WORKSTATION")
        for uid in (
            CTImageStorage,
            "1.2.840.10008.5.1.4.1.1.88.11",
            "1.2.826.0.1.3680043.9.9999.1",
        ):
            entity.add_supported_context(uid, ALL_SYNTAXES)
        self._server: Any = entity.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store)],
        )

    def _store(self, event: evt.Event) -> int:
        self.on_store()
        request: Any = event.request
        if request.AffectedSOPInstanceUID == self.aborts_at:
            event.assoc.abort()
        uid = str(request.AffectedSOPInstanceUID)
        data = request.DataSet.getvalue()
        self.received.append((uid, data, str(event.context.transfer_syntax)))
        self.originators.append(
            (
                str(request.MoveOriginatorApplicationEntityTitle),
                int(request.MoveOriginatorMessageID),
            )
        )
        return self.statuses.get(uid, 0x0000)

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()


ALL_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless]


@pytest.fixture
def workstation() -> Iterator[Workstation]:
    """A workstation that takes everything as stored."""
    one = Workstation()
    yield one
    one.stop()


def move(
    receiver: Receiver, asked: Dataset, destination: str = "WORKSTATION", model: str = MOVE
) -> list[tuple[Dataset, Dataset | None]]:
    """Return the responses to one C-MOVE."""
    association = associated(receiver, model)
    responses = list(association.send_c_move(asked, destination, model))
    association.release()
    return responses


def stored_bytes(database: Database, files: InstanceFiles) -> dict[str, bytes]:
    """Return the stored data sets by SOP Instance UID, without the file header."""
    with database.reading() as session:
        rows = session.scalars(select(InstanceRow)).all()
    found = {}
    for row in rows:
        path = files.absolute(row.path)
        length = pydicom.filereader.read_file_meta_info(path).FileMetaInformationGroupLength
        found[row.sop_instance_uid] = path.read_bytes()[132 + 12 + length :]
    return found


def test_move_sends_every_instance_byte_for_byte_as_stored(
    database: Database, start_with: StartWith, files: InstanceFiles, workstation: Workstation
) -> None:
    peer = remote("workstation", "WORKSTATION", workstation.port)
    receiver = start_with(database, *mixed_study(), remotes=(peer,))
    responses = move(receiver, identifier("STUDY", StudyInstanceUID="1.2.3"))
    assert [r.Status for r, _ in responses] == [0xFF00] * 3 + [0x0000]
    assert responses[0][0].NumberOfRemainingSuboperations == 3
    assert responses[-1][0].NumberOfCompletedSuboperations == 4
    assert {uid: data for uid, data, _ in workstation.received} == stored_bytes(database, files)
    assert [syntax for _, _, syntax in workstation.received] == [
        ExplicitVRLittleEndian,
        RLELossless,
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
    ]
    assert set(workstation.originators) == {("WORKSTATION", 1)}


def test_move_takes_lists_of_unique_keys_at_each_level(
    database: Database, start_with: StartWith, workstation: Workstation
) -> None:
    peer = remote("workstation", "WORKSTATION", workstation.port)
    others = [ct_slice("1.2.5", n + 1, PatientID="P2") for n in range(2)]
    receiver = start_with(database, *mixed_study(), *others, remotes=(peer,))
    cases = [
        (MOVE, identifier("STUDY", StudyInstanceUID=["1.2.3", "1.2.5", "1.2.7"]), 6),
        (MOVE, identifier("SERIES", StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4"), 2),
        (
            MOVE,
            identifier(
                "IMAGE",
                StudyInstanceUID="1.2.3",
                SeriesInstanceUID="1.2.3.4",
                SOPInstanceUID=["1.2.3.4.1", "1.2.3.4.2", "1.2.5.1.1"],
            ),
            2,
        ),
        (PATIENT_MOVE, identifier("PATIENT", PatientID="P2"), 2),
        (PATIENT_MOVE, identifier("STUDY", PatientID="P2", StudyInstanceUID="1.2.3"), 0),
        (MOVE, identifier("STUDY", StudyInstanceUID="9.9"), 0),
    ]
    sent = []
    for model, asked, _ in cases:
        final = move(receiver, asked, model=model)[-1][0]
        assert final.Status == 0x0000
        sent.append(final.NumberOfCompletedSuboperations)
    assert sent == [count for _, _, count in cases]


def test_failed_and_warned_instances_are_counted_and_named(
    sqlite_database: Database, start_with: StartWith, workstation: Workstation
) -> None:
    peer = remote("workstation", "WORKSTATION", workstation.port)
    receiver = start_with(sqlite_database, *mixed_study(), remotes=(peer,))
    workstation.statuses = {"1.2.3.1.1": 0xA700, "1.2.3.4.2": 0xB007}
    final, failed = move(receiver, identifier("STUDY", StudyInstanceUID="1.2.3"))[-1]
    assert final.Status == 0xB000
    assert (
        final.NumberOfCompletedSuboperations,
        final.NumberOfFailedSuboperations,
        final.NumberOfWarningSuboperations,
    ) == (2, 1, 1)
    assert failed is not None
    assert failed.FailedSOPInstanceUIDList == "1.2.3.1.1"


def test_destination_that_breaks_off_fails_what_is_left(
    sqlite_database: Database, start_with: StartWith, workstation: Workstation
) -> None:
    peer = remote("workstation", "WORKSTATION", workstation.port)
    slices = [ct_slice("1.2.3", n + 1) for n in range(4)]
    receiver = start_with(sqlite_database, *slices, remotes=(peer,))
    workstation.aborts_at = "1.2.3.1.3"
    started = time.monotonic()
    final, failed = move(receiver, identifier("STUDY", StudyInstanceUID="1.2.3"))[-1]
    assert time.monotonic() - started < 5
    assert (final.Status, final.NumberOfCompletedSuboperations) == (0xB000, 2)
    assert failed is not None
    assert list(failed.FailedSOPInstanceUIDList) == ["1.2.3.1.3", "1.2.3.1.4"]


def test_get_ends_when_the_peer_breaks_off(
    sqlite_database: Database, start_with: StartWith
) -> None:
    receiver = start_with(sqlite_database, *(ct_slice("1.2.3", n + 1) for n in range(20)))
    entity = AE(ae_title="WORKSTATION")
    entity.add_requested_context(GET)
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = entity.associate(
        "127.0.0.1",
        port_of(receiver),
        ext_neg=[build_role(CTImageStorage, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, lambda event: event.assoc.abort())],
    )
    association.dimse_timeout = 1  # for an answer that cannot come any more
    list(association.send_c_get(identifier("STUDY", StudyInstanceUID="1.2.3"), GET))
    wait_until(lambda: not receiver._ae.active_associations, "the receiver has let go", 5)


def test_instance_whose_file_is_gone_fails_alone(
    sqlite_database: Database,
    start_with: StartWith,
    files: InstanceFiles,
    workstation: Workstation,
) -> None:
    peer = remote("workstation", "WORKSTATION", workstation.port)
    receiver = start_with(sqlite_database, *mixed_study(), remotes=(peer,))
    with sqlite_database.reading() as session:
        row = session.scalars(select(InstanceRow).order_by(InstanceRow.id)).first()
        assert row is not None
        files.absolute(row.path).unlink()
    final, failed = move(receiver, identifier("STUDY", StudyInstanceUID="1.2.3"))[-1]
    assert (final.Status, final.NumberOfCompletedSuboperations) == (0xB000, 3)
    assert failed is not None
    assert failed.FailedSOPInstanceUIDList == row.sop_instance_uid


def test_unknown_destination_is_said_so(sqlite_database: Database, start_with: StartWith) -> None:
    receiver = start_with(sqlite_database, *mixed_study())
    ((final, _),) = move(receiver, identifier("STUDY", StudyInstanceUID="1.2.3"), "NOBODY")
    assert final.Status == 0xA801
    assert "move destination" in final.ErrorComment


def test_destination_that_is_away_fails_every_sub_operation(
    sqlite_database: Database, start_with: StartWith
) -> None:
    peer = remote("workstation", "WORKSTATION", find_free_port())
    receiver = start_with(sqlite_database, *mixed_study(), remotes=(peer,))
    final, failed = move(receiver, identifier("STUDY", StudyInstanceUID="1.2.3"))[-1]
    assert (final.Status, final.NumberOfFailedSuboperations) == (0xA702, 4)
    assert failed is not None
    assert len(failed.FailedSOPInstanceUIDList) == 4


@pytest.mark.parametrize(
    "asked",
    [
        identifier("SERIES", SeriesInstanceUID="1.2.3.1"),
        identifier("STUDY", StudyInstanceUID=""),
        identifier("STUDY", PatientID="P1"),
        identifier("PATIENT", PatientID="P1"),
        identifier("LATER", StudyInstanceUID="1.2.3"),
    ],
)
def test_identifier_without_its_unique_keys_is_refused(
    sqlite_database: Database, start_with: StartWith, workstation: Workstation, asked: Dataset
) -> None:
    peer = remote("workstation", "WORKSTATION", workstation.port)
    receiver = start_with(sqlite_database, *mixed_study(), remotes=(peer,))
    ((final, _),) = move(receiver, asked)
    assert final.Status == 0xA900
    assert final.ErrorComment
    assert workstation.received == []


def test_cancelled_move_ends_with_what_remains(
    sqlite_database: Database, start_with: StartWith, workstation: Workstation
) -> None:
    peer = remote("workstation", "WORKSTATION", workstation.port)
    receiver = start_with(sqlite_database, *mixed_study(), remotes=(peer,))
    association = associated(receiver, MOVE)

    def cancel() -> None:
        if len(workstation.received) == 1:
            association.send_c_cancel(1, None, MOVE)
            wait_until(
                lambda: any(a.dimse.cancel_req for a in receiver._ae.active_associations),
                "the request to cancel has arrived",
            )

    workstation.on_store = cancel
    asked = identifier("STUDY", StudyInstanceUID="1.2.3")
    final, _ = list(association.send_c_move(asked, "WORKSTATION", MOVE))[-1]
    association.release()
    assert (final.Status, final.NumberOfRemainingSuboperations) == (0xFE00, 2)
    assert len(workstation.received) == 2


def test_move_to_triage_itself_ends_and_changes_nothing(
    database: Database, start_with: StartWith
) -> None:
    port = find_free_port()
    peer = remote("self", "TRIAGE", port)
    receiver = start_with(database, *mixed_study(), remotes=(peer,), port=port)
    final, _ = move(receiver, identifier("STUDY", StudyInstanceUID="1.2.3"), "TRIAGE")[-1]
    assert (final.Status, final.NumberOfCompletedSuboperations) == (0x0000, 4)
    with database.reading() as session:
        assert len(session.scalars(select(InstanceRow)).all()) == 4


def test_move_stops_when_nobody_is_left_who_asked(
    sqlite_database: Database, start_with: StartWith, workstation: Workstation
) -> None:
    peer = remote("workstation", "WORKSTATION", workstation.port)
    slices = [ct_slice("1.2.3", n + 1) for n in range(20)]
    receiver = start_with(sqlite_database, *slices, remotes=(peer,))
    association = associated(receiver, MOVE)
    gone = threading.Event()

    def hang_up() -> None:
        if not gone.is_set():
            association.abort()
            gone.set()

    workstation.on_store = hang_up
    asked = identifier("STUDY", StudyInstanceUID="1.2.3")
    association.dimse_timeout = 1  # for an answer that cannot come any more
    list(association.send_c_move(asked, "WORKSTATION", MOVE))
    wait_until(lambda: not receiver._ae.active_associations, "the receiver has let go")
    assert len(workstation.received) < 20


def get(
    receiver: Receiver,
    asked: Dataset,
    *contexts: tuple[str, list[str]],
    roles: tuple[SCP_SCU_RoleSelectionNegotiation, ...] | None = None,
) -> tuple[list[tuple[Dataset, Dataset | None]], list[tuple[str, Dataset]]]:
    """Return the responses to one C-GET, and transfer syntax and data set of what came."""
    came: list[tuple[str, Dataset]] = []

    def store(event: evt.Event) -> int:
        came.append((str(event.context.transfer_syntax), event.dataset))
        return 0x0000

    entity = AE(ae_title="WORKSTATION")
    entity.add_requested_context(GET)
    for uid, syntaxes in contexts:
        entity.add_requested_context(uid, syntaxes)
    wanted = [build_role(uid, scp_role=True) for uid, _ in contexts] if roles is None else roles
    association = entity.associate(
        "127.0.0.1",
        port_of(receiver),
        ae_title="TRIAGE",
        ext_neg=list(wanted),
        evt_handlers=[(evt.EVT_C_STORE, store)],
    )
    assert association.is_established
    responses = list(association.send_c_get(asked, GET))
    association.release()
    return responses, came


def test_get_sends_on_the_same_association_in_the_transfer_syntax_as_stored(
    database: Database, start_with: StartWith
) -> None:
    receiver = start_with(database, *(in_rle(ct_slice("1.2.3", n + 1)) for n in range(3)))
    asked = identifier("STUDY", StudyInstanceUID="1.2.3")
    syntaxes: list[str] = [ExplicitVRLittleEndian, RLELossless, ImplicitVRLittleEndian]
    responses, came = get(receiver, asked, (CTImageStorage, syntaxes))
    assert [r.Status for r, _ in responses] == [0xFF00, 0xFF00, 0x0000]
    assert responses[-1][0].NumberOfCompletedSuboperations == 3
    assert [syntax for syntax, _ in came] == [RLELossless] * 3


def test_get_decompresses_for_a_peer_that_takes_only_uncompressed(
    sqlite_database: Database, start_with: StartWith
) -> None:
    receiver = start_with(sqlite_database, in_rle(ct_slice("1.2.3", 1)), ct_slice("1.2.3", 2))
    asked = identifier("STUDY", StudyInstanceUID="1.2.3")
    responses, came = get(receiver, asked, (CTImageStorage, [ImplicitVRLittleEndian]))
    assert responses[-1][0].Status == 0x0000
    assert [d.PixelData for _, d in came] == [ct_slice("1.2.3", 1).PixelData] * 2


def test_get_fails_what_the_peer_has_no_context_or_role_for(
    sqlite_database: Database, start_with: StartWith
) -> None:
    receiver = start_with(sqlite_database, *mixed_study())
    asked = identifier("STUDY", StudyInstanceUID="1.2.3")
    explicit: list[str] = [ExplicitVRLittleEndian]
    responses, came = get(receiver, asked, (CTImageStorage, explicit))
    final, failed = responses[-1]
    assert (final.Status, final.NumberOfFailedSuboperations) == (0xB000, 2)
    assert failed is not None
    assert set(failed.FailedSOPInstanceUIDList) == {"1.2.3.4.1", "1.2.3.4.2"}
    assert len(came) == 2
    responses, came = get(receiver, asked, (CTImageStorage, explicit), roles=())
    assert (responses[-1][0].Status, came) == (0xA702, [])


def dcmtk(name: str, receiver: Receiver, folder: Path, *arguments: str) -> list[Dataset]:
    """Run a retrieving program of DCMTK and return what it stored."""
    folder.mkdir()
    command = [require_tool(name), "-S", "-aec", "TRIAGE", "-od", str(folder), *arguments]
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2.3"]
    done = subprocess.run(
        [*command, *keys, "127.0.0.1", str(port_of(receiver))],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return [pydicom.dcmread(file) for file in sorted(folder.iterdir())]


def test_getscu_of_dcmtk_gets_every_instance(
    sqlite_database: Database, start_with: StartWith, tmp_path: Path
) -> None:
    report = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "SOPInstanceUID": "1.2.3.4.2"}
    study = [ct_slice("1.2.3", 1), in_rle(ct_slice("1.2.3", 2)), ct_slice("1.2.3", 4, **report)]
    receiver = start_with(sqlite_database, *study)
    got = dcmtk("getscu", receiver, tmp_path / "got")
    assert {d.SOPInstanceUID for d in got} == {d.SOPInstanceUID for d in study}
    assert {d.file_meta.TransferSyntaxUID for d in got} == {ExplicitVRLittleEndian}


def test_getscu_of_dcmtk_gets_rle_as_stored_when_it_prefers_that(
    sqlite_database: Database, start_with: StartWith, tmp_path: Path
) -> None:
    receiver = start_with(sqlite_database, *(in_rle(ct_slice("1.2.3", n + 1)) for n in range(2)))
    got = dcmtk("getscu", receiver, tmp_path / "got", "+xr")
    assert [d.file_meta.TransferSyntaxUID for d in got] == [RLELossless] * 2


def test_movescu_of_dcmtk_gets_every_instance(
    sqlite_database: Database, start_with: StartWith, tmp_path: Path
) -> None:
    port = find_free_port()
    study = [ct_slice("1.2.3", 1), in_rle(ct_slice("1.2.3", 2))]
    peer = remote("workstation", "WORKSTATION", port)
    receiver = start_with(sqlite_database, *study, remotes=(peer,))
    arguments = ["-aet", "WORKSTATION", "-aem", "WORKSTATION", "+P", str(port)]
    got = dcmtk("movescu", receiver, tmp_path / "got", *arguments)
    assert {d.SOPInstanceUID for d in got} == {d.SOPInstanceUID for d in study}


def test_move_converts_without_loss_for_a_peer_that_takes_only_uncompressed(
    sqlite_database: Database, start_with: StartWith, tmp_path: Path
) -> None:
    port = find_free_port()
    study = [ct_slice("1.2.3", 1), in_rle(ct_slice("1.2.3", 2))]
    peer = remote("workstation", "WORKSTATION", port)
    receiver = start_with(sqlite_database, *study, remotes=(peer,))
    arguments = ["-aet", "WORKSTATION", "-aem", "WORKSTATION", "+P", str(port), "+xi"]
    got = dcmtk("movescu", receiver, tmp_path / "got", *arguments)
    assert [d.file_meta.TransferSyntaxUID for d in got] == [ImplicitVRLittleEndian] * 2
    assert [d.PixelData for d in got] == [ct_slice("1.2.3").PixelData] * 2


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[tuple[Orthanc, int]]:
    """An Orthanc that knows a Triage at a port."""
    port = find_free_port()
    modalities = {"triage": ["TRIAGE", "127.0.0.1", port]}
    one = Orthanc(tmp_path / "orthanc", more={"DicomModalities": modalities}).start()
    yield one, port
    one.kill()


def test_orthanc_queries_triage_and_retrieves_what_it_found(
    sqlite_database: Database, start_with: StartWith, orthanc: tuple[Orthanc, int]
) -> None:
    archive, port = orthanc
    peer = remote("archive", archive.ae_title, archive.dicom_port)
    study = [ct_slice("1.2.3", 1), in_rle(ct_slice("1.2.3", 2))]
    start_with(sqlite_database, *study, ct_slice("1.2.4", 1), remotes=(peer,), port=port)
    asked = {"Level": "Study", "Query": {"StudyInstanceUID": "1.2.3", "PatientName": "TEST*"}}
    answer = httpx.post(f"{archive.url}/modalities/triage/query", json=asked, timeout=30)
    query = answer.raise_for_status().json()["ID"]
    assert archive.get(f"/queries/{query}/answers") == ["0"]
    wanted = {"TargetAet": archive.ae_title, "Synchronous": True}
    httpx.post(
        f"{archive.url}/queries/{query}/retrieve", json=wanted, timeout=60
    ).raise_for_status()
    assert set(archive.sop_instance_uids()) == {d.SOPInstanceUID for d in study}
    rle = pydicom.dcmread(BytesIO(archive.file_of(study[1].SOPInstanceUID)))
    assert rle.file_meta.TransferSyntaxUID == RLELossless


def test_silent_destination_is_given_up_after_its_timeout(
    sqlite_database: Database, start_with: StartWith
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        peer = remote("workstation", "WORKSTATION", silent.getsockname()[1], timeout_s=0.5)
        receiver = start_with(sqlite_database, *mixed_study(), remotes=(peer,))
        final, _ = move(receiver, identifier("STUDY", StudyInstanceUID="1.2.3"))[-1]
    assert (final.Status, final.NumberOfFailedSuboperations) == (0xA702, 4)


def test_ae_title_that_may_not_ask_is_refused_as_not_authorized(
    sqlite_database: Database, start_with: StartWith, workstation: Workstation
) -> None:
    peer = remote("workstation", "WORKSTATION", workstation.port)
    only = QuerySettings(allowed_calling_ae_titles=("READER",))
    receiver = start_with(sqlite_database, *mixed_study(), remotes=(peer,), query=only)
    asked = identifier("STUDY", StudyInstanceUID="1.2.3")
    ((final, _),) = move(receiver, asked)
    assert final.Status == 0x0124
    matches, final = find(receiver, asked)
    assert (matches, final.Status) == ([], 0x0124)
    assert workstation.received == []


def test_query_and_retrieve_are_not_offered_where_they_are_turned_off(
    sqlite_database: Database, start_with: StartWith
) -> None:
    receiver = start_with(sqlite_database, query=QuerySettings(enabled=False))
    entity = AE()
    for uid in (MOVE, GET, "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.1"):
        entity.add_requested_context(uid)
    association = entity.associate("127.0.0.1", port_of(receiver))
    assert [str(c.abstract_syntax) for c in association.accepted_contexts] == ["1.2.840.10008.1.1"]
    association.release()
