"""Several inputs of one model, and which of the series that fit is the best."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_routing import series
from tests.store.rows import manifest
from triage.core.characteristics import of_study
from triage.core.manifest import InputSpec, ManifestError, ModelManifest, parse_manifest
from triage.core.routing import explained, select_inputs, select_series, shortened
from triage.core.scoring import score_of
from triage.core.studies import Series, Study, inputs_digest

DWI = {"modalities": ["MR"], "description_pattern": "dwi"}
ADC = {"modalities": ["MR"], "image_types": ["ADC"]}


def parsed(*inputs: dict[str, Any], **runner: Any) -> ModelManifest:
    """Return a manifest with these inputs."""
    content = manifest()
    del content["accepts"]
    content["runner"] |= runner
    return parse_manifest(content | {"inputs": list(inputs)}, source="model.yaml")


def given_input(name: str, accepts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return one of `inputs`."""
    return {"name": name, "accepts": accepts, **more}


def mr(uid: str, description: str, frame: str | None = "1.9", **headers: Any) -> Series:
    """Return an MR series."""
    return series(
        uid, modality="MR", SeriesDescription=description, FrameOfReferenceUID=frame, **headers
    )


def adc(uid: str = "1.2", **headers: Any) -> Series:
    """Return an ADC map, which is derived."""
    return mr(uid, "ADC", ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"], **headers)


def chosen(study: Study, wanted: ModelManifest, *priors: Study) -> dict[str, str]:
    """Return the UID of the series of each input."""
    found = select_inputs(study, wanted, priors).chosen
    return {one.name: one.series.series_instance_uid for one in found}


def test_accepts_is_the_short_form_of_one_input_named_image() -> None:
    short = parse_manifest(manifest(), source="model.yaml")
    long = parsed(given_input("image", manifest()["accepts"]))
    assert short == long
    stored = short.model_dump(mode="json")
    assert "accepts" not in stored
    assert ModelManifest.model_validate(stored) == short
    assert short.accepts.modalities == ("CT",)


def test_from_survives_the_database() -> None:
    wanted = parsed(given_input("now", DWI), given_input("before", DWI, **{"from": "prior"}))
    stored = wanted.model_dump(mode="json")
    assert stored["inputs"][1]["from"] == "prior"
    assert ModelManifest.model_validate(stored) == wanted


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"accepts": None}, "add accepts, or inputs for a model that takes several series"),
        ({"inputs": [given_input("image", DWI)]}, "give either accepts or inputs, not both"),
        ({"accepts": None, "inputs": []}, "inputs: "),
        (
            {"accepts": None, "inputs": [given_input("a", DWI), given_input("a", ADC)]},
            r"inputs\.name must differ; repeated: a",
        ),
        (
            {"accepts": None, "inputs": [given_input("a", DWI, **{"from": "prior"})]},
            "the first of inputs must be from the study",
        ),
        (
            {"accepts": None, "inputs": [given_input("a", DWI, same_frame_of_reference=True)]},
            "same_frame_of_reference belongs to",
        ),
        (
            {"accepts": None, "inputs": [given_input("a", {"modalities": []})]},
            r"inputs\.0\.accepts\.modalities",
        ),
    ],
)
def test_mistakes_in_inputs(content: dict[str, Any], message: str) -> None:
    whole = {k: v for k, v in {**manifest(), **content}.items() if v is not None}
    with pytest.raises(ManifestError, match=message):
        parse_manifest(whole, source="model.yaml")


def test_only_volumes_can_be_aligned() -> None:
    with pytest.raises(ManifestError, match=r"inputs\.align is for volumes"):
        parsed(
            given_input("pa", DWI),
            given_input("lateral", DWI, align="first"),
            input={"kind": "image", "size": 64},
        )


def test_dwi_goes_with_its_adc_map() -> None:
    study = Study("1", (adc(), mr("1.1", "DWI b1000"), mr("1.3", "T2 tse")))
    wanted = parsed(given_input("dwi", DWI), given_input("adc", ADC))
    assert chosen(study, wanted) == {"dwi": "1.1", "adc": "1.2"}


def test_the_missing_input_is_named_and_an_optional_one_is_not_missed() -> None:
    study = Study("1", (mr("1.1", "DWI"),))
    needed = select_inputs(study, parsed(given_input("dwi", DWI), given_input("adc", ADC)))
    assert needed.chosen == ()
    assert needed.refusal == "input adc: every series of the study is another input already"
    free = parsed(given_input("dwi", DWI), given_input("adc", ADC, optional=True))
    assert chosen(study, free) == {"dwi": "1.1"}


def test_another_frame_of_reference_is_refused() -> None:
    wanted = parsed(given_input("dwi", DWI), given_input("adc", ADC, same_frame_of_reference=True))
    other = select_inputs(Study("1", (mr("1.1", "DWI"), adc(frame="1.8"))), wanted)
    assert other.refusal == "input adc: series ADC: another frame of reference than the first input"
    unstated = select_inputs(Study("1", (mr("1.1", "DWI"), adc(frame=None))), wanted)
    assert "frame of reference not stated" in unstated.refusal


def test_prior_is_of_the_most_relevant_study_that_has_a_fitting_series() -> None:
    wanted = parsed(given_input("now", DWI), given_input("before", DWI, **{"from": "prior"}))
    study = Study("9", (mr("9.1", "DWI"),))
    priors = (Study("8", (mr("8.1", "T2"),)), Study("7", (mr("7.1", "DWI"),)))
    assert chosen(study, wanted, *priors) == {"now": "9.1", "before": "7.1"}
    assert select_inputs(study, wanted).refusal == "input before: no prior found"
    unfit = select_inputs(study, wanted, priors[:1]).refusal
    assert unfit.startswith("input before: no prior found that fits; series T2: ")
    waiting = select_inputs(study, wanted, may_get_priors=True)
    assert (waiting.refusal, waiting.waits_for_prior) == ("", True)


def test_two_views_may_be_of_one_series() -> None:
    pa = {"modalities": ["DX"], "view_positions": ["PA"]}
    lateral = {"modalities": ["DX"], "view_positions": ["LL"], "must_state": ["view_positions"]}
    wanted = parsed(given_input("pa", pa), given_input("lateral", lateral))
    both = series("1.1", 2, "DX")
    for image, view in zip(both.instances, ("PA", "LL"), strict=True):
        image.headers["ViewPosition"] = view
    assert chosen(Study("1", (both,)), wanted) == {"pa": "1.1", "lateral": "1.1"}


def test_score_and_its_reasons() -> None:
    spec = InputSpec.model_validate(
        {
            "modalities": ["CT"],
            "body_parts": ["HEAD"],
            "prefer_thin_slices": True,
            "prefer": [
                {"when": "series.description.contains('thin')", "score": 7},
                {"when": "series.contrast", "score": 100},
            ],
        }
    )
    one = series(ConvolutionKernel="H30s", SeriesDescription="thin", SliceThickness=2.0)
    study = Study("1", (one,))
    assert score_of(of_study(study, one), spec, study).in_words() == (
        "score 50 (original +20, body part stated +10, soft kernel +5, slices of 2 mm +8, "
        "series.description.contains('thin') +7)"
    )


@pytest.mark.parametrize(
    ("better", "worse", "accepts"),
    [
        ({"ConvolutionKernel": "B30s"}, {"ConvolutionKernel": "B70s"}, {}),
        ({"SliceThickness": 1.0}, {"SliceThickness": 5.0}, {"prefer_thin_slices": True}),
        ({}, {"ImageType": ["X", "PRIMARY"]}, {}),
        (
            {"SeriesDescription": "brain"},
            {"SeriesDescription": "other"},
            {"prefer": [{"when": "series.description == 'brain'", "score": 1}]},
        ),
    ],
)
def test_the_better_series_is_chosen_though_it_has_fewer_images(
    better: dict[str, Any], worse: dict[str, Any], accepts: dict[str, Any]
) -> None:
    spec = InputSpec.model_validate({"modalities": ["CT"], **accepts})
    study = Study("1", (series("1.1", 30, **worse), series("1.2", 20, **better)))
    found = select_series(study, spec)
    assert found.series is not None
    assert found.series.series_instance_uid == "1.2"


kinds = st.fixed_dictionaries(
    {},
    optional={
        "ConvolutionKernel": st.sampled_from(["B30s", "B70s", "?"]),
        "SliceThickness": st.sampled_from([1.0, 2.0, 5.0]),
        "SeriesDescription": st.sampled_from(["head", "scout", "bone"]),
    },
)


@given(st.lists(st.tuples(kinds, st.integers(1, 4)), min_size=1, max_size=4), st.randoms())
def test_choice_and_score_do_not_depend_on_the_order_of_arrival(
    content: list[tuple[dict[str, Any], int]], random: Any
) -> None:
    spec = InputSpec(modalities=("CT",), prefer_thin_slices=True)
    all_series = [series(f"1.{n}", images, **h) for n, (h, images) in enumerate(content)]
    first = select_series(Study("1", tuple(all_series)), spec)
    random.shuffle(all_series)
    again = select_series(Study("1", tuple(all_series)), spec)
    assert (first.series, first.why) == (again.series, again.why)
    assert sorted(first.reasons) == sorted(again.reasons)


def test_explanation_names_every_series_with_its_score_or_refusal() -> None:
    study = Study("1", (mr("1.1", "DWI"), mr("1.3", "DWI again", ImageType=None)))
    wanted = parsed(given_input("dwi", DWI), given_input("before", DWI, **{"from": "prior"}))
    assert explained(study, wanted) == (
        "input dwi, from the study:",
        "  accepted series DWI: score 20 (original +20)",
        "  accepted series DWI again: score 0",
        "input before, from the prior:",
        "  no prior found",
        "not analysed: input before: no prior found",
    )
    assert "  chosen   series DWI: score 20 (original +20)" in explained(
        study, wanted, (Study("0", (mr("0.1", "DWI"),)),)
    )


def test_refusals_of_a_broken_study_are_bounded() -> None:
    said = shortened([f"series {n}: {'x' * 500}" for n in range(5000)])
    assert len(said) < 2500
    assert said.endswith("and 4994 more")


def test_digest_of_one_input_is_that_of_its_series_and_roles_count() -> None:
    one, other = series("1.1"), series("1.2", 3)
    assert inputs_digest([("image", one)]) == one.digest()
    assert inputs_digest([("a", one), ("b", other)]) != inputs_digest([("a", other), ("b", one)])
