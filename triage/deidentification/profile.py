"""The Basic Application Confidentiality Profile, with options (DICOM PS3.15 E.2 and E.3)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from triage.deidentification.pseudonyms import DeidentificationError, Pseudonyms
from triage.deidentification.table import PATIENT_CHARACTERISTICS, Action, action_for
from triage.settings import Retained

REMOVED = "REMOVED"

_TEXT = {"AE", "LO", "LT", "SH", "ST", "UC", "UR", "UT"}
_DUMMIES: dict[str, Any] = {
    **dict.fromkeys(_TEXT | {"CS", "PN"}, REMOVED),
    "AS": "000Y",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "UR": "urn:removed",
    **dict.fromkeys(("DS", "IS"), "0"),
    **dict.fromkeys(("FL", "FD", "SL", "SS", "UL", "US", "SV", "UV"), 0),
    **dict.fromkeys(("OB", "OW", "UN"), b"\x00\x00"),
}
_STANDARD_UIDS = "1.2.840.10008."
_NOT_INSTANCES = {
    "CodingSchemeUID",
    "ContextUID",
    "ImplementationClassUID",
    "MappingResourceUID",
    "TransferSyntaxUID",
}
_DOCUMENTS = "1.2.840.10008.5.1.4.1.1.104."
_CODES = {
    "basic": ("113100", "Basic Application Confidentiality Profile"),
    "content": ("113104", "Clean Structured Content Option"),
    "descriptors": ("113105", "Clean Descriptors Option"),
    "modified-dates": (
        "113107",
        "Retain Longitudinal Temporal Information Modified Dates Option",
    ),
    "patient-characteristics": ("113108", "Retain Patient Characteristics Option"),
    "uids": ("113110", "Retain UIDs Option"),
}
"""The methods as PS3.16 CID 7050 codes them."""

_SAFE_TEXTS = {
    ("111001", "DCM"),  # Algorithm Name
    ("111002", "DCM"),  # Algorithm Parameters
    ("111003", "DCM"),  # Algorithm Version
    ("112039", "DCM"),  # Tracking Identifier
    ("121013", "DCM"),  # Device Observer Name
    ("121014", "DCM"),  # Device Observer Manufacturer
    ("121015", "DCM"),  # Device Observer Model Name
}
_SHORTEST_WORD = 3
_OLDEST_AGE = 89  # an older one singles people out
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Method:
    """How objects leave: whose pseudonyms they get, and what is kept.

    `is_own` says that the words in the object are Triage's own, made of codes: they are kept where
    no name or number of the patient is in them. Words of anybody else are removed.
    """

    pseudonyms: Pseudonyms
    retain: frozenset[Retained] = frozenset()
    is_own: bool = False


def deidentify(dataset: Dataset, method: Method) -> None:
    """Take out of `dataset` whatever says who the patient is.

    Raises:
        DeidentificationError: it cannot be taken out, because it may be in pixels or a document.
    """
    _refuse_pictures_of_text(dataset)
    patient_id, issuer = _patient_of(dataset)
    work = _Work(
        method=method,
        words=_identifying_words(dataset),
        shift=method.pseudonyms.shift(patient_id, issuer),
    )
    has_content = "ContentSequence" in dataset
    pseudonym = method.pseudonyms.patient_id(patient_id, issuer)
    work.clean(dataset)
    dataset.PatientID = pseudonym
    dataset.PatientName = pseudonym
    _state_method(dataset, method, has_content=has_content)
    _renew_file_meta(dataset)


def _refuse_pictures_of_text(dataset: Dataset) -> None:
    if str(dataset.get("SOPClassUID", "")).startswith(_DOCUMENTS):
        raise DeidentificationError("a document may say who the patient is anywhere in it")
    if str(dataset.get("BurnedInAnnotation", "")).upper() == "YES":
        raise DeidentificationError(
            "its pixels have text burnt in (0028,0301), which may say who the patient is"
        )


def _patient_of(dataset: Dataset) -> tuple[str, str]:
    """Return Patient ID and issuer; without an ID the study is the only bond between images."""
    patient_id = str(dataset.get("PatientID") or "").strip()
    if not patient_id:
        return str(dataset.get("StudyInstanceUID", "")), ""
    return patient_id, str(dataset.get("IssuerOfPatientID") or "").strip()


@dataclass
class _Work:
    """One object while it is cleaned."""

    method: Method
    words: frozenset[str]
    shift: timedelta
    _characteristics: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        retained = "patient-characteristics" in self.method.retain
        self._characteristics = PATIENT_CHARACTERISTICS if retained else frozenset()

    def clean(self, dataset: Dataset) -> None:
        """Clean all elements of `dataset`, and of its sequences."""
        self._clean_text_item(dataset)
        for element in list(dataset):
            self._clean_element(dataset, element)

    def _clean_element(self, dataset: Dataset, element: DataElement) -> None:
        action = self._action(element)
        if element.keyword in self._characteristics:
            self._cap_age(element)
        elif action is Action.REMOVE:
            del dataset[element.tag]
        elif element.VR == "SQ":
            self._clean_sequence(element, action)
        elif element.VR == "UI":
            self._replace_uids(element)
        elif action is Action.EMPTY:
            element.value = self._shifted(element) or ""
        elif action is Action.DUMMY:
            self._replace(element)
        elif element.VR in _TEXT and not dataset.get("CodingSchemeDesignator"):
            self._drop_identifying(element)

    def _action(self, element: DataElement) -> Action | None:
        action = action_for(element.tag)
        if self._keeps_own_words(element):
            return None
        if action is None and element.VR == "UN":
            return Action.REMOVE
        if action is None and element.VR in ("PN", "DA", "DT"):
            return Action.DUMMY
        is_date = element.VR in ("DA", "DT", "TM")
        if is_date and action is not None and "modified-dates" in self.method.retain:
            return Action.EMPTY if element.keyword == "PatientBirthDate" else Action.DUMMY
        return action

    def _keeps_own_words(self, element: DataElement) -> bool:
        if element.keyword == "GraphicAnnotationSequence":
            return self.method.is_own
        is_description = element.keyword == "SeriesDescription"
        return is_description and self.method.is_own and "descriptors" in self.method.retain

    def _clean_sequence(self, element: DataElement, action: Action | None) -> None:
        if action is Action.EMPTY:
            element.value = Sequence()
            return
        for item in element.value:
            if action is Action.DUMMY:
                for inner in list(item):
                    self._make_dummy(item, inner)
            else:
                self.clean(item)

    def _make_dummy(self, item: Dataset, element: DataElement) -> None:
        if element.tag.is_private:
            del item[element.tag]
        elif element.VR == "SQ":
            self._clean_sequence(element, Action.DUMMY)
        elif element.VR == "UI":
            self._replace_uids(element)
        elif element.keyword != "CodingSchemeDesignator":
            self._replace(element)
        else:
            element.value = "99REMOVED"

    def _replace_uids(self, element: DataElement) -> None:
        if "uids" in self.method.retain or not element.value:
            return
        if element.keyword in _NOT_INSTANCES or element.keyword.endswith("SOPClassUID"):
            return
        replaced = [
            uid if uid.startswith(_STANDARD_UIDS) else self.method.pseudonyms.uid(uid)
            for uid in _values(element)
        ]
        element.value = replaced if len(replaced) > 1 else replaced[0]

    def _replace(self, element: DataElement) -> None:
        if not element.is_empty:
            element.value = self._shifted(element) or _DUMMIES[element.VR]

    def _shifted(self, element: DataElement) -> list[str] | str | None:
        """Return the date moved, the time as it is, or None where they are not retained."""
        if "modified-dates" not in self.method.retain or element.keyword == "PatientBirthDate":
            return None
        if element.VR not in ("DA", "DT", "TM") or element.is_empty:
            return None
        moved = [self._moved(value) if element.VR != "TM" else value for value in _values(element)]
        if None in moved:
            return None
        return [str(value) for value in moved] if len(moved) > 1 else str(moved[0])

    def _moved(self, value: str) -> str | None:
        try:
            moved = date(int(value[:4]), int(value[4:6]), int(value[6:8])) + self.shift
        except (ValueError, OverflowError):
            return None
        return f"{moved:%Y%m%d}{value[8:]}"

    def _cap_age(self, element: DataElement) -> None:
        value = str(element.value)
        if element.keyword == "PatientAge" and re.fullmatch(r"\d{3}Y", value):
            element.value = value if int(value[:3]) <= _OLDEST_AGE else f"{_OLDEST_AGE + 1:03}Y"

    def _drop_identifying(self, element: DataElement) -> None:
        if any(self._identifies(str(value)) for value in _values(element)):
            element.value = REMOVED

    def _identifies(self, text: str) -> bool:
        return not self.words.isdisjoint(_words_of(text))

    def _clean_text_item(self, item: Dataset) -> None:
        """Take free text out of a content item (PS3.3 C.17.3), unless the words are our own."""
        if "TextValue" not in item or self.method.is_own:
            return
        name = (item.get("ConceptNameCodeSequence") or [Dataset()])[0]
        if (name.get("CodeValue"), name.get("CodingSchemeDesignator")) not in _SAFE_TEXTS:
            item.TextValue = REMOVED


def _values(element: DataElement) -> list[str]:
    value = element.value
    return [str(each) for each in (value if isinstance(value, (MultiValue, list)) else [value])]


def _identifying_words(dataset: Dataset) -> frozenset[str]:
    """Return the words of all names and numbers in `dataset` that name a person or a visit."""
    found: set[str] = set()
    for element in _elements(dataset):
        if element.VR == "PN" or element.keyword in _IDENTIFIERS:
            for value in _values(element):
                found.update(_words_of(value))
                found.add(value.strip().casefold())
    return frozenset(word for word in found if len(word) >= _SHORTEST_WORD)


_IDENTIFIERS = {
    "AccessionNumber",
    "AdmissionID",
    "FillerOrderNumberImagingServiceRequest",
    "OtherPatientIDs",
    "PatientBirthDate",
    "PatientID",
    "PlacerOrderNumberImagingServiceRequest",
    "RequestedProcedureID",
    "ScheduledProcedureStepID",
    "StudyID",
}


def _elements(dataset: Dataset) -> Iterator[DataElement]:
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item)


def _words_of(text: str) -> set[str]:
    folded = text.casefold()
    return {folded.strip(), *_WORD.findall(folded), *folded.split()}


def _state_method(dataset: Dataset, method: Method, *, has_content: bool) -> None:
    names = ["basic", *(["content"] if has_content else []), *sorted(method.retain)]
    if "descriptors" in names and not method.is_own:
        names.remove("descriptors")  # nothing of it was kept
    items = []
    for value, meaning in (_CODES[name] for name in names):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
        items.append(item)
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = [_CODES[name][1][:64] for name in names]
    dataset.DeidentificationMethodCodeSequence = Sequence(items)
    is_modified = "modified-dates" in method.retain
    dataset.LongitudinalTemporalInformationModified = "MODIFIED" if is_modified else "REMOVED"


def _renew_file_meta(dataset: Dataset) -> None:
    """Keep of the file's own header what says how to read it: the rest names its sender."""
    before = dataset.file_meta
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = before.TransferSyntaxUID
    dataset.preamble = bytes(128)
