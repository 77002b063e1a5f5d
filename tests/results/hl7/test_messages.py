"""The messages that results and changes of priority become, read by another library."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hl7
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.results.hl7.samples import (
    CORRECTION,
    PATIENT,
    PRIORITY,
    REASON,
    RESULT,
    RUN,
    STUDY,
    WITHDRAWAL,
    destination,
    validated,
)
from triage.core.notices import Notice, NoticeOrder
from triage.core.priority import Priority
from triage.hl7.characters import escape
from triage.results.hl7.messages import OutgoingMessage, message_of
from triage.settings import SettingsError, load_settings

# hl7apy takes the choice of one of six segments in ORM^O01 for six that must be there.
_CHOICE = "Missing required child ORM_O01_"


def parsed(message: OutgoingMessage) -> hl7.Message:
    return hl7.parse(message.content, encoding=message.codec)


def observations(message: OutgoingMessage) -> list[tuple[str, ...]]:
    """Return type, identifier, sub-id, value, units and status of each OBX."""
    return [
        tuple(str(obx[n]) for n in (2, 3, 4, 5, 6, 11)) for obx in parsed(message).segments("OBX")
    ]


@pytest.mark.parametrize("version", ["2.5.1", "2.3.1"])
@pytest.mark.parametrize("notice", [RESULT, CORRECTION, WITHDRAWAL], ids=lambda n: n.kind.value)
def test_a_result_fits_the_structure_of_its_version(notice: Notice, version: str) -> None:
    message = validated(message_of(notice, destination(version=version)))
    assert message.name == "ORU_R01"


def test_an_imaging_order_fits_its_structure() -> None:
    message = validated(message_of(PRIORITY, destination(messages=["omi"])))
    assert message.name == "OMI_O23"


@pytest.mark.parametrize("version", ["2.5.1", "2.3.1"])
def test_an_order_has_nothing_that_its_structure_has_not(version: str, tmp_path: Path) -> None:
    from hl7apy.parser import parse_message

    message = message_of(PRIORITY, destination(messages=["orm"], version=version))
    report = tmp_path / "report"
    with pytest.raises(Exception, match=_CHOICE):
        parse_message(message.content.decode(), find_groups=True).validate(str(report))
    errors = [line for line in report.read_text().splitlines() if line.startswith("Error")]
    assert [line for line in errors if _CHOICE not in line] == []


def test_a_result_says_what_was_found_how_sure_where_how_much_and_by_whom() -> None:
    found = observations(message_of(RESULT, destination()))
    assert found[0] == ("ST", "113014^DICOM Study^DCM", "", STUDY.study_instance_uid, "", "O")
    assert ("ST", "111001^Algorithm Name^DCM", "", "head-ct-hemorrhage", "", "P") in found
    assert ("ST", "111003^Algorithm Version^DCM", "", "1.0.0", "", "P") in found
    assert [one[1:] for one in found if one[2] == "1"] == [
        ("50960005^Hemorrhage^SCT", "1", "52101004^Present^SCT", "", "P"),
        ("111012^Certainty of Finding^DCM", "1", "97.4", "%^percent^UCUM", "P"),
        ("363698007^Finding site^SCT", "1", "12738006^Brain^SCT", "", "P"),
        ("118565006^Volume^SCT", "1", "12.3", "mL^milliliter^UCUM", "P"),
        (
            "finding-priority^Priority that the finding asks for^99TRIAGE",
            "1",
            "S^Stat^HL70485",
            "",
            "P",
        ),
    ]
    assert ("CWE", "125605004^Fracture of bone^SCT", "2", "272519000^Absent^SCT", "", "P") in found
    assert [one[3] for one in found if "Instance UID" in one[1]] == ["2.25.1", "2.25.2"]
    assert [one[3] for one in found if one[1].startswith("ai-priority-reason")] == [REASON]


def test_a_result_names_patient_order_and_what_it_may_be_used_for() -> None:
    message = parsed(message_of(RESULT, destination()))
    assert str(message.segment("PID")[3]) == "P1^^^HOSPITAL^PI"
    assert str(message.segment("PID")[5]) == "Roe^Jane^^^Dr^^L"
    assert (str(message.segment("PV1")[2]), str(message.segment("PV1")[3])) == ("E", "ED-3-B")
    obr = message.segment("OBR")
    assert [str(obr[n]) for n in (2, 3, 4, 18, 25)] == [
        "PL1",
        "FI1",
        r"CTHEAD^CT head \T\ neck^L",
        "A20260301",
        "P",
    ]
    assert str(message.segment("TQ1")[9]) == "S^Stat^HL70485"
    notes = [str(nte[3]) for nte in message.segments("NTE")]
    assert notes == ["AI result, not for primary diagnosis", f"{RUN.identity}: {RUN.notice}"]


def test_without_an_order_the_accession_number_and_the_images_say_what_there_is() -> None:
    study = replace(STUDY, order=NoticeOrder(), location="", patient_class="")
    message = parsed(message_of(replace(RESULT, study=study), destination()))
    obr = message.segment("OBR")
    assert [str(obr[n]) for n in (2, 3, 4)] == ["", "A20260301", "^CT HEAD"]
    assert str(message.segment("PV1")[2]) == "U"


@pytest.mark.parametrize(
    ("notice", "report", "status", "note"),
    [
        (CORRECTION, "C", "C", "Corrected: the patient's identity has changed"),
        (WITHDRAWAL, "C", "W", "Withdrawn by radiologist: an artefact, no blood"),
    ],
)
def test_what_is_no_longer_so_is_a_corrected_report(
    notice: Notice, report: str, status: str, note: str
) -> None:
    message = message_of(notice, destination())
    assert str(parsed(message).segment("OBR")[25]) == report
    assert {one[5] for one in observations(message)} == {status, "O"}
    assert str(parsed(message).segments("NTE")[-1][3]) == note


@pytest.mark.parametrize(
    ("priority", "code"), [(Priority.STAT, "S"), (Priority.HIGH, "A"), (Priority.ROUTINE, "R")]
)
def test_a_change_of_priority_is_an_order_that_changes(priority: Priority, code: str) -> None:
    assert PRIORITY.change
    notice = replace(PRIORITY, change=replace(PRIORITY.change, after=priority))
    orm = parsed(message_of(notice, destination()))
    assert str(orm.segment("ORC")[1]) == "XO"
    assert str(orm.segment("ORC")[7]) == str(orm.segment("OBR")[27]) == f"^^^^^{code}"
    omi = parsed(message_of(notice, destination(messages=["omi"])))
    assert str(omi.segment("TQ1")[9]).startswith(f"{code}^")
    assert str(omi.segment("IPC")[3]) == STUDY.study_instance_uid
    for message in (orm, omi):
        assert str(message.segment("NTE")[3]) == REASON
        assert REASON in str(message.segment("ORC")[16])


def test_a_repetition_has_the_control_id_of_the_first_and_another_notice_has_not() -> None:
    ids = [
        message_of(one, destination()).control_id
        for one in (RESULT, replace(RESULT, attempt=7), CORRECTION, PRIORITY)
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert {len(one) for one in ids} == {20}


def test_characters_that_the_set_has_not_become_question_marks() -> None:
    study = replace(STUDY, patient=replace(PATIENT, name="Müller^Łucja"))
    message = message_of(replace(RESULT, study=study), destination(character_set="8859/1"))
    assert b"M\xfcller^?ucja" in message.content
    assert b"|8859/1\r" in message.content


def test_enhanced_mode_asks_for_an_accept_acknowledgement() -> None:
    header = parsed(message_of(RESULT, destination(acknowledgement="accept"))).segment("MSH")
    assert (str(header[15]), str(header[16])) == ("AL", "NE")


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_a_name_holds_no_segment_is_added_or_broken(name: str, reason: str) -> None:
    patient = replace(PATIENT, name=name.encode(errors="replace").decode())
    words = reason.encode(errors="replace").decode()
    study = replace(STUDY, patient=patient, reason=words)
    message = message_of(replace(RESULT, study=study), destination())
    usual = [line[:3] for line in message_of(RESULT, destination()).segments]
    assert [line[:3] for line in message.content.decode().split("\r")[:-1]] == usual
    assert escape(words) in message.content.decode()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"messages": ["omi", "orm"]}, "omi and orm, which say the same"),
        ({"messages": ["omi"], "version": "2.3.1"}, "no OMI\\^O23 in version 2.3.1"),
        ({"messages": ["oru"], "notices": ["priority"]}, "no message of oru tells priority"),
    ],
)
def test_settings_that_contradict_each_other_are_said(
    changes: dict[str, object], said: str
) -> None:
    values = {"kind": "hl7", "name": "ris", "host": "ris", "port": 2575, **changes}
    with pytest.raises(SettingsError, match=said):
        load_settings(destinations=[values])
