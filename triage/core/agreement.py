"""How far radiologists agree with a model, and what may be concluded from it.

Feedback is given where somebody took the trouble, mostly on findings that the model flagged. So:

- Of what was flagged and judged, the share that is right is known: the positive predictive value.
  It is that of all flagged studies only as far as the judged ones are like the others.
- Of what was not flagged, only what was judged is known. Counting the judged studies alone makes
  sensitivity look higher than it is, because missed findings are hardly ever among them: the
  verification bias of Begg & Greenes (Biometrics 39:207, 1983).
- Their correction weighs the judged studies by how many the model flagged and did not flag. It is
  right if what is judged, among the flagged and among the others, does not depend on the truth.
- Whether a study that nobody judged was missed is not known, and no formula makes it known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from triage.core.proportions import Interval, wilson_interval


class Verdict(StrEnum):
    """What a person says of a finding."""

    AGREE = "agree"
    DISAGREE = "disagree"
    UNSURE = "unsure"


class Judgement(StrEnum):
    """What the verdicts of all persons on one finding come to."""

    RIGHT = "right"
    WRONG = "wrong"
    UNDECIDED = "undecided"


def judgement_of(verdicts: Iterable[Verdict]) -> Judgement:
    """Return what most of those say who are sure; undecided where they are equally many.

    >>> judgement_of([Verdict.AGREE, Verdict.AGREE, Verdict.DISAGREE, Verdict.UNSURE])
    <Judgement.RIGHT: 'right'>
    """
    said = list(verdicts)
    balance = said.count(Verdict.AGREE) - said.count(Verdict.DISAGREE)
    if balance == 0:
        return Judgement.UNDECIDED
    return Judgement.RIGHT if balance > 0 else Judgement.WRONG


@dataclass(frozen=True)
class Judged:
    """How many statements of a model were judged, and how."""

    true_positives: int = 0
    false_positives: int = 0
    true_negatives: int = 0
    false_negatives: int = 0
    undecided: int = 0

    @property
    def flagged(self) -> int:
        """How many statements that there is a finding were judged right or wrong."""
        return self.true_positives + self.false_positives

    @property
    def not_flagged(self) -> int:
        """How many statements that there is none were judged right or wrong."""
        return self.true_negatives + self.false_negatives

    @property
    def decided(self) -> int:
        """How many statements were judged right or wrong."""
        return self.flagged + self.not_flagged

    @property
    def right(self) -> int:
        """How many statements were judged right."""
        return self.true_positives + self.true_negatives


@dataclass(frozen=True)
class Estimate:
    """A proportion with its 95 % interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Agreement:
    """What feedback says of one finding of a model; None is what cannot be known from it.

    `flagged` and `not_flagged` count all statements of the same time, judged or not.
    """

    judged: Judged
    flagged: int
    not_flagged: int
    agreement: Estimate | None
    positive_predictive_value: Estimate | None
    negative_predictive_value: Estimate | None
    sensitivity: Estimate | None


def agreement_of(judged: Judged, *, flagged: int, not_flagged: int, minimum: int) -> Agreement:
    """Return what is known; sensitivity only with `minimum` judged on either side.

    The interval of the corrected sensitivity takes the unfavourable ends of the intervals of both
    predictive values together, so it is cautious: wider than 95 % asks for.
    """
    right = _estimate(judged.true_positives, judged.flagged)
    clear = _estimate(judged.true_negatives, judged.not_flagged)
    sensitivity = None
    if right and clear and min(judged.flagged, judged.not_flagged) >= minimum:
        sensitivity = _corrected_sensitivity(right, clear, flagged, not_flagged)
    return Agreement(
        judged=judged,
        flagged=flagged,
        not_flagged=not_flagged,
        agreement=_estimate(judged.right, judged.decided),
        positive_predictive_value=right,
        negative_predictive_value=clear,
        sensitivity=sensitivity,
    )


def _estimate(part: int, whole: int) -> Estimate | None:
    interval = wilson_interval(part, whole)
    return Estimate(part / whole, interval) if interval else None


def _corrected_sensitivity(
    right: Estimate, clear: Estimate, flagged: int, not_flagged: int
) -> Estimate | None:
    """Begg & Greenes (1983): P(found) / (P(found) + P(missed))."""

    def sensitivity(predictive_value: float, missed_share: float) -> float:
        found, missed = flagged * predictive_value, not_flagged * missed_share
        return found / (found + missed) if found + missed else 0.0

    if not flagged or not (right.value or clear.value < 1):
        return None
    return Estimate(
        sensitivity(right.value, 1 - clear.value),
        Interval(
            sensitivity(right.interval.low, 1 - clear.interval.low),
            sensitivity(right.interval.high, 1 - clear.interval.high),
        ),
    )
