"""Nothing that says who the patient is leaves, and what leaves is valid."""

from __future__ import annotations

import copy
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, keyword_dict
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EncapsulatedPDFStorage, ExplicitVRLittleEndian

from tests.results.scenes import (
    build,
    by_position,
    chest_analysis,
    chest_manifest,
    head_analysis,
    head_manifest,
    run_tool,
    write_chest,
)
from triage.deidentification.profile import Method, deidentify
from triage.deidentification.pseudonyms import DeidentificationError, Pseudonyms
from triage.deidentification.table import action_for
from triage.settings import Retained

PSEUDONYMS = Pseudonyms(b"k" * 32, "research")
ALL: frozenset[Retained] = frozenset(
    {"uids", "modified-dates", "patient-characteristics", "descriptors"}
)


def cleaned(dataset: Dataset, *retain: Retained, is_own: bool = False) -> Dataset:
    """Return a copy of `dataset` as it leaves."""
    dataset = copy.deepcopy(dataset)
    deidentify(dataset, Method(PSEUDONYMS, frozenset(retain), is_own=is_own))
    return dataset


def encoded(dataset: Dataset) -> bytes:
    """Return the bytes that leave, file header included."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


_KEPT_UIDS = ("SOPClassUID", "TransferSyntaxUID", "CodingSchemeUID", "ContextUID")
_KEPT_UIDS += ("MappingResourceUID", "ImplementationClassUID")
_BY_VR = {"PN": "name", "UI": "uid", "DA": "date", "DT": "date", "LO": "id", "SH": "id"}
_BY_VR |= dict.fromkeys(("LT", "ST", "UT", "UC"), "sentence")
_KEYWORDS = sorted(
    keyword
    for keyword, tag in keyword_dict.items()
    if dictionary_VR(tag) in _BY_VR
    and not keyword.endswith(_KEPT_UIDS)
    and tag >> 16 not in (0x0000, 0x0002, 0x0004, 0xFFFC)
    and keyword not in ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")
)
_SEQUENCES = sorted(k for k, tag in keyword_dict.items() if dictionary_VR(tag) == "SQ")
_WORD = st.from_regex(r"[A-Z][a-z]{6,9}", fullmatch=True)
_NUMBER = st.from_regex(r"[0-9]{7,9}", fullmatch=True)
_DATE = st.from_regex(r"19[3-9][0-9]0[1-9]1[0-9]", fullmatch=True)
_UID = st.from_regex(r"1\.3\.6\.1\.4\.1\.9[0-9]{8}\.[1-9][0-9]{8}", fullmatch=True)


def _filled(identity: dict[str, str], keywords: list[str]) -> Dataset:
    dataset = Dataset()
    values = {
        "name": f"{identity['family']}^{identity['given']}",
        "uid": identity["uid"],
        "date": identity["date"],
        "id": identity["number"],
        "sentence": f"Seen: {identity['given']} {identity['family']}, no. {identity['number']}.",
    }
    for keyword in keywords:
        setattr(dataset, keyword, values[_BY_VR[dictionary_VR(keyword_dict[keyword])]])
    return dataset


@settings(deadline=None, max_examples=60)
@given(
    identity=st.fixed_dictionaries(
        {"family": _WORD, "given": _WORD, "number": _NUMBER, "date": _DATE, "uid": _UID}
    ),
    top=st.lists(st.sampled_from(_KEYWORDS), max_size=12, unique=True),
    nested=st.lists(
        st.tuples(
            st.sampled_from(_SEQUENCES),
            st.lists(st.sampled_from(_KEYWORDS), max_size=5, unique=True),
        ),
        max_size=4,
    ),
    is_own=st.booleans(),
)
def test_nothing_that_identifies_is_in_the_bytes(
    identity: dict[str, str],
    top: list[str],
    nested: list[tuple[str, list[str]]],
    is_own: bool,
) -> None:
    dataset = _filled(identity, ["PatientName", "PatientID", "AccessionNumber", "StudyDate", *top])
    dataset.PatientBirthDate = identity["date"]
    dataset.StudyInstanceUID = dataset.SOPInstanceUID = identity["uid"]
    dataset.SOPClassUID = CTImageStorage
    outer = dataset
    for sequence, keywords in nested:  # each deeper than the one before
        inner = _filled(identity, keywords)
        setattr(outer, sequence, Sequence([inner]))
        outer = inner
    block = dataset.private_block(0x0009, "MAKER", create=True)
    block.add_new(0x01, "LO", identity["family"])
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.SourceApplicationEntityTitle = identity["family"].upper()
    dataset.preamble = identity["family"].ljust(128).encode()
    content = encoded(cleaned(dataset, is_own=is_own)).lower()
    for what, value in identity.items():
        assert value.lower().encode() not in content, what


@pytest.mark.parametrize("issuer", ["", "NORTH"])
@pytest.mark.parametrize("patient_id", ["", "P-17"])
def test_objects_of_one_patient_still_belong_together(
    tmp_path: Path, patient_id: str, issuer: str
) -> None:
    file = write_chest(tmp_path, PatientID=patient_id, IssuerOfPatientID=issuer or None)
    source = cleaned(pydicom.dcmread(file))
    report = cleaned(build(chest_analysis(file), chest_manifest())[0].dataset, is_own=True)
    assert source.PatientID == report.PatientID != "P-17"
    assert source.PatientID.startswith("ANON-")
    assert "IssuerOfPatientID" not in source
    assert source.StudyInstanceUID == report.StudyInstanceUID
    [evidence] = report.CurrentRequestedProcedureEvidenceSequence
    assert evidence.StudyInstanceUID == source.StudyInstanceUID
    assert evidence.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    referenced = evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert referenced.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert source.SOPInstanceUID == source.file_meta.MediaStorageSOPInstanceUID


def test_what_was_done_is_stated(tmp_path: Path) -> None:
    source = cleaned(pydicom.dcmread(write_chest(tmp_path)))
    assert source.PatientIdentityRemoved == "YES"
    assert [i.CodeValue for i in source.DeidentificationMethodCodeSequence] == ["113100"]
    assert source.LongitudinalTemporalInformationModified == "REMOVED"
    report = build(chest_analysis(write_chest(tmp_path)), chest_manifest())[0].dataset
    stated = cleaned(report, *ALL, is_own=True)
    assert [i.CodeValue for i in stated.DeidentificationMethodCodeSequence] == [
        "113100",
        "113104",
        "113105",
        "113107",
        "113108",
        "113110",
    ]
    assert stated.LongitudinalTemporalInformationModified == "MODIFIED"


def test_dates_of_a_patient_keep_their_distance_if_asked(tmp_path: Path) -> None:
    first = cleaned(pydicom.dcmread(write_chest(tmp_path, StudyDate="20260301")), "modified-dates")
    second = cleaned(pydicom.dcmread(write_chest(tmp_path, StudyDate="20260308")), "modified-dates")
    dates = [pydicom.valuerep.DA(each.StudyDate) for each in (first, second)]
    assert (dates[1] - dates[0]).days == 7
    assert first.StudyDate < "20250302"
    assert first.PatientBirthDate == ""
    other = pydicom.dcmread(write_chest(tmp_path, PatientID="P-18", StudyDate="20260301"))
    assert cleaned(other, "modified-dates").StudyDate != first.StudyDate


@pytest.mark.parametrize(("age", "kept"), [("045Y", "045Y"), ("089Y", "089Y"), ("097Y", "090Y")])
def test_characteristics_are_kept_if_asked(tmp_path: Path, age: str, kept: str) -> None:
    source = pydicom.dcmread(write_chest(tmp_path, PatientAge=age, PatientWeight=80))
    assert "PatientAge" not in cleaned(source)
    assert cleaned(source).PatientSex == ""
    retained = cleaned(source, "patient-characteristics")
    assert (retained.PatientAge, retained.PatientSex, retained.PatientWeight) == (kept, "F", 80)
    assert retained.PatientBirthDate == ""


def test_uids_are_kept_if_asked(tmp_path: Path) -> None:
    source = pydicom.dcmread(write_chest(tmp_path))
    assert cleaned(source, "uids").StudyInstanceUID == source.StudyInstanceUID


def test_series_descriptions_of_ours_are_kept_if_asked(tmp_path: Path) -> None:
    report = build(chest_analysis(write_chest(tmp_path)), chest_manifest())[0].dataset
    kept = cleaned(report, "descriptors", is_own=True)
    assert kept.SeriesDescription == report.SeriesDescription
    assert "StudyDescription" not in kept
    assert "SeriesDescription" not in cleaned(report, is_own=True)
    assert "SeriesDescription" not in cleaned(report, "descriptors")


def test_words_in_reports_stay_if_they_are_ours_and_name_nobody(tmp_path: Path) -> None:
    file = write_chest(tmp_path)
    report = build(chest_analysis(file), chest_manifest())[0].dataset
    summary = report.ContentSequence[-2]
    assert cleaned(report, is_own=True).ContentSequence[-2].TextValue == summary.TextValue
    assert cleaned(report).ContentSequence[-2].TextValue == "REMOVED"
    summary.TextValue = "Pneumothorax of Anna Muster"
    assert cleaned(report, is_own=True).ContentSequence[-2].TextValue == "REMOVED"
    # The name of the algorithm stays, whoever wrote it.
    assert "chest-xray 2.1.0" in str(cleaned(report))


def test_persons_in_reports_are_nobody(tmp_path: Path) -> None:
    report = build(chest_analysis(write_chest(tmp_path)), chest_manifest())[0].dataset
    person = Dataset()
    person.RelationshipType, person.ValueType = "HAS OBS CONTEXT", "PNAME"
    person.PersonName = "Haus^Gregor"
    report = pydicom.dcmread(BytesIO(encoded(report)))
    report.ContentSequence.append(person)
    assert cleaned(report, is_own=True).ContentSequence[-1].PersonName == "REMOVED"


def test_pictures_of_text_and_documents_are_refused(tmp_path: Path) -> None:
    burnt = pydicom.dcmread(write_chest(tmp_path, BurnedInAnnotation="YES"))
    with pytest.raises(DeidentificationError, match="text burnt in"):
        cleaned(burnt)
    document = pydicom.dcmread(write_chest(tmp_path, SOPClassUID=EncapsulatedPDFStorage))
    with pytest.raises(DeidentificationError, match="a document may say who"):
        cleaned(document)


@pytest.mark.parametrize("retain", [frozenset[Retained](), ALL])
def test_what_leaves_is_as_valid_as_what_came(
    tmp_path: Path, shared_data: Path, retain: frozenset[Retained]
) -> None:
    head = by_position(sorted((shared_data / "dicom" / "head-ct-ge").glob("*.dcm")))
    built = build(head_analysis(head), head_manifest())
    chest = write_chest(tmp_path / "in")
    objects: list[tuple[str, Dataset, bool]] = [
        *((each.role, each.dataset, True) for each in built if each.role != "heat-map"),
        ("dx", pydicom.dcmread(chest), False),
        ("ct", pydicom.dcmread(head[9]), False),
    ]
    for name, dataset, is_own in objects:
        files: dict[str, Any] = {}
        for state, each in {
            "before": dataset,
            "after": cleaned(dataset, *retain, is_own=is_own),
        }.items():
            files[state] = tmp_path / f"{name}-{state}.dcm"
            each.save_as(files[state], enforce_file_format=True)
        before, after = (
            set(run_tool("dciodvfy", "-new", file).errors()) for file in files.values()
        )
        assert after <= before, name


def test_the_table_is_that_of_the_standard() -> None:
    expected = {"PatientName": "Z", "PatientID": "D", "StationName": "D", "StudyDescription": "X"}
    expected |= {"FrameOfReferenceUID": "U", "ContentSequence": "C", "Rows": None}
    for keyword, letter in expected.items():
        action = action_for(pydicom.tag.Tag(keyword))
        assert (action.value if action else None) == letter, keyword
    assert action_for(pydicom.tag.Tag(0x60003000)) is action_for(pydicom.tag.Tag(0x00091001))
