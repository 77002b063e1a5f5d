"""Which earlier studies are relevant."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from triage.core.priors import Comparable, PriorsRule, regions_in, relevant_priors

STUDY = Comparable(
    study_instance_uid="1",
    patient_id="P1",
    issuer_of_patient_id="HOSPITAL",
    birth_date="19700101",
    study_date="20260301",
    study_time="120000",
    modalities=frozenset({"CT"}),
    description="CT head without contrast",
)
RULE = PriorsRule(count=2)


def prior(uid: str, study_date: str, **changes: object) -> Comparable:
    return replace(
        STUDY,
        study_instance_uid=uid,
        study_date=study_date,
        **changes,  # type: ignore[arg-type]
    )


def chosen(*candidates: Comparable, rule: PriorsRule = RULE) -> list[str]:
    return [one.study_instance_uid for one in relevant_priors(STUDY, candidates, rule)]


def test_the_last_ones_are_taken_newest_first() -> None:
    found = [prior("a", "20240101"), prior("b", "20260101"), prior("c", "20250101")]
    assert chosen(*found) == ["b", "c"]


def test_the_study_itself_and_later_ones_are_none() -> None:
    assert chosen(STUDY, prior("b", "20260302"), prior("c", "20260301", study_time="130000")) == []


def test_earlier_the_same_day_is_a_prior() -> None:
    assert chosen(prior("a", "20260301", study_time="080000")) == ["a"]


@pytest.mark.parametrize("study_date", ["", "yesterday", "20261301"])
def test_without_a_date_nothing_can_be_said(study_date: str) -> None:
    assert chosen(prior("a", study_date)) == []


def test_too_old_is_not_relevant() -> None:
    rule = PriorsRule(maximum_age=timedelta(days=365))
    assert chosen(prior("a", "20250228"), prior("b", "20250301"), rule=rule) == ["b"]


@pytest.mark.parametrize(
    "changes",
    [
        {"patient_id": "P10"},
        {"patient_id": ""},
        {"issuer_of_patient_id": "OTHER"},
        {"birth_date": "19990909"},
    ],
)
def test_another_patient_is_never_a_prior(changes: dict[str, object]) -> None:
    assert chosen(prior("a", "20250101", **changes)) == []


def test_what_the_archive_does_not_say_of_the_patient_does_not_matter() -> None:
    assert chosen(prior("a", "20250101", issuer_of_patient_id="", birth_date="")) == ["a"]


def test_a_study_without_patient_id_has_no_priors() -> None:
    nameless = replace(STUDY, patient_id="")
    assert relevant_priors(nameless, [prior("a", "20250101", patient_id="")], RULE) == ()


def test_other_modalities_are_left_out_unless_the_rule_wants_them() -> None:
    mr = prior("a", "20250101", modalities=frozenset({"MR", "SR"}))
    assert chosen(mr) == []
    assert chosen(mr, rule=PriorsRule(modalities=frozenset({"MR", "CT"}))) == ["a"]


def test_reports_alone_do_not_make_a_modality() -> None:
    with_report = replace(STUDY, modalities=frozenset({"CT", "SR"}))
    only_report = prior("a", "20250101", modalities=frozenset({"SR"}))
    assert relevant_priors(with_report, [only_report], RULE) == ()


def test_another_part_of_the_body_is_left_out_and_an_unknown_one_goes_last() -> None:
    knee = prior("a", "20260201", description="CT knee left")
    unknown = prior("b", "20260102", description="CT routine")
    head = prior("c", "20240101", description="Schädel nativ")
    assert chosen(knee, unknown, head) == ["c", "b"]
    assert chosen(knee, unknown, head, rule=PriorsRule(same_body_part=False)) == ["c", "a"]


def test_body_parts_of_series_count() -> None:
    assert chosen(prior("a", "20250101", description="", body_parts=("CHEST",))) == []


@pytest.mark.parametrize(
    ("text", "regions"),
    [
        ("CT ABDOMEN/PELVIS", {"abdomen"}),
        ("THORAX_PA", {"chest"}),
        ("LEG", {"lower limb"}),
        ("Allegro protocol", set()),
        ("CT neck and chest", {"neck", "chest"}),
    ],
)
def test_regions_are_whole_beginnings_of_words(text: str, regions: set[str]) -> None:
    assert regions_in(text) == regions
