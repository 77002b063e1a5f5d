"""The SR: what was found, what was not, by whom, and what it may be used for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.sr.utils import find_content_items
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as PydicomCode
from pydicom.uid import ComprehensiveSRStorage

from tests.results.scenes import (
    FRACTURE,
    HEMORRHAGE,
    NOTICE,
    build,
    chest_analysis,
    chest_manifest,
    finding,
    head_analysis,
    head_manifest,
    run_tool,
    save,
    study_uid_of,
    write_chest,
)
from triage.core.analysis import Analysis
from triage.core.codes import MILLILITRE, VOLUME, Code
from triage.core.findings import Box
from triage.results import report
from triage.results.build import BuiltObject
from triage.results.context import ARTIFICIAL_INTELLIGENCE


@pytest.fixture(scope="module")
def saved(
    head_results: tuple[BuiltObject, ...], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    return save(head_results, tmp_path_factory.mktemp("results"))


def _tree(file: Path) -> str:
    said = run_tool("dsrdump", "+Pl", file)
    assert said.errors() == []
    return "\n".join(said.lines)


def test_dciodvfy_finds_no_error_in_any_object(saved: dict[str, Path]) -> None:
    for file in saved.values():
        assert run_tool("dciodvfy", "-new", file).errors() == []


def test_dciodvfy_knows_no_label_maps_but_finds_no_other_error(
    head: Analysis, tmp_path: Path
) -> None:
    saved = save(build(head, head_manifest(), segmentation_type="LABELMAP"), tmp_path)
    errors = run_tool("dciodvfy", "-new", saved["sr"]).errors()
    assert all("SOP Class that is not segmentation" in error for error in errors)


def test_dcentvfy_finds_study_and_patient_consistent(
    saved: dict[str, Path], head_files: tuple[Path, ...]
) -> None:
    assert run_tool("dcentvfy", *saved.values(), *head_files).errors() == []


def test_dsrdump_shows_the_finding_and_the_notice(saved: dict[str, Path]) -> None:
    tree = _tree(saved["sr"])
    for expected in (
        '"Observer Type")=(121007,DCM,"Device")',
        '"Procedure reported")=(25045-6,LN,"CT unspecified body region")',
        '"Finding")=(1386000,SCT,"Intracranial hemorrhage")',
        '"Finding Site")=(12738006,SCT,"Brain")',
        '"Algorithm Name")="head-ct-hemorrhage"',
        '"Algorithm Version")="1.0.0"',
        '"Volume")="12.345" (mL,UCUM,"milliliter")',
        '"Intracranial hemorrhage")=(52101004,SCT,"Present")',
        '"Fracture of bone")=(272519000,SCT,"Absent")',
        '"Priority")=(25876001,SCT,"Emergency")',
        "Source Series for Segmentation",
        f'"Comment")="{NOTICE}"',
        "Preliminary Flag    : PRELIMINARY",
        "Completion Flag     : COMPLETE",
        "Verification Flag   : UNVERIFIED",
    ):
        assert expected in tree


def test_tid1500reader_reads_the_volume_back(saved: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "read.json"
    said = run_tool("tid1500reader", "--inputDICOM", saved["sr"], "--outputMetadata", out)
    assert said.errors() == []
    [hemorrhage, fracture] = json.loads(out.read_text())["Measurements"]
    volume = hemorrhage["measurementItems"][0]
    assert volume["quantity"]["CodeValue"] == "118565006"
    assert (float(volume["value"]), volume["units"]["CodeValue"]) == (12.345, "mL")
    segmentation = pydicom.dcmread(saved["seg"], stop_before_pixels=True)
    assert hemorrhage["segmentationSOPInstanceUID"] == segmentation.SOPInstanceUID
    tracking = segmentation.SegmentSequence[0].TrackingUID
    assert hemorrhage["TrackingUniqueIdentifier"] == tracking
    assert "Finding" not in fracture


def test_nothing_found_is_a_report_too(head_files: tuple[Path, ...], tmp_path: Path) -> None:
    saved = save(build(head_analysis(head_files, is_present=False), head_manifest()), tmp_path)
    assert run_tool("dciodvfy", "-new", saved["sr"]).errors() == []
    tree = _tree(saved["sr"])
    assert '"Intracranial hemorrhage")=(272519000,SCT,"Absent")' in tree
    assert "No intracranial hemorrhage found" in tree
    assert '"Finding")' not in tree
    assert '"Priority")' not in tree
    header = pydicom.dcmread(saved["sr"])
    assert header.SeriesDescription == "AI: nothing found (head-ct-hemorrhage 1.0.0)"


def test_a_radiograph_without_outline_is_reported_as_a_whole(tmp_path: Path) -> None:
    file = write_chest(tmp_path / "in")
    assert run_tool("dciodvfy", "-new", file).errors() == []
    saved = save(build(chest_analysis(file), chest_manifest()), tmp_path / "out")
    assert set(saved) == {"sr", "heat-map"}
    for each in saved.values():
        assert run_tool("dciodvfy", "-new", each).errors() == []
    assert run_tool("dcentvfy", file, *saved.values()).errors() == []
    tree = _tree(saved["sr"])
    assert '"Finding")=(36118008,SCT,"Pneumothorax")' in tree
    assert '"Source of Measurement")=(DX image,)' in tree
    assert '"Certainty of Finding")="97.0" (%,UCUM,"percent")' in tree


def test_each_detected_box_is_a_rectangle_on_its_image(
    head_files: tuple[Path, ...], tmp_path: Path
) -> None:
    """TID 1410 groups with SCOORDs, each with its own certainty."""
    manifest = head_manifest(
        findings=[{"key": "fracture", "code": FRACTURE.model_dump(), "box": {"label": 1}}],
        results={"objects": ["sr"]},
    )
    analysis = head_analysis(head_files)
    uids = analysis.source_sop_instance_uids
    edges = {"left": 10.5, "top": 20.0, "right": 30.25, "bottom": 44.0}
    found = finding(
        "fracture",
        FRACTURE,
        boxes=tuple(
            Box(score=score, sop_instance_uid=uid, **edges)
            for score, uid in ((0.9, uids[3]), (0.7, uids[5]))
        ),
    )
    saved = save(build(replace(analysis, findings=(found,), segmentation=None), manifest), tmp_path)
    assert run_tool("dciodvfy", "-new", saved["sr"]).errors() == []
    tree = _tree(saved["sr"])
    assert tree.count("contains SCOORD:") == 2
    assert "10.5/20,30.25/20,30.25/44,10.5/44,10.5/20" in tree
    assert '"Certainty of Finding")="90.0"' in tree
    assert '"Certainty of Finding")="70.0"' in tree
    tracking = {line for line in tree.splitlines() if "Tracking Unique Identifier" in line}
    assert len(tracking) == 2


@pytest.mark.parametrize("is_present", [True, False])
def test_a_measurement_is_reported_normal_or_not_and_without_certainty(
    head_files: tuple[Path, ...], tmp_path: Path, *, is_present: bool
) -> None:
    spec = {
        "name": "v",
        "concept": VOLUME.model_dump(),
        "unit": MILLILITRE.model_dump(),
        "present_when": {"minimum": 30},
    }
    manifest = head_manifest(
        findings=[{"key": "large", "code": HEMORRHAGE.model_dump(), "measurement": spec}],
        results={"objects": ["sr"]},
    )
    found = finding("large", HEMORRHAGE, is_present=is_present, volume_ml=31.5)
    analysis = replace(head_analysis(head_files), findings=(found,), segmentation=None)
    saved = save(build(analysis, manifest), tmp_path)
    assert run_tool("dciodvfy", "-new", saved["sr"]).errors() == []
    tree = _tree(saved["sr"])
    assert '"Volume")="31.5" (mL,UCUM,"milliliter")' in tree
    assert "Certainty of Finding" not in tree


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_an_outline_on_a_single_image_is_a_planar_region(tmp_path: Path, kind: str) -> None:
    """TID 1410 with the segment's frame of the SEG: an area on a radiograph is no volume."""
    file = write_chest(tmp_path / "in", ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    header = pydicom.dcmread(file, stop_before_pixels=True)
    mask = np.zeros((1, int(header.Rows), int(header.Columns)), dtype=np.uint8)
    mask[0, 10:20, 10:30], mask[0, 40:50, 10:30] = 3, 5
    found = (finding("hemorrhage", HEMORRHAGE), finding("fracture", FRACTURE))
    analysis = replace(chest_analysis(file), findings=found, segmentation=mask, heat_maps={})
    built = build(
        analysis, head_manifest(results={"objects": ["seg", "sr"]}), segmentation_type=kind
    )
    saved = save(built, tmp_path / "out")
    errors = run_tool("dciodvfy", "-new", saved["sr"]).errors()
    assert all("SOP Class that is not segmentation" in error for error in errors)  # a LABELMAP
    if kind == "BINARY":  # DCMTK 3.6.7 knows no LABELMAP either
        tree = "\n".join(run_tool("dsrdump", "+Pl", "+Pc", saved["sr"]).lines)
        assert tree.count("(121214,DCM,") == tree.count("(121233,DCM,") == 2
        assert "(121191,DCM," not in tree
    references = _segmentation_frames(built[1].dataset)
    assert references == ([(1, None), (2, None)] if kind == "BINARY" else [(None, 1), (None, 2)])


def _segmentation_frames(report: pydicom.Dataset) -> list[tuple[int | None, int | None]]:
    items = find_content_items(report, name=codes.DCM.ReferencedSegmentationFrame, recursive=True)
    references = [item.ReferencedSOPSequence[0] for item in items]
    return [(r.get("ReferencedFrameNumber"), r.get("ReferencedSegmentNumber")) for r in references]


def test_images_of_further_inputs_are_evidence(
    head_files: tuple[Path, ...], tmp_path: Path
) -> None:
    study = study_uid_of(head_analysis(head_files))
    second = write_chest(tmp_path / "second", StudyInstanceUID=study)
    prior = write_chest(tmp_path / "prior")
    further = {"flair": (second,), "prior": (prior,)}
    analysis = replace(head_analysis(head_files), further_files=further)
    (built,) = build(analysis, head_manifest(results={"objects": ["sr"]}))
    report = built.dataset
    uids = {name: pydicom.dcmread(f).SOPInstanceUID for name, (f,) in further.items()}
    current = _evidence(report.CurrentRequestedProcedureEvidenceSequence)
    assert {uids["flair"], *analysis.source_sop_instance_uids} == current
    assert _evidence(report.PertinentOtherEvidenceSequence) == {uids["prior"]}
    assert run_tool("dciodvfy", "-new", save((built,), tmp_path)["sr"]).errors() == []


def _evidence(sequence: Sequence[pydicom.Dataset]) -> set[str]:
    return {
        str(image.ReferencedSOPInstanceUID)
        for study in sequence
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    }


def test_an_archive_may_want_plain_comprehensive_sr(
    head_files: tuple[Path, ...], tmp_path: Path
) -> None:
    manifest = head_manifest(results={"objects": ["seg", "sr"]})
    built = build(head_analysis(head_files), manifest, report_type="comprehensive")
    report = built[1].dataset
    assert report.SOPClassUID == ComprehensiveSRStorage
    file = save(built, tmp_path)["sr"]
    assert run_tool("dciodvfy", "-new", file).errors() == []
    assert "Comprehensive SR Document" in _tree(file)


def test_a_source_without_type_2_attributes_gives_valid_results(tmp_path: Path) -> None:
    file = write_chest(
        tmp_path / "in",
        PatientSex=None,
        PatientBirthDate=None,
        StudyID=None,
        AccessionNumber=None,
        ReferringPhysicianName=None,
        StudyTime=None,
        Manufacturer=None,
        PatientIdentityRemoved="YES",
        DeidentificationMethod="",
        PatientName="ONLYONE",
    )
    saved = save(build(chest_analysis(file), chest_manifest()), tmp_path / "out")
    for each in saved.values():
        assert run_tool("dciodvfy", "-new", each).errors() == []


def test_a_notice_beyond_ascii_is_kept(tmp_path: Path) -> None:
    notice = "Vorführung zu Forschungszwecken – nicht zur klinischen Anwendung"
    file = write_chest(
        tmp_path / "in", SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg"
    )
    saved = save(build(chest_analysis(file), chest_manifest(notice=notice)), tmp_path / "out")
    dataset = pydicom.dcmread(saved["sr"])
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    assert dataset.PatientName == "Müller^Jörg"
    texts = [item.TextValue for item in dataset.ContentSequence if item.ValueType == "TEXT"]
    assert notice in texts


def test_japanese_names_survive_as_utf8(tmp_path: Path) -> None:
    name = "Yamada^Tarou=山田^太郎"
    file = write_chest(
        tmp_path / "in", SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=name
    )
    assert "山田".encode("iso2022_jp") in file.read_bytes()
    for each in save(build(chest_analysis(file), chest_manifest()), tmp_path / "out").values():
        dataset = pydicom.dcmread(each)
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
        assert dataset.PatientName == name
        assert run_tool("dciodvfy", "-new", each).errors() == []


def test_the_order_s_own_procedure_is_reported(tmp_path: Path) -> None:
    procedure = pydicom.Dataset()
    procedure.CodeValue, procedure.CodingSchemeDesignator = "RPID9998", "99LOCAL"
    procedure.CodeMeaning = "Chest, one view"
    file = write_chest(tmp_path / "in", ProcedureCodeSequence=[procedure])
    saved = save(build(chest_analysis(file), chest_manifest()), tmp_path / "out")
    assert '"Procedure reported")=(RPID9998,99LOCAL,"Chest, one view")' in _tree(saved["sr"])


def test_the_device_is_the_configured_one_or_the_same_each_time(head: Analysis) -> None:
    def device_of(**settings: str) -> str:
        built = build(head, head_manifest(results={"objects": ["sr"]}), **settings)
        return str(built[0].dataset.DeviceSerialNumber)

    assert device_of() == device_of()
    assert device_of(device_uid="1.2.840.99.1") == "1.2.840.99.1"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (report.PRESENT, codes.cid240.Present),
        (report.ABSENT, codes.cid240.Absent),
        (report.CERTAINTY_OF_FINDING, codes.cid6048.CertaintyOfFinding),
        (report.PRIORITY, codes.SCT.Priority),
        (ARTIFICIAL_INTELLIGENCE, codes.cid7162.ArtificialIntelligence),
        (VOLUME, codes.SCT.Volume),
    ],
)
def test_codes_are_those_of_the_context_groups(ours: Code, theirs: PydicomCode) -> None:
    assert PydicomCode(ours.value, ours.scheme, ours.meaning) == theirs


def test_procedures_are_those_of_context_group_100() -> None:
    known = {getattr(codes.cid100, name).value for name in codes.cid100.dir()}
    for code in (*report._PROCEDURES.values(), report._ANY_PROCEDURE):
        assert code.value in known
