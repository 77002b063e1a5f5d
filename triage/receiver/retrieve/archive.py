"""What an archive is asked, and what it answers, whatever it speaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from triage.core.errors import TriageError
from triage.core.priors import Comparable
from triage.receiver.encoded import EncodedInstance


class RetrieveError(TriageError):
    """An archive did not give what it was asked for; the message names it and says why."""


class NotOfferedError(RetrieveError):
    """The archive does not offer this way of asking or giving; another may do."""


@dataclass(frozen=True, slots=True)
class StudyQuery:
    """Which studies are looked for: all that is set must match (DICOM PS3.4 C.6.2.1)."""

    study_instance_uid: str = ""
    accession_number: str = ""
    patient_id: str = ""

    def __str__(self) -> str:
        named = {
            "study": self.study_instance_uid,
            "accession number": self.accession_number,
            "patient ID": self.patient_id,
        }
        return " and ".join(f"{name} {value}" for name, value in named.items() if value)

    def matches(self, study: Comparable) -> bool:
        """Return whether a study is really one of these: an archive may read `*` as a pattern."""
        return all(
            not wanted or wanted == found
            for wanted, found in (
                (self.study_instance_uid, study.study_instance_uid),
                (self.accession_number, study.accession_number),
                (self.patient_id, study.patient_id),
            )
        )


@dataclass(frozen=True, slots=True)
class FoundInstance:
    """An instance that an archive says it holds. `sop_class_uid` is "" where it does not say."""

    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str = ""


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """A series that an archive says it holds."""

    series_instance_uid: str
    modality: str = ""
    body_part: str = ""
    description: str = ""


class Finder(Protocol):
    """Asks an archive what it holds."""

    def find_studies(self, query: StudyQuery) -> list[Comparable]:
        """Return the studies that match."""
        ...

    def find_series(self, study_instance_uid: str) -> list[FoundSeries]:
        """Return the series of a study."""
        ...

    def find_instances(self, study_instance_uid: str) -> list[FoundInstance]:
        """Return the instances of a study."""
        ...


Take = Callable[[EncodedInstance], int]
"""Stores an instance and returns the status that its sender is told; 0x0000 is success."""
Progress = Callable[[int], None]
"""Is told how many instances have come so far in one retrieval."""


class Way(Protocol):
    """Lets an archive give instances."""

    @property
    def name(self) -> str:
        """What `--via` calls it."""
        ...

    def retrieve(
        self,
        study_instance_uid: str,
        instances: Sequence[FoundInstance],
        *,
        is_whole_study: bool,
        take: Take,
        progress: Progress,
    ) -> None:
        """Let the instances be given to `take`; which of them came, the store knows.

        Raises:
            NotOfferedError: the archive does not offer this way.
            RetrieveError: it broke off, or refused.
        """
        ...


def study_in(identifier: Dataset) -> Comparable:
    """Return the study that an answer describes."""
    return Comparable(
        study_instance_uid=text_of(identifier, "StudyInstanceUID"),
        patient_id=text_of(identifier, "PatientID"),
        issuer_of_patient_id=text_of(identifier, "IssuerOfPatientID"),
        birth_date=text_of(identifier, "PatientBirthDate"),
        study_date=text_of(identifier, "StudyDate"),
        study_time=text_of(identifier, "StudyTime"),
        accession_number=text_of(identifier, "AccessionNumber"),
        modalities=frozenset(_texts_of(identifier, "ModalitiesInStudy")),
        description=text_of(identifier, "StudyDescription"),
    )


def series_in(identifier: Dataset) -> FoundSeries:
    """Return the series that an answer describes."""
    return FoundSeries(
        series_instance_uid=text_of(identifier, "SeriesInstanceUID"),
        modality=text_of(identifier, "Modality"),
        body_part=text_of(identifier, "BodyPartExamined"),
        description=text_of(identifier, "SeriesDescription"),
    )


def instance_in(identifier: Dataset, series_instance_uid: str = "") -> FoundInstance:
    """Return the instance that an answer describes."""
    return FoundInstance(
        series_instance_uid=text_of(identifier, "SeriesInstanceUID") or series_instance_uid,
        sop_instance_uid=text_of(identifier, "SOPInstanceUID"),
        sop_class_uid=text_of(identifier, "SOPClassUID"),
    )


def text_of(identifier: Dataset, keyword: str) -> str:
    """Return the first value of an attribute, "" where the answer has none."""
    return next(iter(_texts_of(identifier, keyword)), "")


def _texts_of(identifier: Dataset, keyword: str) -> list[str]:
    value = identifier.get(keyword)
    if value is None:
        return []
    values = value if isinstance(value, MultiValue | list) else [value]
    return [text for one in values if (text := str(one).strip("\x00 "))]


STUDY_KEYWORDS = (
    "StudyInstanceUID",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ModalitiesInStudy",
    "StudyDescription",
)
"""What is asked of studies. Names of patients are not: nobody needs them."""
SERIES_KEYWORDS = ("SeriesInstanceUID", "Modality", "BodyPartExamined", "SeriesDescription")
"""What is asked of series."""
INSTANCE_KEYWORDS = ("SOPInstanceUID", "SOPClassUID")
"""What is asked of instances."""
