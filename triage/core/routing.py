"""Which series a model gets for each of its inputs, or the reason why it gets none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from triage.core.characteristics import of_study
from triage.core.conditions import refusal_of
from triage.core.manifest import InputSpec, ModelManifest, NamedInput
from triage.core.scoring import Score, score_of
from triage.core.studies import Series, Study

NO_PRIOR = "no prior found"
_NO_SCORE = Score(0.0, ())
_LONGEST_TEXT = 2000
_LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class Verdict:
    """What routing says of one series: its score, or why it is refused."""

    series: Series
    refusal: str | None
    score: Score = _NO_SCORE

    def in_words(self) -> str:
        """Return the verdict with the name of the series."""
        said = self.refusal if self.refusal is not None else self.score.in_words()
        return f"series {name_of(self.series)}: {said}"


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen series, or None with the reasons of every series that was refused.

    `study_instance_uid` is the study of the chosen series, and `why` why it was chosen.
    """

    series: Series | None
    reasons: tuple[str, ...]
    study_instance_uid: str = ""
    why: str = ""

    @property
    def reason(self) -> str:
        """All refusals in one sentence, shortened where there are too many to be read."""
        return shortened(self.reasons)


@dataclass(frozen=True, slots=True)
class ChosenInput:
    """The series that one input of a model gets, and the study that it is of."""

    name: str
    study_instance_uid: str
    series: Series


_Chosen = tuple[NamedInput, ChosenInput]


@dataclass(frozen=True, slots=True)
class InputSelection:
    """What a model gets of a study for each of its inputs, in the order of the manifest.

    Attributes:
        chosen: those of the inputs that were found; empty where the model is not run.
        refusal: why it is not run, "" where it is.
        remarks: why each was chosen, and why others were not.
        waits_for_prior: whether a further input is a prior that may still come.
    """

    chosen: tuple[ChosenInput, ...]
    refusal: str
    remarks: tuple[str, ...]
    waits_for_prior: bool = False


def verdicts(
    study: Study, accepts: InputSpec, *, same_frame_as: Series | None = None
) -> list[Verdict]:
    """Return what is said of each series of `study`, the best first, then the refused ones.

    Of equal scores the one with the most images goes first, then the one that sorts first by UID,
    so that the choice is repeatable.
    """
    found = [_verdict(study, series, accepts, same_frame_as) for series in study.series]
    return sorted(
        found,
        key=lambda v: (
            v.refusal is not None,
            -v.score.points,
            -len(v.series.instances),
            v.series.series_instance_uid,
        ),
    )


def _verdict(
    study: Study, series: Series, accepts: InputSpec, same_frame_as: Series | None
) -> Verdict:
    refusal = refusal_of(series, accepts, study)
    if refusal is None and same_frame_as is not None:
        refusal = _refuse_frame(series, same_frame_as)
    if refusal is not None:
        return Verdict(series, refusal)
    return Verdict(series, None, score_of(of_study(study, series), accepts, study))


def _refuse_frame(series: Series, first: Series) -> str | None:
    own, wanted = (set(map(str, s.values_of("FrameOfReferenceUID"))) for s in (series, first))
    if not own or not wanted:
        return "frame of reference not stated, model wants that of its first input"
    return None if own == wanted else "another frame of reference than the first input"


def select_series(
    study: Study, accepts: InputSpec, *, same_frame_as: Series | None = None
) -> Selection:
    """Return the series of `study` that fits `accepts` best, or the reasons why none does.

    `same_frame_as` is a series whose Frame of Reference UID it must share.
    """
    said = verdicts(study, accepts, same_frame_as=same_frame_as)
    # The reasons stand in the order of the study, in which a person looks for them.
    words = {v.series.series_instance_uid: v.in_words() for v in said if v.refusal is not None}
    uids = [series.series_instance_uid for series in study.series]
    reasons = tuple(words[uid] for uid in uids if uid in words)
    if not study.series:
        reasons = ("the study has no series",)
    best = next((v for v in said if v.refusal is None), None)
    if best is None:
        return Selection(None, reasons)
    return Selection(best.series, reasons, study.study_instance_uid, best.in_words())


def select_inputs(
    study: Study,
    manifest: ModelManifest,
    priors: Sequence[Study] = (),
    *,
    may_get_priors: bool = False,
) -> InputSelection:
    """Return the series for each input of a model, or why it is not run.

    Args:
        study: the study with all that has arrived.
        manifest: the model's.
        priors: earlier studies of the patient, the most relevant first.
        may_get_priors: whether they are still being fetched; a missing one is then no refusal.
    """
    chosen: list[_Chosen] = []
    remarks: list[str] = []
    waits = False
    for wanted in manifest.inputs:
        found = _for_input(wanted, study, priors, chosen)
        prefix = f"input {wanted.name}: " if len(manifest.inputs) > 1 else ""
        if found.series is not None:
            one = ChosenInput(wanted.name, found.study_instance_uid, found.series)
            chosen.append((wanted, one))
            remarks.append(prefix + _chosen_in_words(found))
            continue
        is_pending = wanted.source == "prior" and may_get_priors
        waits |= is_pending
        if not wanted.optional and not is_pending:
            return InputSelection((), shortened([f"{prefix}{found.reason}"]), tuple(remarks))
        remarks.append(f"{prefix}{'not yet' if is_pending else 'without'}: {found.reason}")
    return InputSelection(tuple(one for _, one in chosen), "", tuple(remarks), waits)


def _for_input(
    wanted: NamedInput, study: Study, priors: Sequence[Study], chosen: Sequence[_Chosen]
) -> Selection:
    if wanted.source == "prior":
        return select_prior(wanted, priors, chosen[0][1].series)
    same = chosen[0][1].series if _is_bound(wanted) else None
    rest = replace(study, series=_left(wanted, study, chosen))
    if study.series and not rest.series:
        return Selection(None, ("every series of the study is another input already",))
    return select_series(rest, wanted.accepts, same_frame_as=same)


def _left(wanted: NamedInput, study: Study, chosen: Sequence[_Chosen]) -> tuple[Series, ...]:
    """Return the series that are no other input already.

    Inputs that name views may share one: there the images are told apart, not the series.
    """
    taken = {
        one.series.series_instance_uid
        for other, one in chosen
        if not (other.accepts.view_positions and wanted.accepts.view_positions)
    }
    return tuple(s for s in study.series if s.series_instance_uid not in taken)


def _is_bound(wanted: NamedInput) -> bool:
    return wanted.same_frame_of_reference or wanted.align is not None


def select_prior(wanted: NamedInput, priors: Sequence[Study], first: Series) -> Selection:
    """Return the series for an input that is a prior, of the most relevant one that has any.

    `first` is the series of the model's first input.
    """
    reasons: list[str] = []
    same = first if _is_bound(wanted) else None
    for prior in priors:
        found = select_series(prior, wanted.accepts, same_frame_as=same)
        if found.series is not None:
            return found
        reasons += found.reasons
    if not priors:
        return Selection(None, (NO_PRIOR,))
    return Selection(None, (f"{NO_PRIOR} that fits", *reasons))


def _chosen_in_words(found: Selection) -> str:
    refused = f"; not {shortened(found.reasons)}" if found.reasons else ""
    return f"{found.why}{refused}"


def shortened(reasons: Sequence[str]) -> str:
    """Return reasons in one sentence of bounded length; what is left out is counted.

    A study has a few series; a broken one may have thousands, and all of them are refused.
    """
    said: list[str] = []
    length = 0
    for index, reason in enumerate(reasons):
        short = reason if len(reason) <= _LONGEST_REASON else reason[: _LONGEST_REASON - 1] + "…"
        if length + len(short) > _LONGEST_TEXT and said:
            return f"{'; '.join(said)}; and {len(reasons) - index} more"
        said.append(short)
        length += len(short) + 2
    return "; ".join(said)


def name_of(series: Series) -> str:
    """Return Series Description, or the UID where there is none."""
    described = series.values_of("SeriesDescription")
    return str(described[0]) if described else series.series_instance_uid


def explained(
    study: Study, manifest: ModelManifest, priors: Sequence[Study] = ()
) -> tuple[str, ...]:
    """Return, line by line, what routing says of each series for each input, and what follows."""
    lines: list[str] = []
    selection = select_inputs(study, manifest, priors)
    chosen = {one.name: one for one in selection.chosen}
    first = selection.chosen[0].series if selection.chosen else None
    for wanted in manifest.inputs:
        lines.append(f"input {wanted.name}, from the {wanted.source}:")
        one = chosen.get(wanted.name)
        same = first if _is_bound(wanted) else None
        studies = priors if wanted.source == "prior" else (study,)
        for each in studies:
            for verdict in verdicts(each, wanted.accepts, same_frame_as=same):
                is_chosen = one is not None and (each.study_instance_uid, verdict.series) == (
                    one.study_instance_uid,
                    one.series,
                )
                lines.append(f"  {_mark(verdict, is_chosen=is_chosen)} {verdict.in_words()}")
        if not studies:
            lines.append(f"  {NO_PRIOR}")
    lines.append(f"not analysed: {selection.refusal}" if selection.refusal else "would be analysed")
    return tuple(lines)


def _mark(verdict: Verdict, *, is_chosen: bool) -> str:
    if is_chosen:
        return "chosen  "
    return "accepted" if verdict.refusal is None else "refused "
