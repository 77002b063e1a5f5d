"""A labelled set: what each study or image shows, by whom, and where it was made."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from triage.core.manifest import FindingSpec, ModelManifest
from triage.core.studies import Study
from triage.models.evaluation import (
    LABEL_COLUMNS,
    EvaluationError,
    LabelledImage,
    parse_labels,
)

IDENTIFIERS = ("study_instance_uid", "study", "image")
GROUPS = ("site", "scanner", "slice_thickness")
_TRUTH = {"0": False, "1": True, "": None}
_THICKNESS_MM = (1.5, 3.0, 5.0)


@dataclass(frozen=True, slots=True)
class LabelledCase:
    """One row: a study or an image, and for each finding whether it is there.

    Attributes:
        identifier: Study Instance UID, name of a folder, or name of an image file.
        patient_id: whose it is; without a column the identifier, as if each were another's.
        labels: by finding key; a finding that nobody looked for is left out.
        groups: "site", "scanner" and "slice_thickness", where they are known.
    """

    identifier: str
    patient_id: str
    labels: Mapping[str, bool]
    groups: Mapping[str, str] = field(default_factory=dict)


def parse_cases(lines: Iterable[str], manifest: ModelManifest) -> tuple[LabelledCase, ...]:
    """Parse the lines of a table of labels.

    Columns: study_instance_uid, study or image; one for each finding, named as its key, with 0, 1
    or nothing where it is not known; and, if you like, patient_id, site, scanner and
    slice_thickness (mm). A table in the form of NIH ChestX-ray14 does as well.

    Raises:
        EvaluationError: names the line and the column that is wrong.
    """
    rows = list(lines)
    reader = csv.DictReader(rows)
    columns = set(reader.fieldnames or ())
    if any(name in columns for name in LABEL_COLUMNS[1]):
        return _of_finding_lists(parse_labels(rows), manifest)
    identifier = next((name for name in IDENTIFIERS if name in columns), None)
    if identifier is None:
        raise EvaluationError(f"The labels have no column {' or '.join(IDENTIFIERS)}; add one.")
    keys = {spec.key: _column_of(spec, columns) for spec in manifest.findings}
    used = {key: column for key, column in keys.items() if column is not None}
    if not used:
        raise EvaluationError(
            f"The labels have no column for a finding; add one of {', '.join(keys)} with 0 and 1."
        )
    cases = tuple(
        _case(row, number, identifier, used) for number, row in enumerate(reader, start=2)
    )
    if len({case.identifier for case in cases}) < len(cases):
        raise EvaluationError(f"Two rows of the labels have the same {identifier}; leave one.")
    return cases


def _column_of(spec: FindingSpec, columns: Iterable[str]) -> str | None:
    names = {name.lower() for name in (spec.key, *spec.labels)}
    return next((column for column in columns if column.lower() in names), None)


def _case(
    row: Mapping[str, str], number: int, identifier: str, used: Mapping[str, str]
) -> LabelledCase:
    if not row[identifier]:
        raise EvaluationError(f"Line {number} of the labels: {identifier} is empty.")
    labels = {}
    for key, column in used.items():
        value = (row[column] or "").strip()
        if value not in _TRUTH:
            raise EvaluationError(
                f"Line {number} of the labels: {column} is {value!r}; write 1, 0 or nothing."
            )
        truth = _TRUTH[value]
        if truth is not None:
            labels[key] = truth
    groups = {name: row[name].strip() for name in ("site", "scanner") if row.get(name)}
    if row.get("slice_thickness"):
        groups["slice_thickness"] = _thickness(row["slice_thickness"], f"Line {number}")
    return LabelledCase(row[identifier], row.get("patient_id") or row[identifier], labels, groups)


def _thickness(value: str, where: str) -> str:
    try:
        return thickness_in_words(float(value))
    except ValueError:
        raise EvaluationError(
            f"{where} of the labels: slice_thickness is {value!r}; write a number of mm."
        ) from None


def thickness_in_words(thickness_mm: float) -> str:
    """Return the range that a slice thickness falls into.

    >>> [thickness_in_words(t) for t in (1.0, 3.0, 7.5)]
    ['up to 1.5 mm', '1.5 to 3 mm', 'above 5 mm']
    """
    low: float | None = None
    for high in _THICKNESS_MM:
        if thickness_mm <= high:
            return f"up to {high:g} mm" if low is None else f"{low:g} to {high:g} mm"
        low = high
    return f"above {low:g} mm"


def _of_finding_lists(
    images: Sequence[LabelledImage], manifest: ModelManifest
) -> tuple[LabelledCase, ...]:
    positives = positives_of(manifest, images)
    return tuple(
        LabelledCase(
            image.image,
            image.patient_id,
            {key: not image.findings.isdisjoint(names) for key, names in positives.items()},
        )
        for image in images
    )


def positives_of(
    manifest: ModelManifest, labels: Iterable[LabelledImage]
) -> dict[str, tuple[str, ...]]:
    """Return for each finding the labels of the table that make an image positive.

    Raises:
        EvaluationError: the table has no label for any finding.
    """
    known = {name.lower(): name for row in labels for name in row.findings}
    found: dict[str, tuple[str, ...]] = {}
    for finding in manifest.findings:
        names = finding.labels or (finding.key,)
        matching = tuple(known[n.lower()] for n in names if n.lower() in known)
        if matching:
            found[finding.key] = matching
    if not found:
        raise EvaluationError(
            "No finding of the manifest has a label in the table; name them under "
            f"findings.labels. The table has {', '.join(sorted(known.values())) or 'none'}."
        )
    return found


def with_groups_of(case: LabelledCase, study: Study) -> LabelledCase:
    """Return the case with what the images say of site, scanner and slice thickness.

    What the table says goes before it.
    """
    said: dict[str, str] = {}
    for series in study.series:
        for instance in series.instances:
            headers = instance.headers
            if headers.get("InstitutionName"):
                said.setdefault("site", str(headers["InstitutionName"]))
            names = (headers.get("Manufacturer"), headers.get("ManufacturerModelName"))
            scanner = " ".join(str(name) for name in names if name)
            if scanner:
                said.setdefault("scanner", scanner)
            thickness = headers.get("SliceThickness")
            if isinstance(thickness, (int, float)):
                said.setdefault("slice_thickness", thickness_in_words(float(thickness)))
    return replace(case, groups={**said, **case.groups})
