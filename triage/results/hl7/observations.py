"""What an analysis found, as OBX segments (HL7 v2.5.1 7.4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from triage.core.codes import Code
from triage.core.findings import Finding
from triage.core.notices import Notice, NoticeRun
from triage.core.priority import Priority
from triage.hl7.building import Value, segment
from triage.hl7.message import moment_in_digits
from triage.results.hl7.segments import OWN_CODES, priority_code
from triage.results.report import ABSENT, CERTAINTY_OF_FINDING, PERCENT, PRESENT
from triage.settings import Hl7Destination

# As IHE writes the reference to a study (RAD TF-2 4.7, table 4.7-7), with the status O.
_STUDY = ["113014", "DICOM Study", "DCM"]
_SERIES = ["113015", "DICOM Series", "DCM"]
_ALGORITHM_NAME = ["111001", "Algorithm Name", "DCM"]
_ALGORITHM_VERSION = ["111003", "Algorithm Version", "DCM"]
_FINDING_SITE = ["363698007", "Finding site", "SCT"]
_DETAIL = "O"


@dataclass
class Observations:
    """Writes one OBX after another; `status` is that of the results (OBX-11).

    `sub_id` is the OBX-4 of what belongs to no single finding.
    """

    coded_type: str
    status: str
    observed_at: str
    sub_id: str = ""
    written: list[str] = field(default_factory=list)

    def add(self, value_type: str, what: Value, value: Value, **more: str | Value) -> None:
        """Add an observation; `more` may have sub_id, units, flag and status."""
        fields: Mapping[int, Value] = {
            1: len(self.written) + 1,
            2: value_type,
            3: what,
            4: more.get("sub_id", self.sub_id),
            5: value,
            6: more.get("units", ""),
            8: more.get("flag", ""),
            11: more.get("status", self.status),
            14: self.observed_at,
        }
        self.written.append(segment("OBX", fields))

    def add_coded(self, what: Value, value: Value, **more: str | Value) -> None:
        """Add an observation whose value is a code."""
        self.add(self.coded_type, what, value, **more)


def observations(
    notice: Notice, run: NoticeRun, destination: Hl7Destination, status: str
) -> list[str]:
    """Return the OBX segments of a result: study, model, findings, why it is urgent, objects."""
    is_old = destination.version == "2.3.1"
    made = Observations(
        coded_type="CE" if is_old else "CWE",
        sub_id="0" if is_old else "",  # readers of 2.3.1 often ask for one
        status=status,
        observed_at=moment_in_digits(run.finished_at),
    )
    made.add("ST", _STUDY, notice.study.study_instance_uid, status=_DETAIL)
    if run.source_series_uid:
        made.add("ST", _SERIES, run.source_series_uid, status=_DETAIL)
    made.add("ST", _ALGORITHM_NAME, run.model)
    made.add("ST", _ALGORITHM_VERSION, run.version)
    for number, finding in enumerate(run.findings, start=1):
        _add_finding(made, finding, str(number))
    if notice.study.is_raised_by_ai:
        asked = priority_code(notice.study.priority)
        made.add_coded(["ai-priority", "Reading priority asked for by AI", OWN_CODES], asked)
        reason = notice.study.reason
        made.add("TX", ["ai-priority-reason", "Reason for the priority", OWN_CODES], reason)
    for role, name, uid in _objects(run):
        made.add("ST", [role, name, OWN_CODES], uid, status=_DETAIL)
    return made.written


def _add_finding(made: Observations, finding: Finding, sub_id: str) -> None:
    """Add one finding: present or absent, how sure, where, and what was measured."""
    presence = PRESENT if finding.present else ABSENT
    made.add_coded(
        coded(finding.code), coded(presence), sub_id=sub_id, flag="A" if finding.present else "N"
    )
    made.add(
        "NM",
        coded(CERTAINTY_OF_FINDING),
        _number(100 * finding.confidence),
        sub_id=sub_id,
        units=coded(PERCENT),
    )
    if finding.site is not None:
        made.add_coded(_FINDING_SITE, coded(finding.site), sub_id=sub_id)
    for one in finding.measurements:
        made.add("NM", coded(one.concept), _number(one.value), sub_id=sub_id, units=coded(one.unit))
    if finding.present and finding.priority > Priority.ROUTINE:
        made.add_coded(
            ["finding-priority", "Priority that the finding asks for", OWN_CODES],
            priority_code(finding.priority),
            sub_id=sub_id,
        )


def _objects(run: NoticeRun) -> Iterator[tuple[str, str, str]]:
    for one in run.objects:
        yield one.role, f"{one.role.upper()} Instance UID", one.sop_instance_uid


def coded(code: Code) -> list[str]:
    """Return a code as CWE or CE; HL7 calls the schemes that are used here as DICOM does."""
    return [code.value, code.meaning, code.scheme]


def _number(value: float) -> str:
    """Return a number as NM, which has no exponent (2.A.47)."""
    return f"{value:.6f}".rstrip("0").rstrip(".")
