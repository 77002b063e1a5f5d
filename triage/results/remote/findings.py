"""What the report of a remote model finds: codes of a TID 1500 report, as our own findings.

Of reports in general nothing can be said: only a complete Imaging Measurement Report (DICOM PS3.16
TID 1500) is read, and of it only the codes that the settings name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset

from triage.core.errors import TriageError
from triage.core.findings import Finding
from triage.results.report import CERTAINTY_OF_FINDING, PRESENT
from triage.settings.remote_models import RemoteFindingSettings

_REPORT = ("126000", "DCM")  # Imaging Measurement Report
_GROUP = ("125007", "DCM")  # Measurement Group
_FINDING = ("121071", "DCM")  # Finding
_PRESENT = (PRESENT.value, PRESENT.scheme)
_ABSENT = {("272519000", "SCT"), ("2667000", "SCT")}  # Absent; older reports have the second

Concept = tuple[str, str]


class UnreadableReportError(TriageError):
    """The findings of a report cannot be read; the message says why and what would do."""


def read_findings(report: Dataset, wanted: Sequence[RemoteFindingSettings]) -> tuple[Finding, ...]:
    """Return what `report` says of the findings that are wanted, present or absent.

    A measurement group whose Finding is the code says that it is present, unless an evaluation in
    it says that it is absent; a group or the report may also evaluate the code itself. What is
    said twice is present if it is once. The confidence is the Certainty of Finding, in percent,
    or 1 where the report does not say how sure it is.

    Raises:
        UnreadableReportError: it is no complete TID 1500 report, or says nothing of the codes.
    """
    _check(report)
    found = []
    for one in wanted:
        said = list(_said_of((one.code.value, one.code.scheme), report))
        if said:
            is_present = any(present for present, _ in said)
            confidence = max(sure for present, sure in said if present is is_present)
            found.append(
                Finding(
                    key=one.key,
                    code=one.code,
                    present=is_present,
                    confidence=confidence,
                    priority=one.priority,
                )
            )
    if not found:
        codes = ", ".join(str(one.code) for one in wanted)
        raise UnreadableReportError(f"it says nothing of {codes}; compare findings with its codes")
    return tuple(found)


def _check(report: Dataset) -> None:
    concept = _concept(report, "ConceptNameCodeSequence")
    if concept != _REPORT:
        raise UnreadableReportError(
            "it is no Imaging Measurement Report (126000, DCM), which is what is read (TID 1500)"
        )
    flag = str(report.get("CompletionFlag", ""))
    if flag != "COMPLETE":
        raise UnreadableReportError(
            f"its Completion Flag (0040,A491) is {flag or 'empty'!r}, not COMPLETE"
        )


def _said_of(code: Concept, report: Dataset) -> Iterator[tuple[bool, float]]:
    """Yield each statement of the report about a code: whether it is there, and how sure."""
    for container in _containers(report):
        items = list(container.get("ContentSequence", ()))
        evaluated = {
            _concept(item, "ConceptNameCodeSequence"): _concept(item, "ConceptCodeSequence")
            for item in items
            if item.get("ValueType") == "CODE"
        }
        is_group = _concept(container, "ConceptNameCodeSequence") == _GROUP
        is_finding = is_group and evaluated.get(_FINDING) == code
        if not is_finding and evaluated.get(code) not in {_PRESENT, *_ABSENT}:
            continue
        is_absent = (
            bool(_ABSENT & set(evaluated.values())) if is_finding else (evaluated[code] in _ABSENT)
        )
        yield not is_absent, _certainty(items)


def _containers(item: Dataset) -> Iterator[Dataset]:
    """Yield an SR's containers from the root on; depth was bounded when the file was checked."""
    if item.get("ValueType") == "CONTAINER":
        yield item
    for below in item.get("ContentSequence", ()):
        yield from _containers(below)


def _certainty(items: Sequence[Dataset]) -> float:
    for item in items:
        name = _concept(item, "ConceptNameCodeSequence")
        if name == (CERTAINTY_OF_FINDING.value, CERTAINTY_OF_FINDING.scheme):
            for measured in item.get("MeasuredValueSequence", ()):
                value = measured.get("NumericValue")
                if value is not None:
                    return min(max(float(value) / 100, 0.0), 1.0)
    return 1.0


def _concept(item: Dataset, keyword: str) -> Concept | None:
    for code in item.get(keyword) or ():
        return str(code.get("CodeValue", "")), str(code.get("CodingSchemeDesignator", ""))
    return None
