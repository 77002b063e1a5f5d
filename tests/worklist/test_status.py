"""What the worklist says of a study, for every state that it can be in."""

from __future__ import annotations

import pytest

from triage.core.runs import RunState, StudyState
from triage.worklist.status import RunFacts, StudyFacts, status_of

MODEL = "head-ct-hemorrhage 1.0.0"


def facts(*runs: RunFacts, **changes: object) -> StudyFacts:
    state = changes.pop("state", StudyState.COMPLETE)
    flagged = bool(changes.pop("is_flagged", False))
    return StudyFacts(state=state, is_flagged=flagged, runs=runs, **changes)  # type: ignore[arg-type]


def run(state: RunState, reason: str = "", present: tuple[str, ...] = ()) -> RunFacts:
    return RunFacts(1, MODEL, state, reason, present)


@pytest.mark.parametrize(
    ("study", "kind", "text"),
    [
        (facts(state=StudyState.RECEIVING), "receiving", "receiving"),
        (facts(run(RunState.PENDING)), "waiting", "waiting for analysis"),
        (facts(run(RunState.RUNNING)), "running", "being analysed"),
        (facts(run(RunState.COMPLETED)), "clear", "analysed: nothing found"),
        (facts(run(RunState.COMPLETED, present=("Nodule",))), "found", "analysed: Nodule"),
        (
            facts(run(RunState.REFUSED, "2 slices are missing")),
            "not-analysed",
            f"not analysed: 2 slices are missing ({MODEL})",
        ),
        (
            facts(run(RunState.FAILED, "the host crashed")),
            "not-analysed",
            f"not analysed: the host crashed ({MODEL})",
        ),
        (
            facts(refusals=(f"{MODEL}: modality US, model accepts CT",)),
            "not-wanted",
            f"no model wants it: {MODEL}: modality US, model accepts CT",
        ),
        (facts(), "not-wanted", "no model wants it: no model is registered"),
        (facts(run(RunState.COMPLETED), is_flagged=True), "flagged", "flagged"),
        (facts(state=StudyState.RECEIVING, is_flagged=True), "flagged", "flagged"),
    ],
)
def test_status_in_words(study: StudyFacts, kind: str, text: str) -> None:
    status = status_of(study)
    assert (status.kind, status.text) == (kind, text)


def test_a_withdrawn_result_is_said_and_hides_nothing_else() -> None:
    withdrawn = RunFacts(
        1,
        MODEL,
        RunState.COMPLETED,
        present=("Hemorrhage",),
        withdrawn="withdrawn by ada, because the result is wrong",
    )
    said = f"AI result withdrawn by ada, because the result is wrong ({MODEL})"
    status = status_of(facts(withdrawn))
    assert (status.kind, status.text, status.detail) == ("withdrawn", said, "")
    status = status_of(facts(withdrawn, run(RunState.COMPLETED, present=("Nodule",))))
    assert (status.text, status.detail) == (said, "other models: found: Nodule")
    status = status_of(facts(withdrawn, run(RunState.FAILED, "it crashed")))
    assert status.text == f"{said}; not analysed: it crashed ({MODEL})"
    assert status_of(facts(withdrawn, is_flagged=True)).detail == said
    assert status_of(facts(withdrawn, run(RunState.PENDING))).kind == "waiting"


def parked(state: RunState = RunState.PENDING) -> RunFacts:
    return RunFacts(2, "parked 1.0.0", state, unavailable="the device is full")


def test_nobody_waits_for_a_model_that_is_parked() -> None:
    said = "not analysed: model unavailable, because the device is full (parked 1.0.0)"
    status = status_of(facts(parked(), run(RunState.COMPLETED)))
    assert (status.kind, status.text) == ("not-analysed", said)
    assert status.detail == "other models: nothing found"
    assert status_of(facts(parked(), run(RunState.PENDING))).kind == "waiting"
    assert status_of(facts(parked(RunState.RUNNING))).kind == "running"
    flagged = status_of(facts(parked(), is_flagged=True))
    assert (flagged.kind, flagged.detail) == ("flagged", said.removeprefix("not analysed: "))


def test_study_that_is_arriving_says_what_it_waits_for_and_what_is_known_so_far() -> None:
    awaited = "waiting for 12 of 40 images (MPPS)"
    status = status_of(facts(state=StudyState.RECEIVING, awaited=awaited))
    assert (status.kind, status.text, status.detail) == ("receiving", awaited, "")
    early = status_of(facts(run(RunState.COMPLETED), state=StudyState.RECEIVING, awaited=awaited))
    assert early.detail == "so far analysed: nothing found"
    flagged = status_of(facts(state=StudyState.RECEIVING, awaited=awaited, is_flagged=True))
    assert (flagged.text, flagged.detail) == ("flagged", awaited)


def test_one_models_nothing_found_never_hides_that_another_could_not_analyse() -> None:
    other = RunFacts(2, "other 1.0.0", RunState.FAILED, "out of memory")
    status = status_of(facts(run(RunState.COMPLETED), other))
    assert status.text == "not analysed: out of memory (other 1.0.0)"
    assert status.detail == "other models: nothing found"


def test_a_flag_does_not_hide_that_another_model_failed() -> None:
    other = RunFacts(2, "other 1.0.0", RunState.FAILED, "out of memory")
    status = status_of(facts(run(RunState.COMPLETED), other, is_flagged=True))
    assert "out of memory" in status.detail


def test_run_that_is_tried_again_says_why() -> None:
    status = status_of(facts(run(RunState.PENDING, "the worker stopped")))
    assert status.detail == f"{MODEL}; the last attempt failed: the worker stopped"


def test_unnamed_series_does_not_show_its_uid() -> None:
    status = status_of(facts(refusals=("m 1.0.0: series 1.2.826.0.1.3680043: modality US",)))
    assert status.text == "no model wants it: m 1.0.0: unnamed series: modality US"
