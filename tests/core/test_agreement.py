"""What may be concluded from feedback, and what may not."""

from __future__ import annotations

import numpy as np
import pytest

from triage.core.agreement import Judged, Judgement, Verdict, agreement_of, judgement_of

AGREE, DISAGREE, UNSURE = Verdict.AGREE, Verdict.DISAGREE, Verdict.UNSURE


def test_persons_who_disagree_evenly_leave_a_statement_undecided() -> None:
    assert judgement_of([AGREE, DISAGREE]) is Judgement.UNDECIDED
    assert judgement_of([UNSURE]) is Judgement.UNDECIDED
    assert judgement_of([DISAGREE, UNSURE]) is Judgement.WRONG


def test_feedback_on_flagged_studies_alone_says_nothing_of_sensitivity() -> None:
    judged = Judged(true_positives=40, false_positives=10)
    said = agreement_of(judged, flagged=100, not_flagged=900, minimum=10)
    assert said.positive_predictive_value is not None
    assert said.positive_predictive_value.value == 0.8
    assert said.negative_predictive_value is None
    assert said.sensitivity is None


def test_few_judged_negatives_give_no_sensitivity() -> None:
    judged = Judged(true_positives=40, false_positives=10, true_negatives=9)
    assert agreement_of(judged, flagged=100, not_flagged=900, minimum=10).sensitivity is None


def test_sensitivity_is_corrected_for_what_was_not_judged() -> None:
    # Of 100 flagged 80 are right; of 900 others 2 in 50 judged were missed, so 36 in all.
    judged = Judged(true_positives=40, false_positives=10, true_negatives=48, false_negatives=2)
    said = agreement_of(judged, flagged=100, not_flagged=900, minimum=10).sensitivity
    assert said is not None
    assert said.value == pytest.approx(80 / 116)
    assert said.value < 40 / 42  # what counting the judged ones alone would say
    assert said.interval.low < said.value < said.interval.high


def test_corrected_sensitivity_covers_the_true_one_when_flagged_studies_are_judged_oftener() -> (
    None
):
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(200):
        truth = generator.random(2000) < 0.1
        flagged = np.where(truth, generator.random(2000) < 0.8, generator.random(2000) < 0.05)
        seen = np.where(flagged, generator.random(2000) < 0.8, generator.random(2000) < 0.1)
        judged = Judged(
            true_positives=int((seen & flagged & truth).sum()),
            false_positives=int((seen & flagged & ~truth).sum()),
            true_negatives=int((seen & ~flagged & ~truth).sum()),
            false_negatives=int((seen & ~flagged & truth).sum()),
        )
        said = agreement_of(
            judged, flagged=int(flagged.sum()), not_flagged=int((~flagged).sum()), minimum=10
        ).sensitivity
        assert said is not None
        covered += said.interval.low <= 0.8 <= said.interval.high
    assert covered >= 190


def test_a_model_that_never_flags_has_no_sensitivity_to_estimate() -> None:
    judged = Judged(true_negatives=20)
    assert agreement_of(judged, flagged=0, not_flagged=500, minimum=1).sensitivity is None
