"""C-FIND: what matches, what is returned, and how a query ends."""

from __future__ import annotations

import contextlib
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from tests.datasets import ct_slice
from tests.receiver.conftest import port_of, send
from tests.receiver.query.conftest import StartWith
from tests.tools import require_tool
from triage.core.query import QueryError, date_range, time_range
from triage.receiver import Receiver
from triage.store import query as store_query
from triage.store.database import Database
from triage.store.tables import InstanceRow, SeriesRow, StudyRow

STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"
PATIENT_ROOT = "1.2.840.10008.5.1.4.1.2.1.1"


def archive() -> list[Dataset]:
    """Return two CT slices and an SR of one patient, an MR of another, and a nameless one."""
    head = {
        "PatientID": "P1",
        "PatientName": "Müller^Anna",
        "SpecificCharacterSet": "ISO_IR 100",
        "StudyDate": "20260301",
        "StudyTime": "101530.5",
        "AccessionNumber": "A_1",
        "StudyDescription": "CT Schädel [nativ]",
        "StudyID": "S1",
        "InstitutionName": "Hospital",
        "SeriesNumber": 2,
        "StationName": "CT_2",
    }
    report = {
        **head,
        "SeriesInstanceUID": "1.2.3.2",
        "SOPInstanceUID": "1.2.3.2.1",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11",
        "Modality": "SR",
        "SeriesNumber": 3,
    }
    knee = {
        "PatientID": "P2",
        "PatientName": "Yamada^Tarou=山田^太郎",
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientBirthDate": "19700101",
        "StudyDate": "20260310",
        "StudyTime": "23",
        "AccessionNumber": "AB1",
        "StudyDescription": "MR knee 100%",
        "Modality": "MR",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
    }
    return [
        ct_slice("1.2.3", 1, **head),
        ct_slice("1.2.3", 2, **head),
        ct_slice("1.2.3", 3, **report),
        ct_slice("1.2.4", 1, **knee),
        ct_slice("1.2.5", 1, PatientID="", PatientName=""),
    ]


def identifier(level: str, **keys: Any) -> Dataset:
    """Return an identifier with the given keys."""
    dataset = Dataset()
    dataset.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(dataset, keyword, value)
    return dataset


def associated(receiver: Receiver, *sop_classes: str) -> Association:
    """Return an association for the given SOP classes."""
    entity = AE(ae_title="WORKSTATION")
    for uid in sop_classes:
        entity.add_requested_context(uid)
    association = entity.associate("127.0.0.1", port_of(receiver), ae_title="TRIAGE")
    assert association.is_established
    return association


def find(
    receiver: Receiver, asked: Dataset, model: str = STUDY_ROOT
) -> tuple[list[Dataset], Dataset]:
    """Return the matches and the final status of one query."""
    association = associated(receiver, model)
    responses = list(association.send_c_find(asked, model))
    association.release()
    return [match for _, match in responses[:-1] if match is not None], responses[-1][0]


def studies(receiver: Receiver, **keys: Any) -> set[str]:
    """Return the studies that match the keys."""
    character_set = {"SpecificCharacterSet": "ISO_IR 192"}
    asked = identifier("STUDY", **{"StudyInstanceUID": "", **character_set, **keys})
    matches, final = find(receiver, asked)
    assert final.Status == 0x0000
    return {match.StudyInstanceUID for match in matches}


def test_keys_match_by_the_rules_of_their_vr_on_both_databases(
    database: Database, start_with: StartWith
) -> None:
    receiver = start_with(database, *archive())
    every, head, knee, nameless = {"1.2.3", "1.2.4", "1.2.5"}, {"1.2.3"}, {"1.2.4"}, {"1.2.5"}
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({}, every),
        ({"PatientName": "*"}, every),
        ({"PatientID": "P1"}, head),
        ({"PatientID": "P?"}, head | knee),
        ({"PatientID": "p1"}, set()),
        ({"PatientName": "MüLLER^ANNA"}, head),
        ({"PatientName": "müller*"}, head),
        ({"PatientName": "Müller^Anna^^"}, head),
        ({"PatientName": "Müller"}, set()),
        ({"PatientName": "山田*"}, knee),
        ({"PatientName": "yamada^tarou"}, knee),
        ({"PatientName": "%"}, set()),
        ({"AccessionNumber": "A_1"}, head),
        ({"AccessionNumber": "A_?"}, head),
        ({"AccessionNumber": "A?1"}, head | knee),
        ({"AccessionNumber": "a*"}, set()),
        ({"StudyDescription": "*[nativ]"}, head),
        ({"StudyDescription": "*100%"}, knee),
        ({"StudyDescription": "*'; DROP TABLE studies; --"}, set()),
        ({"StudyDate": "20260301"}, head),
        ({"StudyDate": "20260301-20260310"}, head | knee),
        ({"StudyDate": "20260302-"}, knee),
        ({"StudyDate": "-20260309"}, head),
        ({"StudyTime": "1015"}, head),
        ({"StudyTime": "10-11"}, head),
        ({"StudyTime": "2259-"}, knee),
        ({"StudyTime": "2301-"}, set()),
        ({"StudyTime": "-1014"}, set()),
        ({"ModalitiesInStudy": "SR"}, head),
        ({"ModalitiesInStudy": ["SR", "MR"]}, head | knee),
        ({"ModalitiesInStudy": "C?"}, head | nameless),
        ({"SOPClassesInStudy": "1.2.840.10008.5.1.4.1.1.4"}, knee),
        ({"StudyInstanceUID": ["1.2.3", "1.2.5", "1.2.6"]}, head | nameless),
        ({"StudyID": "S*"}, head),
        ({"InstitutionName": "Hospital"}, head),
        ({"PatientID": "P1", "StudyDate": "20260310"}, set()),
    ]
    found = [studies(receiver, **keys) for keys, _ in cases]
    assert found == [wanted for _, wanted in cases]


def test_matches_carry_what_was_asked_for_at_each_level(
    database: Database, start_with: StartWith
) -> None:
    receiver = start_with(database, *archive())
    study_keys = identifier(
        "STUDY",
        SpecificCharacterSet="ISO_IR 100",
        StudyInstanceUID="1.2.3",
        PatientName="",
        StudyID="",
        StudyTime="",
        InstitutionName="",
        ReferringPhysicianName="",
        ModalitiesInStudy="",
        SOPClassesInStudy="",
        NumberOfStudyRelatedSeries="",
        NumberOfStudyRelatedInstances="",
    )
    (study,), _ = find(receiver, study_keys)
    assert study.PatientName == "Müller^Anna"
    assert study.SpecificCharacterSet == "ISO_IR 100"
    assert (study.StudyID, study.StudyTime, study.InstitutionName) == ("S1", "101530.5", "Hospital")
    assert list(study.ModalitiesInStudy) == ["CT", "SR"]
    assert len(study.SOPClassesInStudy) == 2
    assert (study.NumberOfStudyRelatedSeries, study.NumberOfStudyRelatedInstances) == (2, 3)
    assert (study.RetrieveAETitle, study.InstanceAvailability) == ("TRIAGE", "ONLINE")
    assert "ReferringPhysicianName" not in study  # an optional key that is not supported

    series_keys = identifier(
        "SERIES",
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="",
        SeriesNumber="2",
        StationName="CT_*",
        Modality="",
        NumberOfSeriesRelatedInstances="",
    )
    (series,), _ = find(receiver, series_keys)
    assert (series.Modality, series.NumberOfSeriesRelatedInstances) == ("CT", 2)

    image_keys = identifier(
        "IMAGE",
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.3.1",
        SOPInstanceUID="",
        InstanceNumber="",
        Rows=4,
        ImagePositionPatient="",
    )
    images, _ = find(receiver, image_keys)
    assert [image.InstanceNumber for image in images] == [1, 2]
    assert images[1].ImagePositionPatient == [0, 0, 10]


def test_patient_root_lists_patients_with_their_counts(
    database: Database, start_with: StartWith
) -> None:
    receiver = start_with(database, *archive())
    asked = identifier(
        "PATIENT",
        PatientID="",
        PatientName="",
        NumberOfPatientRelatedStudies="",
        NumberOfPatientRelatedInstances="",
    )
    patients, _ = find(receiver, asked, PATIENT_ROOT)
    counts = {
        str(p.PatientID): (p.NumberOfPatientRelatedStudies, p.NumberOfPatientRelatedInstances)
        for p in patients
    }
    assert counts == {"P1": (1, 3), "P2": (1, 1), "": (1, 1)}
    of_one, _ = find(
        receiver, identifier("STUDY", PatientID="P2", StudyInstanceUID=""), PATIENT_ROOT
    )
    assert [study.StudyInstanceUID for study in of_one] == ["1.2.4"]


def test_text_that_the_asked_character_set_cannot_express_comes_in_utf_8(
    sqlite_database: Database, start_with: StartWith
) -> None:
    receiver = start_with(sqlite_database, *archive())
    asked = identifier(
        "STUDY", SpecificCharacterSet="ISO_IR 100", PatientID="P2", PatientName="", StudyDate=""
    )
    (match,), _ = find(receiver, asked)
    assert match.SpecificCharacterSet == "ISO_IR 192"
    assert match.PatientName == "Yamada^Tarou=山田^太郎"


def test_results_of_triage_are_found(database: Database, start_with: StartWith) -> None:
    receiver = start_with(database, *archive())
    with database.transaction() as session:
        study = session.scalars(select(StudyRow).where(StudyRow.study_instance_uid == "1.2.4"))
        series = SeriesRow(
            study_id=study.one().id, series_instance_uid="1.2.9", modality="SEG", is_result=True
        )
        session.add(series)
        session.flush()
        session.add(
            InstanceRow(
                series_id=series.id,
                sop_instance_uid="1.2.9.1",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                path="a/b.dcm",
                size_bytes=1,
                sha256="0" * 64,
                received_at=datetime.now(UTC),
            )
        )
    asked = identifier("STUDY", StudyInstanceUID="", ModalitiesInStudy="SEG")
    (match,), _ = find(receiver, asked)
    assert (match.StudyInstanceUID, list(match.ModalitiesInStudy)) == ("1.2.4", ["MR", "SEG"])


def test_conflicting_duplicates_are_not_found(database: Database, start_with: StartWith) -> None:
    receiver = start_with(database, *archive())
    send(receiver, ct_slice("1.2.3", 1, PixelData=bytes(32)))
    asked = identifier("STUDY", StudyInstanceUID="1.2.3", NumberOfStudyRelatedInstances="")
    (match,), _ = find(receiver, asked)
    assert match.NumberOfStudyRelatedInstances == 3


@pytest.mark.parametrize(
    ("model", "asked", "comment"),
    [
        (STUDY_ROOT, Dataset(), "Level"),
        (STUDY_ROOT, identifier("ROOM", PatientID=""), "Level"),
        (STUDY_ROOT, identifier("PATIENT", PatientID=""), "PATIENT"),
        (STUDY_ROOT, identifier("SERIES", SeriesInstanceUID=""), "StudyInstanceUID"),
        (
            STUDY_ROOT,
            identifier("IMAGE", StudyInstanceUID="1.2.3", SOPInstanceUID=""),
            "SeriesInstanceUID",
        ),
        (
            STUDY_ROOT,
            identifier("SERIES", StudyInstanceUID=["1.2.3", "1.2.4"]),
            "StudyInstanceUID",
        ),
        (PATIENT_ROOT, identifier("STUDY", StudyInstanceUID=""), "PatientID"),
        (PATIENT_ROOT, identifier("STUDY", PatientID="P*"), "PatientID"),
        (STUDY_ROOT, identifier("STUDY", StudyTime="99999"), "StudyTime"),
    ],
)
def test_identifier_that_breaks_the_model_is_refused_with_a_comment(
    sqlite_database: Database, start_with: StartWith, model: str, asked: Dataset, comment: str
) -> None:
    receiver = start_with(sqlite_database, *archive())
    if not asked:
        asked.PatientID = ""
    matches, final = find(receiver, asked, model)
    assert (matches, final.Status) == ([], 0xA900)
    assert comment in final.ErrorComment


def test_index_that_is_away_is_unable_to_process(
    sqlite_database: Database, start_with: StartWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = start_with(sqlite_database, *archive())

    def away() -> None:
        raise OperationalError("SELECT", {}, Exception("connection refused"))

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_database, "reading", away)
        matches, final = find(receiver, identifier("STUDY", StudyInstanceUID=""))
    assert (matches, final.Status) == ([], 0xC000)
    assert final.ErrorComment


def test_large_answers_are_read_in_pages_and_can_be_cancelled(
    database: Database, start_with: StartWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = start_with(database, *(ct_slice("1.2.3", n + 1) for n in range(12)))
    monkeypatch.setattr(store_query, "PAGE_SIZE", 5)
    asked = identifier(
        "IMAGE", StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.1", SOPInstanceUID=""
    )
    matches, _ = find(receiver, asked)
    assert [m.SOPInstanceUID for m in matches] == [f"1.2.3.1.{n + 1}" for n in range(12)]

    pages: list[int] = []
    read_page = store_query._page

    def page_after_cancel(*arguments: Any, **named: Any) -> Any:
        pages.append(len(pages))
        if len(pages) == 2:
            association.send_c_cancel(1, None, STUDY_ROOT)
            while not any(a.dimse.cancel_req for a in receiver._ae.active_associations):
                pass
        return read_page(*arguments, **named)

    monkeypatch.setattr(store_query, "_page", page_after_cancel)
    association = associated(receiver, STUDY_ROOT)
    statuses = [status.Status for status, _ in association.send_c_find(asked, STUDY_ROOT)]
    association.release()
    assert statuses == [0xFF00] * 5 + [0xFE00]


def test_findscu_of_dcmtk_finds_the_study(sqlite_database: Database, start_with: StartWith) -> None:
    receiver = start_with(sqlite_database, *archive())
    keys = ["QueryRetrieveLevel=STUDY", "PatientName=M*", "StudyInstanceUID", "ModalitiesInStudy"]
    command = [require_tool("findscu"), "-v", "-S", "-aec", "TRIAGE"]
    for key in keys:
        command += ["-k", key]
    done = subprocess.run(
        [*command, "127.0.0.1", str(port_of(receiver))],
        check=True,
        capture_output=True,
        timeout=30,
    )
    said = (done.stdout + done.stderr).decode("latin-1")
    assert "[1.2.3\x00]" in said
    assert "CT\\SR" in said
    assert "1.2.4" not in said
    assert "1.2.5" not in said


dates = st.dates().map(lambda day: f"{day.year:04}{day.month:02}{day.day:02}")


@given(dates, dates)
def test_a_date_range_has_the_ends_that_were_written(first: str, last: str) -> None:
    both = date_range("StudyDate", f"{first}-{last}")
    assert (both.first, both.last) == (first, last)
    assert date_range("StudyDate", first) == date_range("StudyDate", f"{first}-{first}")


@given(st.text(alphabet="0123456789:-. x", max_size=20))
def test_a_time_range_has_an_end_or_is_refused_in_words(value: str) -> None:
    with contextlib.suppress(QueryError):
        wanted = time_range("StudyTime", value)
        assert wanted.first or wanted.last


@pytest.mark.parametrize("value", ["", "-", "1x", "99999", "10:3", "12-13-14"])
def test_what_is_no_time_is_refused_in_words(value: str) -> None:
    with pytest.raises(QueryError, match="StudyTime is not a time"):
        time_range("StudyTime", value)
