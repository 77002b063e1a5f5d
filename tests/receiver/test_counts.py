"""How many images the archive counts, asked of Orthanc and of archives that do not answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE
from sqlalchemy import select

from tests.datasets import ct_slice
from tests.orthanc import Orthanc
from tests.receiver.conftest import StartReceiver, send
from tests.tools import find_free_port, wait_until
from triage.core.runs import StudyState
from triage.receiver.counts import Count, CountError, counter_at
from triage.receiver.server import ReceiverError
from triage.settings import RemoteSettings
from triage.store.database import Database
from triage.store.tables import ArchiveCountRow, StudyRow


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """A running Orthanc."""
    one = Orthanc(tmp_path_factory.mktemp("orthanc"), more={"DicomAlwaysAllowFind": True}).start()
    yield one
    one.kill()


def remote(orthanc: Orthanc, how: str) -> RemoteSettings:
    """Return how Triage reaches the archive."""
    return RemoteSettings(
        name="pacs",
        ae_title=orthanc.ae_title,
        host="127.0.0.1",
        port=orthanc.dicom_port,
        timeout_s=10,
        dicomweb_url=f"{orthanc.url}/dicom-web/" if how == "QIDO-RS" else "",
    )


def archive(orthanc: Orthanc, *datasets: Dataset) -> None:
    """Store instances in the archive."""
    entity = AE(ae_title="CT1")
    entity.add_requested_context(datasets[0].SOPClassUID, datasets[0].file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", orthanc.dicom_port, ae_title=orthanc.ae_title)
    assert association.is_established
    assert {association.send_c_store(one).Status for one in datasets} == {0x0000}
    association.release()


def a_study() -> list[Dataset]:
    """Return two series of a new study, of three and of two images."""
    study = generate_uid()
    first = [ct_slice(study, number=n) for n in range(1, 4)]
    second = [ct_slice(study, number=n, SeriesInstanceUID=f"{study[:50]}.2") for n in range(4, 6)]
    return [*first, *second]


@pytest.mark.parametrize("how", ["C-FIND", "QIDO-RS"])
def test_orthanc_counts_study_and_series(orthanc: Orthanc, how: str) -> None:
    datasets = a_study()
    archive(orthanc, *datasets)
    counter = counter_at(remote(orthanc, how), calling_ae_title="TRIAGE")
    study = datasets[0].StudyInstanceUID
    assert counter.count(study) == Count(5, {f"{study[:50]}.1": 3, f"{study[:50]}.2": 2})
    assert counter.count(generate_uid()) == Count(0, {})


@pytest.mark.parametrize("how", ["C-FIND", "QIDO-RS"])
def test_study_is_complete_when_it_is_all_that_the_archive_has(
    sqlite_database: Database, start_receiver: StartReceiver, orthanc: Orthanc, how: str
) -> None:
    datasets = a_study()
    archive(orthanc, *datasets)
    receiver = start_receiver(
        sqlite_database,
        remotes=[remote(orthanc, how).model_dump()],
        count_at="pacs",
        count_pause_s=0.2,
        quiet_period_s=600,
        quiet_period_by_modality_s={},
    )
    send(receiver, *datasets[:4])
    wait_until(lambda: answered(sqlite_database), "the archive has answered")
    assert the_study(sqlite_database).state is StudyState.RECEIVING
    send(receiver, datasets[4])
    wait_until(
        lambda: the_study(sqlite_database).state is StudyState.COMPLETE, "the study is complete"
    )
    reason = the_study(sqlite_database).completion_reason
    assert reason == "all 5 images are here (archive's count)"


def the_study(database: Database) -> StudyRow:
    """Return the one study."""
    with database.reading() as session:
        return session.scalars(select(StudyRow)).one()


def answered(database: Database) -> bool:
    """Return whether the archive has given a count."""
    with database.reading() as session:
        row = session.scalars(select(ArchiveCountRow)).one_or_none()
    return row is not None and row.answered_at is not None


@pytest.mark.parametrize("how", ["C-FIND", "QIDO-RS"])
def test_archive_that_is_away_delays_nothing_and_the_error_is_kept(
    sqlite_database: Database, start_receiver: StartReceiver, how: str
) -> None:
    port = find_free_port()
    away = {
        "name": "pacs",
        "ae_title": "PACS",
        "host": "127.0.0.1",
        "port": port,
        "timeout_s": 5,
        "dicomweb_url": f"http://127.0.0.1:{port}" if how == "QIDO-RS" else "",
    }
    receiver = start_receiver(
        sqlite_database,
        remotes=[away],
        count_at="pacs",
        count_pause_s=0.1,
        # Nobody is asked about a study that is complete, and a busy machine may need its seconds
        # from the image to the release that the question waits for.
        quiet_period_by_modality_s={"CT": 5},
    )
    send(receiver, ct_slice())

    def error() -> str:
        with sqlite_database.reading() as session:
            return session.scalars(select(ArchiveCountRow.last_error)).one_or_none() or ""

    wait_until(lambda: "pacs" in error(), "it was asked")
    wait_until(
        lambda: the_study(sqlite_database).state is StudyState.COMPLETE, "the study is complete"
    )
    reason = the_study(sqlite_database).completion_reason
    assert reason == "association released and no image for 5 s"


def test_archive_without_the_service_gives_no_count(orthanc: Orthanc) -> None:
    wrong = remote(orthanc, "QIDO-RS").model_copy(update={"dicomweb_url": f"{orthanc.url}/system"})
    with pytest.raises(CountError, match="pacs"):
        counter_at(wrong, calling_ae_title="TRIAGE").count("1.2.3")


def test_series_that_are_not_all_counted_leave_the_study_count() -> None:
    assert Count.of(5, [("1", 3), ("2", None)]) == Count(5, {})
    assert Count.of(None, [("1", 3), ("2", 2)]) == Count(5, {"1": 3, "2": 2})


def test_count_at_must_name_a_remote(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    with pytest.raises(ReceiverError, match="count_at names 'nobody'"):
        start_receiver(sqlite_database, count_at="nobody")
