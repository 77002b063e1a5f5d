"""Which earlier studies of a patient are worth comparing a study with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum


class SearchState(StrEnum):
    """Where the search for a study's priors stands. DONE and FAILED are final."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class PriorState(StrEnum):
    """What became of one prior.

    WANTED is found and not yet fetched. HERE is in the store, whole. INCOMPLETE has come in part.
    FAILED has not come.
    """

    WANTED = "wanted"
    HERE = "here"
    INCOMPLETE = "incomplete"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PriorsRule:
    """What makes an earlier study relevant, and how many are wanted.

    Attributes:
        count: the last so many.
        modalities: the relevant ones; empty is those of the study itself.
        same_body_part: leave out what is known to show another part of the body.
        maximum_age: how much older than the study.
    """

    count: int = 2
    modalities: frozenset[str] = frozenset()
    same_body_part: bool = True
    maximum_age: timedelta = timedelta(days=1825)


@dataclass(frozen=True, slots=True)
class Comparable:
    """A study as an archive describes it, and as the relevance of another depends on it.

    Dates and times are those of DICOM (DA, TM); texts are empty where nothing is known.
    `body_parts` are values of Body Part Examined (0018,0015).
    """

    study_instance_uid: str
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    birth_date: str = ""
    study_date: str = ""
    study_time: str = ""
    accession_number: str = ""
    modalities: frozenset[str] = frozenset()
    description: str = ""
    body_parts: tuple[str, ...] = field(default=())

    @property
    def date(self) -> date | None:
        """The day of the study, None where Study Date is missing or no date."""
        digits = self.study_date.replace(".", "")[:8]
        try:
            return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
        except ValueError:
            return None

    @property
    def regions(self) -> frozenset[str]:
        """The regions of the body that the texts name; empty where they name none."""
        return regions_in(self.description, *self.body_parts)


# Words as descriptions have them, English, German, French and Spanish; each a beginning.
_WORDS: dict[str, tuple[str, ...]] = {
    "head": (
        "head", "brain", "skull", "cranial", "cranio", "intracran", "cerebr", "stroke", "orbit",
        "sinus", "sella", "iac", "schadel", "schaedel", "schädel", "kopf", "hirn", "cct",
        "tete", "tête", "crane", "crâne", "cerveau", "cabeza", "craneo", "cráneo", "cerebro",
    ),
    "neck": ("neck", "carotid", "larynx", "thyroid", "hals", "schilddr", "cou", "cuello"),
    "chest": (
        "chest", "thorax", "thorac", "lung", "pulmon", "rib", "heart", "cardiac", "coron",
        "cxr", "poumon", "torax", "tórax", "herz",
    ),
    "abdomen": (
        "abdom", "pelvis", "pelvi", "liver", "kidney", "renal", "bowel", "becken", "leber",
        "bauch", "bassin", "foie", "higado", "urogra", "kub",
    ),
    "spine": ("spine", "spinal", "lumbar", "cspine", "tspine", "lspine", "lws", "bws", "hws",
        "wirbel", "rachis", "columna", "sacr"),
    "breast": ("breast", "mammo", "sein", "mama"),
    "upper limb": (
        "shoulder", "arm", "humer", "elbow", "forearm", "wrist", "hand", "finger", "thumb",
        "schulter", "ellbogen", "handgelenk",
    ),
    "lower limb": (
        "hip", "leg", "femur", "knee", "tibia", "ankle", "foot", "toe", "calcan", "hufte",
        "hüfte", "knie", "fuss", "fuß", "genou", "rodilla",
    ),
}  # fmt: skip
_PATTERNS = {
    region: re.compile(rf"(?:^|[\W_])(?:{'|'.join(map(re.escape, words))})", re.IGNORECASE)
    for region, words in _WORDS.items()
}


def regions_in(*texts: str) -> frozenset[str]:
    """Return the regions of the body that are named in descriptions or body parts.

    >>> sorted(regions_in("CT HEAD W/O CONTRAST")), sorted(regions_in("Routine"))
    (['head'], [])
    """
    return frozenset(
        region for region, pattern in _PATTERNS.items() if any(map(pattern.search, texts))
    )


# Objects about images: they say nothing about what was examined.
_NO_EXAMINATION = frozenset({"SR", "KO", "PR", "SEG", "DOC", "OT", "REG", "AU", "PLAN", "RTSTRUCT"})


def relevant_priors(
    study: Comparable, candidates: Iterable[Comparable], rule: PriorsRule
) -> tuple[Comparable, ...]:
    """Return the relevant ones of `candidates`, at most `rule.count`, the most relevant first.

    A candidate is relevant where it is the same patient's, older than the study but not too old,
    of a wanted modality, and not known to show another part of the body. Those that are known to
    show the same part go before those of which nothing is known, and newer before older.
    """
    relevant = [one for one in candidates if is_relevant(study, one, rule)]
    relevant.sort(key=lambda one: (one.study_date, one.study_time), reverse=True)
    relevant.sort(key=lambda one: not one.regions & study.regions)
    return tuple(relevant[: rule.count])


def is_relevant(study: Comparable, candidate: Comparable, rule: PriorsRule) -> bool:
    """Return whether `candidate` is a prior that is worth fetching, whatever others there are."""
    if candidate.study_instance_uid == study.study_instance_uid:
        return False
    if not is_same_patient(study, candidate) or not _is_older(study, candidate, rule):
        return False
    wanted = (rule.modalities or study.modalities) - _NO_EXAMINATION
    if wanted and candidate.modalities and not wanted & candidate.modalities:
        return False
    known = study.regions and candidate.regions
    return not (rule.same_body_part and known and not study.regions & candidate.regions)


def is_same_patient(study: Comparable, candidate: Comparable) -> bool:
    """Return whether nothing speaks against the two studies being one patient's.

    The Patient ID must be the very same: an archive may read it as a pattern. Issuer and birth
    date, where both studies have them, must agree: two hospitals may give one number twice.
    """
    return (
        bool(study.patient_id)
        and candidate.patient_id == study.patient_id
        and _agree(study.issuer_of_patient_id, candidate.issuer_of_patient_id)
        and _agree(study.birth_date, candidate.birth_date)
    )


def _agree(one: str, other: str) -> bool:
    return not one or not other or one == other


def _is_older(study: Comparable, candidate: Comparable, rule: PriorsRule) -> bool:
    if study.date is None or candidate.date is None:
        return False  # without a date nobody can say which of the two came first
    if candidate.date < study.date - rule.maximum_age:
        return False
    return (candidate.date, candidate.study_time[:6]) < (study.date, study.study_time[:6])


def wants_description_of_series(study: Comparable, candidate: Comparable) -> bool:
    """Return whether a look at the candidate's series could change its relevance."""
    return not candidate.modalities or (bool(study.regions) and not candidate.regions)


def in_words(priors: Sequence[Comparable]) -> str:
    """Return the priors' dates and modalities, for a line of history."""
    return ", ".join(
        f"{one.date or 'without a date'} {'/'.join(sorted(one.modalities))}".strip()
        for one in priors
    )
