"""QIDO-RS: what matches, what is returned, and that nothing gets into the database by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dicomweb_client.api import DICOMwebClient
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from tests.receiver.query.test_find import archive
from tests.tools import ManualClock
from tests.web.dicomweb.conftest import ROOT, search, value
from tests.web.hospital import Hospital, segmentation
from tests.web.test_purged import analysed, purge
from triage.settings import Settings
from triage.store import query as store_query
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.web.app import create_app

HEAD, KNEE, NAMELESS = "1.2.3", "1.2.4", "1.2.5"


@pytest.fixture
def archived(database: Database, tmp_path: Path, clock: ManualClock) -> Iterator[TestClient]:
    """A client of a hospital with three studies, on both databases."""
    files = InstanceFiles(tmp_path / "archive")
    hospital = Hospital(database, files, clock)
    for image in archive():
        hospital.receive(image)
        clock.advance(60)
    app = create_app(Settings(), database, files, clock)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def studies(client: TestClient, **parameters: Any) -> set[str]:
    return {value(one, "0020000D") for one in search(client, "studies", **parameters)}


def test_attributes_match_by_the_rules_of_their_vr_on_both_databases(archived: TestClient) -> None:
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({}, {HEAD, KNEE, NAMELESS}),
        ({"PatientID": "P1"}, {HEAD}),
        ({"00100020": "P2"}, {KNEE}),
        ({"PatientName": "müller*"}, {HEAD}),
        ({"PatientName": "yamada*"}, {KNEE}),
        ({"PatientName": "山田^太郎"}, {KNEE}),
        ({"PatientID": ""}, {HEAD, KNEE, NAMELESS}),
        ({"PatientID": "*"}, {HEAD, KNEE, NAMELESS}),
        ({"PatientID": "P?"}, {HEAD, KNEE}),
        ({"AccessionNumber": "A_1"}, {HEAD}),
        ({"AccessionNumber": "A?1"}, {HEAD, KNEE}),
        ({"StudyDescription": "CT Schädel [*"}, {HEAD}),
        ({"StudyDescription": "*100%"}, {KNEE}),
        ({"StudyDate": "20260301-20260305"}, {HEAD}),
        ({"StudyDate": "-20260310"}, {HEAD, KNEE}),
        ({"StudyDate": "20260302-"}, {KNEE}),
        ({"StudyTime": "10"}, {HEAD}),
        ({"StudyInstanceUID": f"{HEAD},{KNEE}"}, {HEAD, KNEE}),
        ({"StudyInstanceUID": [HEAD, KNEE]}, {HEAD, KNEE}),
        ({"StudyInstanceUID": f"{HEAD}\\{KNEE}"}, {HEAD, KNEE}),
        ({"ModalitiesInStudy": "SR"}, {HEAD}),
        ({"ModalitiesInStudy": "SR,MR"}, {HEAD, KNEE}),
        ({"SOPClassesInStudy": "1.2.840.10008.5.1.4.1.1.4"}, {KNEE}),
        ({"StudyID": "S1"}, {HEAD}),
        ({"PatientID": "P1", "StudyDate": "20260310"}, set()),
    ]
    for parameters, expected in cases:
        assert studies(archived, **parameters) == expected, parameters


def test_lower_levels_are_searched_below_a_study_and_across_all(archived: TestClient) -> None:
    def found(path: str, tag: str, **parameters: Any) -> list[str]:
        return sorted(value(one, tag) for one in search(archived, path, **parameters))

    assert found(f"studies/{HEAD}/series", "0020000E") == ["1.2.3.1", "1.2.3.2"]
    assert found("series", "0020000E", Modality="SR") == ["1.2.3.2"]
    assert found("series", "0020000E", PatientID="P2") == ["1.2.4.1"]
    assert found("series", "0020000E", ModalitiesInStudy="SR") == ["1.2.3.1", "1.2.3.2"]
    assert found("series", "0020000E", StationName="CT_2", SeriesNumber="2") == ["1.2.3.1"]
    assert found(f"studies/{HEAD}/instances", "00080018") == ["1.2.3.1.1", "1.2.3.1.2", "1.2.3.2.1"]
    assert found(f"studies/{HEAD}/series/1.2.3.1/instances", "00080018", InstanceNumber="2") == [
        "1.2.3.1.2"
    ]
    assert found("instances", "00080018", SOPClassUID="1.2.840.10008.5.1.4.1.1.4") == ["1.2.4.1.1"]
    assert found("instances", "00080018", ModalitiesInStudy="MR") == ["1.2.4.1.1"]
    assert found(f"studies/{HEAD}/series", "0020000E", StudyInstanceUID=HEAD) != []
    assert found(f"studies/{KNEE}/series/1.2.3.1/instances", "00080018") == []


def test_result_has_what_the_standard_requires(archived: TestClient) -> None:
    [study] = search(archived, "studies", PatientID="P1")
    required = {"00080020", "00080030", "00080050", "00080056", "00080061", "00080090", "00081190"}
    required |= {"00100010", "00100020", "00100030", "00100040", "0020000D", "00200010"}
    required |= {"00201206", "00201208"}
    assert required <= set(study)
    assert study["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Müller^Anna"}]}
    assert value(study, "00081190") == f"http://127.0.0.1{ROOT}/studies/{HEAD}"
    assert sorted(study["00080061"]["Value"]) == ["CT", "SR"]
    assert (value(study, "00201206"), value(study, "00201208")) == (2, 3)
    assert value(study, "00080005") == "ISO_IR 192"
    assert "00080052" not in study  # no level: that is C-FIND's
    [knee] = search(archived, "studies", PatientID="P2")
    assert knee["00100010"]["Value"] == [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}]
    [series, _] = search(archived, f"studies/{HEAD}/series")
    assert {"00080060", "0008103E", "00081190", "0020000E", "00200011", "00201209"} <= set(series)
    assert "00100010" not in series
    [series] = search(archived, "series", PatientID="P2")
    assert "00100010" in series
    [instance] = search(archived, "instances", PatientID="P2")
    required = {"00080016", "00080018", "00081190", "00200013", "00280010", "00280011", "00280100"}
    assert required <= set(instance)
    url = f"http://127.0.0.1{ROOT}/studies/1.2.4/series/1.2.4.1/instances/1.2.4.1.1"
    assert value(instance, "00081190") == url


def test_fields_are_included_by_keyword_tag_and_all(archived: TestClient) -> None:
    for fields in ("InstitutionName", "00080080", "StudyID,00080080", "all"):
        [study] = search(archived, "studies", PatientID="P1", includefield=fields)
        assert value(study, "00080080") == "Hospital", fields
    many = {"includefield": ["InstitutionName", "PatientAge"]}
    assert {"00080080", "00101010"} <= set(search(archived, "studies", **many)[0])
    everything = search(archived, "instances", includefield="all")
    assert all({"00280010", "00280030", "00200032"} <= set(one) for one in everything)
    # Of a sequence, or of what is not kept, there is nothing to give.
    assert search(archived, "studies", includefield="00081140.00081155,0040A730,00091001")


def test_pages_are_cut_with_limit_and_offset_and_more_is_said(archived: TestClient) -> None:
    newest_first = [value(one, "0020000D") for one in search(archived, "studies")]
    assert newest_first == [NAMELESS, KNEE, HEAD]
    pages = [archived.get(f"{ROOT}/studies", params={"limit": 1, "offset": at}) for at in range(4)]
    assert [[value(one, "0020000D") for one in page.json()] for page in pages] == [
        [NAMELESS],
        [KNEE],
        [HEAD],
        [],
    ]
    assert ["warning" in page.headers for page in pages] == [True, True, False, False]
    assert pages[0].headers["warning"].startswith(f"299 http://127.0.0.1{ROOT} ")
    assert "offset=1" in pages[0].headers["warning"]


def test_more_results_than_a_page_of_the_index_are_each_given_once(
    client: TestClient, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_query, "PAGE_SIZE", 2)
    images = hospital.head_ct(slices=7, rows=4)
    hospital.receive(*images)
    path = f"studies/{images[0].StudyInstanceUID}/instances"
    found = [value(one, "00080018") for one in search(client, path)]
    assert found == [image.SOPInstanceUID for image in images]
    assert [value(one, "00080018") for one in search(client, path, offset=3)] == found[3:]


def test_what_is_not_supported_is_said_without_its_value(archived: TestClient) -> None:
    parameters = {"fuzzymatching": "true", "ReferringPhysicianName": "Secret^Name"}
    answer = archived.get(f"{ROOT}/studies", params=parameters)
    assert len(answer.json()) == 3
    said = answer.headers.get_list("warning")
    assert any("fuzzymatching" in one for one in said)
    assert any("ReferringPhysicianName" in one for one in said)
    assert not any("Secret" in one for one in said)
    assert "warning" not in archived.get(f"{ROOT}/studies?fuzzymatching=false").headers


def test_malformed_search_is_refused_with_the_name_of_the_parameter(
    archived: TestClient,
) -> None:
    for parameter, named in (
        ("StudyDate=yesterday", "StudyDate"),
        ("StudyTime=noon", "StudyTime"),
        ("limit=-1", "limit"),
        ("offset=x", "offset"),
        ("fuzzymatching=perhaps", "fuzzymatching"),
        ("NoSuchThing=1", "parameter"),
        ("includefield=NoSuchThing", "parameter"),
        ("00280010=x&PatientID=%00", "PatientID"),
        ("StudyInstanceUID=" + ",".join(["1.2"] * 1500), "StudyInstanceUID"),
        ("PatientName=" + "x" * 2000, "PatientName"),
    ):
        answer = archived.get(f"{ROOT}/studies?{parameter}")
        assert answer.status_code == 400, parameter
        assert named in answer.json()["detail"]
    assert archived.get(f"{ROOT}/instances?Rows=many").status_code == 400
    assert archived.get(f"{ROOT}/studies/1.2.x/series").status_code == 400
    other = archived.get(f"{ROOT}/studies/{HEAD}/series?StudyInstanceUID={KNEE}")
    assert other.status_code == 400
    assert archived.get(f"{ROOT}/studies", headers={"Accept": "text/html"}).status_code == 406


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_HOSTILE = st.sampled_from(
    ["'", "' OR '1'='1", "%", "_", "\\", "[a-z]", '"; DROP TABLE studies; --', "*'*", "?%", "\x00"]
)
_NAMES = st.sampled_from(
    ["PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "StudyTime", "Modality"]
) | st.sampled_from(
    ["00080050", "ModalitiesInStudy", "StationName", "limit", "includefield", "Rows", "' OR 1=1--"]
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    path=st.sampled_from(["studies", "series", "instances", f"studies/{HEAD}/instances"]),
    parameters=st.lists(st.tuples(_NAMES, _TEXT | _HOSTILE), max_size=4),
)
def test_no_parameter_gets_into_a_statement(
    archived: TestClient, path: str, parameters: list[tuple[str, str]]
) -> None:
    answer = archived.get(f"{ROOT}/{path}", params=parameters)
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        for name, said in parameters:
            # A quote or a percent sign is in no value that is held but one, and so matches nothing.
            is_matched = name in ("PatientID", "Modality", "00080050") and path == "instances"
            if is_matched and set(said) & set("'\"%;") and not set(said) & set("*?"):
                assert answer.json() == []
    assert len(search(archived, "studies")) == 3


def test_outside_client_finds_what_is_held(outside: DICOMwebClient, head: list[Dataset]) -> None:
    uid = head[0].StudyInstanceUID
    [study] = outside.search_for_studies(search_filters={"PatientID": head[0].PatientID})
    assert value(study, "0020000D") == uid
    [series] = outside.search_for_series(uid, fields=["StationName"])
    assert value(series, "00201209") == len(head)
    assert len(outside.search_for_instances(uid, get_remaining=True, limit=3)) == len(head)


def test_conflicting_duplicates_and_purged_images_are_not_found(
    client: TestClient, hospital: Hospital
) -> None:
    images = analysed(hospital)
    uid = images[0].StudyInstanceUID
    images[0].SeriesDescription = "Other content"
    hospital.receive(images[0])
    assert len(search(client, f"studies/{uid}/instances", Modality="CT")) == len(images)
    purge(hospital, images)
    assert [value(one, "00080060") for one in search(client, f"studies/{uid}/series")] == ["SEG"]
    assert search(client, f"studies/{uid}/instances", Modality="CT") == []


def test_result_of_a_model_is_found_beside_the_images(
    client: TestClient, hospital: Hospital, head: list[Dataset]
) -> None:
    import numpy as np

    mask = np.zeros((len(head), 64, 64), np.uint8)
    mask[1, 20:30, 20:30] = 1
    hospital.receive(segmentation(head, mask))
    [found] = search(client, f"studies/{head[0].StudyInstanceUID}/series", Modality="SEG")
    assert value(found, "00201209") == 1
