"""The evaluation's figures against cases worked by hand or printed in the literature."""

import json

import numpy as np
import pytest

from triage.models.evaluation import (
    EvaluationError,
    LabelledImage,
    bootstrap_auc_interval,
    delong_auc_interval,
    evaluate_predictions,
    operating_point,
    parse_held_out,
    parse_labels,
    roc_auc,
    threshold_for_sensitivity,
    threshold_for_specificity,
)

LABELS = """image,finding_labels,patient_id,follow_up,age,sex,view_position
a.png,Effusion|Edema,1,0,61,F,PA
b.png,No Finding,2,0,60,M,PA
c.png,Cardiomegaly,3,0,60,M,AP
d.png,Effusion,4,0,60,M,AP
"""


def test_auc_counts_the_ordered_pairs() -> None:
    # Pairs (positive over negative): 0.8 beats 0.1 and 0.4, 0.35 beats 0.1 only: 3 of 4.
    assert roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == pytest.approx(0.75)


def test_auc_counts_a_tie_as_half() -> None:
    # Positive 0.5 against negatives 0.5 and 0.2: (0.5 + 1) / 2.
    assert roc_auc([1, 0, 0], [0.5, 0.5, 0.2]) == pytest.approx(0.75)


def test_auc_of_scores_that_say_nothing_is_one_half() -> None:
    assert roc_auc([1, 0, 1, 0], [0.3] * 4) == pytest.approx(0.5)


def test_auc_needs_both_kinds_of_case() -> None:
    assert roc_auc([1, 1], [0.2, 0.3]) is None
    assert bootstrap_auc_interval([0, 0], [0.2, 0.3], ["1", "2"]) is None


def test_auc_refuses_a_score_that_is_not_a_number() -> None:
    with pytest.raises(EvaluationError, match="not a number"):
        roc_auc([0, 1], [0.2, float("nan")])


def test_delong_interval_equals_the_hand_worked_case() -> None:
    # Positives 3, 1 and negatives 2, 0: AUC 3/4. Wins by positive 1, 1/2: variance 1/8; by
    # negative 1/2, 1: variance 1/8. Total (1/8)/2 + (1/8)/2 = 1/8; margin 1.9600 * 0.35355.
    interval = delong_auc_interval([1, 1, 0, 0], [3, 1, 2, 0], level=0.5)
    assert interval is not None
    # At level 0.5 the normal quantile is 0.674490.
    assert interval.low == pytest.approx(0.75 - 0.674490 * 0.353553, abs=1e-5)
    assert interval.high == pytest.approx(0.75 + 0.674490 * 0.353553, abs=1e-5)


def test_delong_and_bootstrap_agree_on_many_single_image_patients() -> None:
    generator = np.random.default_rng(3)
    truth = np.arange(400) % 4 == 0
    scores = generator.normal(size=400) + truth
    patients = [str(index) for index in range(400)]
    one = delong_auc_interval(truth, scores)
    other = bootstrap_auc_interval(truth, scores, patients)
    assert one is not None
    assert other is not None
    assert other.low == pytest.approx(one.low, abs=0.01)
    assert other.high == pytest.approx(one.high, abs=0.01)


def test_bootstrap_is_the_same_for_the_same_seed_only() -> None:
    truth, scores = [0, 1] * 20, list(np.random.default_rng(1).normal(size=40))
    patients = [str(index) for index in range(40)]
    first = bootstrap_auc_interval(truth, scores, patients, seed=5)
    assert first == bootstrap_auc_interval(truth, scores, patients, seed=5)
    assert first != bootstrap_auc_interval(truth, scores, patients, seed=6)


def test_bootstrap_draws_patients_so_copies_of_an_image_do_not_narrow_it() -> None:
    truth, scores = [0, 1] * 20, list(np.random.default_rng(1).normal(size=40))
    patients = [str(index) for index in range(40)]
    once = bootstrap_auc_interval(truth, scores, patients)
    copied = bootstrap_auc_interval(truth * 3, scores * 3, patients * 3)
    assert once is not None
    assert copied is not None
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=1e-9)


def test_a_score_at_the_threshold_is_called_positive() -> None:
    point = operating_point([1, 1, 0, 0, 0], [0.5, 0.4, 0.5, 0.1, 0.2], 0.5)
    assert (point.true_positives, point.false_negatives) == (1, 1)
    assert (point.false_positives, point.true_negatives) == (1, 2)
    assert point.sensitivity == pytest.approx(1 / 2)
    assert point.specificity == pytest.approx(2 / 3)


def test_a_rate_without_cases_is_none() -> None:
    point = operating_point([0, 0], [0.1, 0.9], 0.5)
    assert point.sensitivity is None
    assert point.sensitivity_interval() is None


def test_threshold_finds_at_least_the_wanted_share() -> None:
    truth, scores = [1] * 5 + [0] * 2, [0.9, 0.8, 0.7, 0.6, 0.1, 0.95, 0.2]
    threshold = threshold_for_sensitivity(truth, scores, 0.8)
    assert threshold == 0.6
    assert operating_point(truth, scores, threshold).sensitivity == pytest.approx(0.8)


def test_threshold_clears_at_least_the_wanted_share() -> None:
    truth, scores = [0] * 5 + [1] * 2, [0.9, 0.8, 0.7, 0.6, 0.1, 0.95, 0.75]
    threshold = threshold_for_specificity(truth, scores, 0.6)
    point = operating_point(truth, scores, threshold)
    assert 0.7 < threshold < 0.75
    assert point.specificity == pytest.approx(0.6)
    assert point.sensitivity == pytest.approx(1.0)


def test_labels_without_findings_are_empty() -> None:
    labels = parse_labels(LABELS.splitlines())
    assert labels[0] == LabelledImage("a.png", "1", frozenset({"Effusion", "Edema"}))
    assert labels[1].findings == frozenset()


def test_labels_may_have_the_names_that_the_publisher_gave_the_columns() -> None:
    lines = ["Image Index,Finding Labels,Follow-up #,Patient ID", "a.png,Edema,0,9"]
    assert parse_labels(lines) == (LabelledImage("a.png", "9", frozenset({"Edema"})),)


def test_labels_without_the_patient_are_refused() -> None:
    with pytest.raises(EvaluationError, match="patient_id"):
        parse_labels(["image,finding_labels", "a.png,Edema"])


def test_evaluation_joins_labels_and_predictions_by_image() -> None:
    scores = {"a.png": 0.9, "b.png": 0.2, "c.png": 0.3, "d.png": 0.25}
    figures = evaluate_predictions(
        parse_labels(LABELS.splitlines()),
        {image: {"urgent": score} for image, score in scores.items()},
        {"urgent": 0.3},
        {"urgent": ("Effusion", "Edema")},
        replicates=50,
    )
    # Positives 0.9 and 0.25 against 0.2 and 0.3: 3 of 4 pairs.
    assert figures["urgent.auc"] == pytest.approx(0.75)
    assert figures["urgent.positives"] == 2
    assert figures["urgent.sensitivity"] == pytest.approx(0.5)
    assert figures["urgent.specificity"] == pytest.approx(0.5)
    assert figures["images"] == 4
    json.dumps(figures, allow_nan=False)


def test_evaluation_leaves_training_patients_out_and_counts_missing_predictions() -> None:
    held_out = parse_held_out(["patient_id,part", "1,train", "2,held_out", "3,held_out"])
    figures = evaluate_predictions(
        parse_labels(LABELS.splitlines()),
        {"a.png": {"x": 0.9}, "b.png": {"x": 0.2}},
        {},
        {"x": ("Cardiomegaly",)},
        held_out=held_out,
        replicates=10,
    )
    assert figures["images"] == 1
    assert figures["images_excluded_by_split"] == 2
    assert figures["images_without_prediction"] == 1
    assert figures["x.auc"] is None


def test_evaluation_says_when_nothing_matches() -> None:
    with pytest.raises(EvaluationError, match="file names"):
        evaluate_predictions(parse_labels(LABELS.splitlines()), {}, {}, {"x": ("Edema",)})
