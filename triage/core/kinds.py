"""What a series is beside images for reading: a scout, a dose report, a phantom, a reformat.

Body Part Examined and Modality say nothing of it: a scout of the head is a CT of the head. The
rules go by SOP class, Image Type, the quality attributes and descriptions, never by the name of a
patient: people are called Test, and phantoms have names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from triage.core.studies import Instance, Series


class SeriesKind(StrEnum):
    """A kind of series that no model gets unasked."""

    REPORT = "report"
    DOSE = "dose"
    LOCALIZER = "localizer"
    SCREEN_SAVE = "screen-save"
    PHANTOM = "phantom"
    CALIBRATION = "calibration"
    PROJECTION = "projection"
    REFORMATTED = "reformatted"
    SECONDARY = "secondary"
    DERIVED = "derived"


@dataclass(frozen=True, slots=True)
class KindRule:
    """How one kind is recognized: any of what is given is enough, for every image of the series.

    Attributes:
        kind: what the series then is.
        words: the refusal.
        sop_class_uids: SOP classes of that kind.
        image_types: Image Type (0008,0008) values of that kind.
        description: regular expression, ignoring case, over Series Description.
        study_description: the same over what is said of all series alike: Study Description,
            Protocol Name and Body Part Examined.
        headers: attributes and the value that betrays the kind.
        modalities: the only ones that the rule is for; empty is every one.
    """

    kind: SeriesKind
    words: str
    sop_class_uids: frozenset[str] = frozenset()
    image_types: frozenset[str] = frozenset()
    description: str = ""
    study_description: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    modalities: frozenset[str] = frozenset()


_TOMOGRAPHY = frozenset({"CT", "MR", "PT", "NM"})
_PHANTOM = r"phantom|quality\s*(assurance|control)|\bQA\b"

KIND_RULES: tuple[KindRule, ...] = (
    KindRule(
        SeriesKind.DOSE,
        "it is a dose report",
        sop_class_uids=frozenset(
            {
                "1.2.840.10008.5.1.4.1.1.88.67",  # X-Ray Radiation Dose SR
                "1.2.840.10008.5.1.4.1.1.88.76",  # Enhanced X-Ray Radiation Dose SR
                "1.2.840.10008.5.1.4.1.1.88.73",  # Patient Radiation Dose SR
            }
        ),
        image_types=frozenset({"DOSE_INFO", "DOSE"}),
        description=r"\bdose\s*(report|info\w*|summary|record|page)|\bpatient\s+protocol\b",
    ),
    KindRule(
        SeriesKind.LOCALIZER,
        "it is a localizer",
        image_types=frozenset({"LOCALIZER", "SURVIEW", "SCOUT", "REF_SURVIEW"}),
        description=(
            r"\b(scout|topogram|surview|localizer|localiser|scanogram|"
            r"(3|three)[ -]?(plane|pl)[ -]?loc\w*)\b"
        ),
        modalities=_TOMOGRAPHY,
    ),
    KindRule(
        SeriesKind.SCREEN_SAVE,
        "it is a screen capture",
        image_types=frozenset({"SCREEN SAVE", "SCREENSAVE", "PATIENT_INFO", "RESULTS"}),
        description=r"\b(screen\s*(save|capture|shot)|exam\s+summary)s?\b",
    ),
    KindRule(
        SeriesKind.PHANTOM,
        "it shows a phantom, not a patient",
        description=_PHANTOM,
        study_description=_PHANTOM + r"|^QC$",
        headers=(("QualityControlImage", "YES"),),
    ),
    KindRule(
        SeriesKind.CALIBRATION,
        "it is a calibration or test, not an examination",
        description=(
            r"\b((air|water|coil|detector|asset)?\s*calibration|asset\s+cal|(pre|ref)[- ]?scan|"
            r"shimming|test\s*(scan|image|patient|exposure)|warm[- ]?up)\b"
        ),
        study_description=r"\b(calibration|test\s*(scan|image|patient))\b",
        headers=(("ContentQualification", "SERVICE"),),
    ),
    KindRule(
        SeriesKind.PROJECTION,
        "it is a projection of a volume, not slices",
        image_types=frozenset(
            {
                "MIP",
                "MINIP",
                "MIN_IP",
                "PROJECTION IMAGE",
                "MAXIMUM INTENSITY PROJECTION",
                "VOLUME RENDERING",
                "VRT",
                "CSA MIP",
            }
        ),
        description=r"\b(mip|minip|min[- ]ip|vrt|volume rendering|3d rendering)s?\b",
        modalities=_TOMOGRAPHY,
    ),
    KindRule(
        SeriesKind.SECONDARY,
        "its images are secondary, not acquired",
        sop_class_uids=frozenset(
            {
                "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture Image Storage
                "1.2.840.10008.5.1.4.1.1.7.1",
                "1.2.840.10008.5.1.4.1.1.7.2",
                "1.2.840.10008.5.1.4.1.1.7.3",
                "1.2.840.10008.5.1.4.1.1.7.4",
            }
        ),
        image_types=frozenset({"SECONDARY"}),
    ),
    # A radiograph for presentation is rightly DERIVED PRIMARY; a reformatted volume is not what
    # the scanner acquired.
    KindRule(
        SeriesKind.DERIVED,
        "its images are derived, not original",
        image_types=frozenset({"DERIVED"}),
        modalities=_TOMOGRAPHY,
    ),
    KindRule(
        SeriesKind.REFORMATTED,
        "it is reformatted, not as it was acquired",
        image_types=frozenset({"MPR", "REFORMATTED", "CSA MPR"}),
        description=r"\b(mpr|reformats?|reformatted|reformation)\b",
        modalities=_TOMOGRAPHY,
    ),
    KindRule(
        SeriesKind.REPORT,
        "it has no images",
        sop_class_uids=frozenset(
            {
                "1.2.840.10008.5.1.4.1.1.88.11",  # Basic Text SR
                "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
                "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
                "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
                "1.2.840.10008.5.1.4.1.1.88.59",  # Key Object Selection
                "1.2.840.10008.5.1.4.1.1.11.1",  # Grayscale Softcopy Presentation State
                "1.2.840.10008.5.1.4.1.1.11.2",  # Color Softcopy Presentation State
                "1.2.840.10008.5.1.4.1.1.104.1",  # Encapsulated PDF
            }
        ),
    ),
)
"""The rules, in the order in which their words are said."""

_ASKED_FOR_BY_IMAGE_TYPE = frozenset(
    {SeriesKind.DERIVED, SeriesKind.SECONDARY, SeriesKind.PROJECTION, SeriesKind.REFORMATTED}
)


def kinds_of(
    series: Series, image_types: Sequence[str] = (), sop_class_uids: Sequence[str] = ()
) -> tuple[KindRule, ...]:
    """Return the rules that `series` meets, but for those that a model asks for.

    Who names Image Type values knows what such images are: being derived, secondary, a projection
    or reformatted is then what was asked for. Another kind must be named itself, as LOCALIZER, or
    by its SOP class.
    """
    return tuple(
        rule
        for rule in KIND_RULES
        if not _is_asked_for(rule, set(image_types), set(sop_class_uids)) and _is_met(rule, series)
    )


def _is_asked_for(rule: KindRule, image_types: set[str], sop_class_uids: set[str]) -> bool:
    by_image_type = rule.kind in _ASKED_FOR_BY_IMAGE_TYPE or image_types & rule.image_types
    return bool((image_types and by_image_type) or sop_class_uids & rule.sop_class_uids)


def image_type_of(instance: Instance) -> tuple[str, ...]:
    """Return Image Type (0008,0008) in upper case."""
    value = instance.headers.get("ImageType")
    values = value if isinstance(value, (list, tuple)) else filter(None, [value])
    return tuple(str(v).strip().upper() for v in values)


def _is_met(rule: KindRule, series: Series) -> bool:
    if rule.modalities and series.modality not in rule.modalities:
        return False
    if series.instances and all(_is_of(rule, instance) for instance in series.instances):
        return True
    own = _texts(series, "SeriesDescription")
    of_study = _texts(series, "StudyDescription", "ProtocolName", "BodyPartExamined")
    return _matches(rule.description, own) or _matches(rule.study_description, of_study)


def _is_of(rule: KindRule, instance: Instance) -> bool:
    return (
        instance.sop_class_uid in rule.sop_class_uids
        or not rule.image_types.isdisjoint(image_type_of(instance))
        or any(
            str(instance.headers.get(keyword, "")).upper() == value
            for keyword, value in rule.headers
        )
    )


def _texts(series: Series, *keywords: str) -> list[str]:
    return [str(value) for keyword in keywords for value in series.values_of(keyword)]


def _matches(pattern: str, texts: Sequence[str]) -> bool:
    return bool(pattern) and any(re.search(pattern, text, re.IGNORECASE) for text in texts)
