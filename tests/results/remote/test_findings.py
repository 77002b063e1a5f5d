"""What is read from the reports of remote models."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from tests.results.scenes import HEMORRHAGE, PNEUMOTHORAX, build, head_analysis, head_manifest
from triage.core.codes import Code
from triage.core.priority import Priority
from triage.results.remote.findings import UnreadableReportError, read_findings
from triage.settings.remote_models import RemoteFindingSettings


def _wanted(code: Code, **more: Any) -> RemoteFindingSettings:
    return RemoteFindingSettings.model_validate({"key": "it", "code": code.model_dump(), **more})


@pytest.fixture(scope="module")
def reports(head_files: tuple[Path, ...]) -> dict[bool, Dataset]:
    """A report that finds hemorrhage, and one that finds nothing."""
    made = {}
    for is_present in (True, False):
        built = build(head_analysis(head_files, is_present=is_present), head_manifest())
        made[is_present] = next(each.dataset for each in built if each.role == "sr")
    return made


def test_a_finding_comes_back_as_it_was_written(reports: dict[bool, Dataset]) -> None:
    [found] = read_findings(reports[True], [_wanted(HEMORRHAGE, priority="stat")])
    assert (found.present, found.confidence) == (True, 0.97)
    assert (found.code, found.priority) == (HEMORRHAGE, Priority.STAT)


def test_what_is_absent_is_read_as_absent(reports: dict[bool, Dataset]) -> None:
    [found] = read_findings(reports[False], [_wanted(HEMORRHAGE, priority="stat")])
    assert not found.present


def test_a_group_that_names_a_finding_and_calls_it_absent_finds_nothing(
    reports: dict[bool, Dataset],
) -> None:
    report = deepcopy(reports[True])
    for item in report.iterall():
        if item.keyword == "CodeValue" and item.value == "52101004":
            item.value = "272519000"
    [found] = read_findings(report, [_wanted(HEMORRHAGE)])
    assert not found.present


def test_a_finding_without_any_evaluation_is_present_and_surely_so(
    reports: dict[bool, Dataset],
) -> None:
    report = deepcopy(reports[True])
    for item in report.iterall():
        if item.keyword == "CodeValue" and item.value in ("52101004", "111012"):
            item.value = "0"
    [found] = read_findings(report, [_wanted(HEMORRHAGE)])
    assert (found.present, found.confidence) == (True, 1.0)


def test_what_is_no_such_report_is_refused(reports: dict[bool, Dataset]) -> None:
    with pytest.raises(UnreadableReportError, match=r"says nothing of \(36118008, SCT"):
        read_findings(reports[True], [_wanted(PNEUMOTHORAX)])
    other = deepcopy(reports[True])
    other.ConceptNameCodeSequence[0].CodeValue = "18748-4"
    with pytest.raises(UnreadableReportError, match="no Imaging Measurement Report"):
        read_findings(other, [_wanted(HEMORRHAGE)])
    with pytest.raises(UnreadableReportError, match="no Imaging Measurement Report"):
        read_findings(Dataset(), [_wanted(HEMORRHAGE)])
    partial = deepcopy(reports[True])
    del partial.CompletionFlag
    with pytest.raises(UnreadableReportError, match=r"Completion Flag .* is 'empty'"):
        read_findings(partial, [_wanted(HEMORRHAGE)])
