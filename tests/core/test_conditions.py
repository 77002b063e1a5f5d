"""Each condition of `accepts`: what it lets through, what it refuses, and in which words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.test_routing import series
from triage.core.characteristics import characteristics_of, kernel_kind
from triage.core.conditions import refusal_of
from triage.core.kinds import KIND_RULES, SeriesKind, kinds_of
from triage.core.manifest import InputSpec
from triage.core.studies import FRAME_POSITIONS, Patient, Study, age_in_years

CORONAL = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0]
OBLIQUE = [1.0, 0.0, 0.0, 0.0, 0.70710678, 0.70710678]
TILTED = [1.0, 0.0, 0.0, 0.0, 0.94832366, -0.31730466]


def refusal(headers: dict[str, Any], modality: str = "CT", **accepts: Any) -> str | None:
    """Return what is said of a series with these headers."""
    spec = InputSpec.model_validate({"modalities": [modality], **accepts})
    return refusal_of(series(modality=modality, **headers), spec)


@pytest.mark.parametrize(
    ("headers", "accepts", "said"),
    [
        ({}, {"orientations": ["axial"]}, None),
        ({"ImageOrientationPatient": TILTED}, {"orientations": ["axial"]}, None),
        (
            {"ImageOrientationPatient": CORONAL},
            {"orientations": ["axial"]},
            "orientation coronal, model accepts axial",
        ),
        ({"ImageOrientationPatient": OBLIQUE}, {"orientations": ["oblique"]}, None),
        ({"ImageOrientationPatient": None}, {"orientations": ["axial"]}, None),
        (
            {"ImageOrientationPatient": None},
            {"orientations": ["axial"], "must_state": ["orientations"]},
            "orientation not stated",
        ),
        (
            {"ContrastBolusAgent": "Omnipaque 300"},
            {"contrast": "without"},
            "with contrast, model accepts images without contrast",
        ),
        ({"ContrastBolusAgentSequence": True}, {"contrast": "with"}, None),
        ({"ContrastBolusAgent": "NONE"}, {"contrast": "without"}, None),
        ({}, {"contrast": "without"}, None),
        (
            {},
            {"contrast": "with"},
            "contrast not stated, model accepts images with contrast",
        ),
        ({}, {"contrast": "without", "must_state": ["contrast"]}, "contrast not stated"),
        (
            {"SeriesDescription": "Head w/o contrast", "StudyDescription": "CTA head"},
            {"contrast": "with"},
            "without contrast, model accepts images with contrast",
        ),
        ({"SeriesDescription": "portal venous"}, {"contrast": "with"}, None),
        (
            {"ConvolutionKernel": "H60s"},
            {"kernels": ["soft"]},
            "kernel bone, model accepts soft",
        ),
        ({"ConvolutionKernel": "STD+"}, {"kernels": ["soft"]}, None),
        (
            {},
            {"kernel_pattern": "^H3"},
            "kernel not stated, model accepts what matches '^H3'",
        ),
        ({"ImageLaterality": "L"}, {"lateralities": ["r"]}, "laterality L, model accepts R"),
        ({"FrameLaterality": "R"}, {"lateralities": ["R"]}, None),
        (
            {"Manufacturer": "Acme"},
            {"manufacturer_pattern": "^GE"},
            "manufacturer Acme, model accepts what matches '^GE'",
        ),
        ({}, {"model_name_pattern": "x", "must_state": ["model_name_pattern"]}, "model name not "),
        (
            {"ImageType": ["DERIVED", "PRIMARY"]},
            {"image_types": ["ADC"]},
            "image type DERIVED\\PRIMARY, model accepts ADC",
        ),
        ({"ImageType": ["DERIVED", "SECONDARY", "ADC"]}, {"image_types": ["adc"]}, None),
        (
            {"SeriesDescription": "a"},
            {"description_pattern": "b"},
            "its description does not match",
        ),
        ({}, {"when": "series.images == 20"}, None),
        ({}, {"when": "series.images > 20"}, "'series.images > 20' is not true of it"),
        (
            {},
            {"when": "patient.age_years > 18.0"},
            "'patient.age_years > 18.0' cannot be decided: age_years is not stated",
        ),
        ({"SliceThickness": None}, {"slice_thickness_mm": {"maximum": 2}}, None),
        (
            {"SliceThickness": None},
            {"must_state": ["slice_thickness_mm"]},
            "slice thickness not stated",
        ),
    ],
)
def test_conditions_on_headers(
    headers: dict[str, Any], accepts: dict[str, Any], said: str | None
) -> None:
    found = refusal(headers, **accepts)
    assert found == said or (said and found and found.startswith(said))


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"DiffusionBValue": 1000.0}, (1000.0,)),
        ({"DiffusionBValue": [0.0, 800.0]}, (0.0, 800.0)),
        ({"SequenceName": "*ep_b1000t"}, (1000.0,)),
        ({"SeriesDescription": "DWI b=800"}, (800.0,)),
        ({"SeriesDescription": "T1 abdomen 3 mm"}, ()),
    ],
)
def test_b_values_come_from_the_header_or_the_name_of_the_sequence(
    headers: dict[str, Any], found: tuple[float, ...]
) -> None:
    one = series(modality="MR", **headers)
    assert characteristics_of(one).b_values == found
    spec = InputSpec.model_validate(
        {"modalities": ["MR"], "b_values": {"minimum": 700}, "must_state": ["b_values"]}
    )
    assert (refusal_of(one, spec) is None) == bool(found)


def test_age_and_sex_of_the_patient() -> None:
    spec = InputSpec.model_validate(
        {"modalities": ["CT"], "patient_age_years": {"minimum": 18}, "patient_sexes": ["F"]}
    )
    one = series()
    study = Study("1", (one,), Patient(17.5, "F"))
    assert refusal_of(one, spec, study) == "patient of 17.5 years, model accepts at least 18 years"
    older = replace(study, patient=Patient(40.0, "M"))
    assert refusal_of(one, spec, older) == "patient's sex M, model accepts F"
    assert refusal_of(one, spec, replace(study, patient=Patient())) is None
    strict = spec.model_copy(update={"must_state": ("patient_age_years",)})
    unknown = replace(study, patient=Patient())
    assert refusal_of(one, strict, unknown) == "age of the patient not stated"


@pytest.mark.parametrize(
    ("stated", "born", "studied", "years"),
    [
        ("045Y", "", "", 45.0),
        ("006M", "19500101", "20200101", 0.5),
        ("", "20000101", "20100101", 10.0),
        ("", "1980.01.01", "19810101", 1.0),
        ("45", "", "", None),
        ("", "20200101", "20100101", None),
        ("", "", "20100101", None),
    ],
)
def test_age_is_stated_or_counted(
    stated: str, born: str, studied: str, years: float | None
) -> None:
    assert age_in_years(stated, born, studied) == (years and pytest.approx(years, abs=0.01))


def test_frames_of_a_multi_frame_image_count_as_slices() -> None:
    positions = [[0.0, 0.0, 3.0 * n] for n in range(10)]
    one = series(images=1, NumberOfFrames=10, **{FRAME_POSITIONS: positions})
    found = characteristics_of(one)
    assert (found.images, found.slice_spacing_mm) == (10, pytest.approx(3.0))


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, SeriesKind.LOCALIZER),
        ({"SeriesDescription": "Topogram 0.6 T20s"}, SeriesKind.LOCALIZER),
        ({"SeriesDescription": "Dose Report"}, SeriesKind.DOSE),
        ({"SeriesDescription": "Patient Protocol"}, SeriesKind.DOSE),
        ({"SeriesDescription": "Exam Summary"}, SeriesKind.SCREEN_SAVE),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, SeriesKind.SCREEN_SAVE),
        ({"BodyPartExamined": "PHANTOM"}, SeriesKind.PHANTOM),
        ({"QualityControlImage": "YES"}, SeriesKind.PHANTOM),
        ({"ContentQualification": "SERVICE"}, SeriesKind.CALIBRATION),
        ({"SeriesDescription": "ASSET calibration"}, SeriesKind.CALIBRATION),
        ({"StudyDescription": "Test patient"}, SeriesKind.CALIBRATION),
        ({"SeriesDescription": "COR MIP 10 mm"}, SeriesKind.PROJECTION),
        ({"SeriesDescription": "SAG MPR"}, SeriesKind.REFORMATTED),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, SeriesKind.SECONDARY),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, SeriesKind.DERIVED),
        ({"SeriesDescription": "T1 MPRAGE", "PatientName": "Phantom^Test"}, None),
        ({"StudyDescription": "Test of MIPs in protocol", "ProtocolName": "CTA MIP"}, None),
    ],
)
def test_what_is_no_examination_is_recognized(
    headers: dict[str, Any], kind: SeriesKind | None
) -> None:
    found = [rule.kind for rule in kinds_of(series(**headers))]
    assert found[:1] == ([kind] if kind else [])


def test_every_kind_has_one_rule_with_words_of_its_own() -> None:
    assert sorted(rule.kind for rule in KIND_RULES) == sorted(SeriesKind)
    assert len({rule.words for rule in KIND_RULES}) == len(KIND_RULES)


def test_a_localizer_must_be_asked_for_itself() -> None:
    scout = series(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    any_original = InputSpec(modalities=("CT",), image_types=("ORIGINAL",))
    asked = InputSpec(modalities=("CT",), image_types=("LOCALIZER",))
    assert refusal_of(scout, any_original) == "it is a localizer"
    assert refusal_of(scout, asked) is None


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("B30f", "soft"),
        ("Br64", "bone"),
        ("FC21", "soft"),
        ("FC52", "bone"),
        ("STANDARD", "soft"),
        ("BONEPLUS", "bone"),
        ("UB", "soft"),
        ("?", ""),
    ],
)
def test_kernels_of_the_manufacturers(kernel: str, kind: str) -> None:
    assert kernel_kind(kernel) == kind


junk = st.one_of(
    st.none(),
    st.text(max_size=12),
    st.integers(),
    st.floats(),
    st.lists(st.one_of(st.floats(), st.text(max_size=4), st.none()), max_size=7),
)
KEYWORDS = (
    "ImageType",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "NumberOfFrames",
    "Rows",
    "SliceThickness",
    "PixelSpacing",
    "ConvolutionKernel",
    "ContrastBolusAgent",
    "DiffusionBValue",
    "PatientAge",
    FRAME_POSITIONS,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(KEYWORDS, junk)))
def test_no_header_breaks_a_condition(headers: dict[str, Any]) -> None:
    refusal(
        headers,
        orientations=["axial"],
        contrast="without",
        kernels=["soft"],
        b_values={"minimum": 0},
        slice_spacing_mm={"maximum": 3},
        when="series.rows > 2 && series.slice_spacing_mm < 3.0",
    )


thickness = st.floats(0.1, 20)


@settings(deadline=None, max_examples=50)
@given(thickness, thickness, thickness)
def test_a_range_refuses_exactly_what_lies_outside(a: float, b: float, found: float) -> None:
    low, high = sorted((a, b))
    said = refusal({"SliceThickness": found}, slice_thickness_mm={"minimum": low, "maximum": high})
    assert (said is None) == (low <= found <= high)
