"""Which studies of the worklist a person wants to see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, and_, exists, literal, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from triage.core.priority import Priority
from triage.core.runs import RunState, StudyState
from triage.core.stages import COUNTING_STAGES
from triage.store.claims import studies_claimed
from triage.store.prefixes import begins_with
from triage.store.tables import AnalysisRunRow, StudyRow
from triage.store.worklist_tables import ReadingClaimRow
from triage.worklist.viewer import Viewer

WARD_ENDS = "-"
"""What stands between ward, room and bed in a location, as HL7's PL is written here."""


class StatusChoice(StrEnum):
    """What became of a study, as far as one filters by it."""

    RECEIVING = "receiving"
    ANALYSING = "analysing"
    ANALYSED = "analysed"
    NOT_ANALYSED = "not-analysed"
    NOT_WANTED = "not-wanted"


Assigned = Literal["anybody", "me", "nobody", "others", "person"]
Choice = Annotated[str, Field(min_length=1, max_length=128)]
Choices = Annotated[tuple[Choice, ...], Field(max_length=32)]


class WorklistFilter(BaseModel):
    """What is asked for; of each kind any one of the values will do, and all kinds must fit.

    Attributes:
        modalities: of any series.
        body_parts: Body Part Examined (0018,0015) of any series, in capitals.
        patient_classes: by HL7 table 0004.
        wards: the first part of the location.
        statuses: what became of the study.
        assigned: by who reads it; "others" is everybody but me.
        person: who, where `assigned` is "person".
        flagged: only those that the AI flags.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    modalities: Choices = ()
    body_parts: Choices = ()
    patient_classes: Choices = ()
    wards: Choices = ()
    statuses: Annotated[tuple[StatusChoice, ...], Field(max_length=8)] = ()
    assigned: Assigned = "anybody"
    person: Annotated[str, Field(max_length=128)] = ""
    flagged: bool = False

    @property
    def sought(self) -> str:
        """The search for a patient or an accession number that belongs to it."""
        return ""

    @property
    def is_by_list(self) -> bool:
        """Whether only what the list itself is counted by is asked for."""
        return not self.statuses and self.assigned == "anybody" and not self.sought


class WorklistSearch(WorklistFilter):
    """The same, and a search for a patient or an accession number: it is never part of an address.

    Attributes:
        text: words, each the beginning of a name, a Patient ID or an accession number.
    """

    text: Annotated[str, Field(max_length=200)] = ""

    @property
    def sought(self) -> str:
        """The search, without what says nothing."""
        return self.text.strip()

    def without_text(self) -> WorklistFilter:
        """Return what may be kept as a view."""
        return WorklistFilter.model_validate(self.model_dump(exclude={"text"}))


IS_FLAGGED = and_(StudyRow.ai_priority.is_not(None), StudyRow.ai_priority > Priority.ROUTINE)
"""The condition that the AI asks for the study to be read earlier than the usual."""

TO_READ = and_(StudyRow.read_at.is_(None), StudyRow.is_prior.is_(False))
"""The condition that a study is on the worklist."""

WAS_READ = and_(StudyRow.read_at.is_not(None), StudyRow.is_prior.is_(False))
"""The condition that a person has read a study."""


def conditions_of(wanted: WorklistFilter, viewer: Viewer) -> list[ColumnElement[bool]]:
    """Return what a study must fulfil; the search for text is not among it."""
    found = [
        _any_of(StudyRow.modalities, wanted.modalities),
        _any_of(StudyRow.body_parts, wanted.body_parts),
        StudyRow.patient_class.in_(wanted.patient_classes) if wanted.patient_classes else None,
        or_(*map(_is_ward, wanted.wards)) if wanted.wards else None,
        or_(*(_STATUSES[status]() for status in wanted.statuses)) if wanted.statuses else None,
        IS_FLAGGED if wanted.flagged else None,
        _assigned(wanted, viewer),
    ]
    return [condition for condition in found if condition is not None]


def ward_of(location: str) -> str:
    """Return the ward of a location.

    >>> ward_of("ER-3-B")
    'ER'
    """
    return location.partition(WARD_ENDS)[0].strip()


def _any_of(
    column: InstrumentedAttribute[str], values: Sequence[str]
) -> ColumnElement[bool] | None:
    """Return the condition that a column of several values (DICOM PS3.5 6.4) has one of these."""
    if not values:
        return None
    delimited = literal("\\") + column + literal("\\")
    return or_(*(delimited.contains(f"\\{value}\\", autoescape=True) for value in values))


def _is_ward(ward: str) -> ColumnElement[bool]:
    return or_(StudyRow.location == ward, begins_with(StudyRow.location, ward + WARD_ENDS))


def _assigned(wanted: WorklistFilter, viewer: Viewer) -> ColumnElement[bool] | None:
    is_me = ReadingClaimRow.who == viewer.who
    if wanted.assigned == "me":
        return StudyRow.id.in_(studies_claimed(viewer.now, is_me))
    if wanted.assigned == "others":
        return StudyRow.id.in_(studies_claimed(viewer.now, ~is_me))
    if wanted.assigned == "nobody":
        return StudyRow.id.not_in(studies_claimed(viewer.now))
    if wanted.assigned == "person":
        is_person = ReadingClaimRow.who == wanted.person
        return StudyRow.id.in_(studies_claimed(viewer.now, is_person))
    return None


def _has_run(*states: RunState) -> ColumnElement[bool]:
    conditions = [
        AnalysisRunRow.study_id == StudyRow.id,
        AnalysisRunRow.generation == StudyRow.generation,
        AnalysisRunRow.stage.in_(COUNTING_STAGES),
    ]
    if states:
        conditions.append(AnalysisRunRow.state.in_(states))
    return exists(select(AnalysisRunRow.id).where(*conditions))


_STATUSES: Mapping[StatusChoice, Callable[[], ColumnElement[bool]]] = {
    StatusChoice.RECEIVING: lambda: StudyRow.state == StudyState.RECEIVING,
    StatusChoice.ANALYSING: lambda: _has_run(RunState.PENDING, RunState.RUNNING),
    StatusChoice.ANALYSED: lambda: _has_run(RunState.COMPLETED),
    StatusChoice.NOT_ANALYSED: lambda: _has_run(RunState.REFUSED, RunState.FAILED),
    StatusChoice.NOT_WANTED: lambda: and_(StudyRow.state == StudyState.COMPLETE, ~_has_run()),
}
