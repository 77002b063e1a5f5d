"""The report as a PDF, which every archive and every desk can open (DICOM PS3.3 A.45.1)."""

from __future__ import annotations

from collections.abc import Iterable

from highdicom.base import SOPClass
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from triage.core.codes import Code
from triage.core.findings import Finding
from triage.core.priority import Priority
from triage.results.context import (
    MANUFACTURER,
    PRIMARY_USE_WARNING,
    ResultContext,
    coded,
    stamp,
)
from triage.results.drawing import colours_of, drawn
from triage.results.key_images import KeyImage, key_images
from triage.results.pdf_pages import Pages, Picture, Row, Statement

_MOST_PICTURES = 4
_IMAGING_REPORT = Code(value="18748-4", scheme="LN", meaning="Diagnostic imaging report")
"""DICOM PS3.16 CID 7020."""


def build_pdf(context: ResultContext) -> Dataset:
    """Return the Encapsulated PDF: one or two pages, of negative results too.

    It names the patient and the study as the images do, so that it has burned-in annotation.
    """
    reference = context.reference
    dataset = SOPClass(
        study_instance_uid=context.study_instance_uid,
        series_instance_uid=context.series_uid("pdf"),
        series_number=context.series_number("pdf"),
        sop_instance_uid=context.instance_uid("pdf"),
        sop_class_uid=EncapsulatedPDFStorage,
        instance_number=1,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        patient_id=reference.PatientID,
        patient_name=reference.PatientName,
        patient_birth_date=reference.PatientBirthDate,
        patient_sex=reference.PatientSex,
        accession_number=reference.AccessionNumber,
        study_id=reference.StudyID,
        study_date=reference.StudyDate,
        study_time=reference.StudyTime,
        referring_physician_name=reference.ReferringPhysicianName,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=context.manifest.name,
        software_versions=context.software_versions,  # type: ignore[arg-type]  # any number
        device_serial_number=context.device_uid,
        specific_character_set=reference.get("SpecificCharacterSet"),
        series_description=context.series_description("pdf"),
    )
    dataset.copy_patient_and_study_information(reference)
    dataset.ConversionType = "WSD"
    dataset.BurnedInAnnotation = "YES"
    dataset.AcquisitionDateTime = None
    dataset.DocumentTitle = context.series_description("pdf")
    dataset.ConceptNameCodeSequence = [coded(_IMAGING_REPORT)]
    dataset.SourceInstanceSequence = [_reference_to(source) for source in context.sources]
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document = pages_of(context).render()
    dataset.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    dataset.EncapsulatedDocumentLength = len(document)
    stamp(dataset, context.local_time)
    return dataset


def _reference_to(source: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return reference


def pages_of(context: ResultContext) -> Pages:
    """Return what stands on the pages."""
    reference = context.reference
    present = len(context.present_by_urgency)
    colours = colours_of(context)
    others = [f for f in context.analysis.findings if not f.present]
    return Pages(
        title=context.manifest.title,
        warning=PRIMARY_USE_WARNING,
        notice=context.notice if context.notice != PRIMARY_USE_WARNING else "",
        outcome=f"{present} finding{'s' if present > 1 else ''}" if present else "Nothing found",
        patient=[
            Row("Patient", person_name(reference.PatientName)),
            Row("Patient ID", reference.PatientID),
            Row("Birth date", _date(reference.PatientBirthDate)),
            Row("Sex", reference.PatientSex),
        ],
        study=[
            Row("Study", reference.get("StudyDescription")),
            Row("Study date", f"{_date(reference.StudyDate)} {_time(reference.StudyTime)}"),
            Row("Accession", reference.AccessionNumber),
            Row("Referring", person_name(reference.ReferringPhysicianName)),
        ],
        statements=[_statement(f, context) for f in (*context.present_by_urgency, *others)],
        pictures=[
            Picture(drawn(context, image.findings, colours, image.index), _caption(image))
            for image in key_images(context)[:_MOST_PICTURES]
        ],
        origin=[
            Row("Model", context.manifest.identity),
            Row("Intended use", context.manifest.intended_use),
            Row("Images", _images(context)),
            Row("Remarks", "; ".join(context.analysis.remarks)),
            Row("Software", context.software_versions[-1]),
            Row("Produced", f"{context.local_time:%Y-%m-%d %H:%M}"),
            Row("Study UID", context.study_instance_uid),
        ],
    )


def _statement(finding: Finding, context: ResultContext) -> Statement:
    specs = {spec.key: spec for spec in context.manifest.findings}
    has_confidence = finding.present and specs[finding.key].measurement is None
    asks = finding.present and finding.priority > Priority.ROUTINE
    return Statement(
        finding=finding.code.meaning,
        is_present=finding.present,
        confidence=f"{finding.confidence:.2f}" if has_confidence else "",
        measurements=", ".join(
            f"{m.concept.meaning} {m.value:.3g} {m.unit.value}" for m in finding.measurements
        ),
        site=finding.site.meaning if finding.site else "",
        priority=finding.priority.label if asks else "",
    )


def _caption(image: KeyImage) -> str:
    number = image.source.get("InstanceNumber")
    place = f"frame {image.frame}" if image.frame is not None else f"image {number or '?'}"
    series = image.source.get("SeriesNumber")
    return "; ".join(
        [f"Series {series}, {place}" if series else place.capitalize()]
        + [finding.in_words() for finding in image.findings]
    )


def _images(context: ResultContext) -> str:
    reference = context.reference
    count = context.expected_shape[0]
    kind = "frame" if context.is_multi_frame else "image"
    said = [
        f"{reference.get('Modality') or ''} series {reference.get('SeriesNumber') or ''}".strip(),
        str(reference.get("SeriesDescription") or ""),
        f"{count} {kind}{'s' if count > 1 else ''}",
    ]
    further = [f"{name}: {len(files)}" for name, files in context.analysis.further_files.items()]
    return ", ".join(filter(None, [*said, *further]))


def person_name(value: object) -> str:
    """Return a Person Name (DICOM PS3.5 6.2.1) as it is read, all its component groups.

    >>> person_name("Yamada^Tarou=\\u5c71\\u7530^\\u592a\\u90ce")
    'Yamada, Tarou / \\u5c71\\u7530, \\u592a\\u90ce'
    """
    groups: Iterable[str] = str(value or "").split("=")
    said = [", ".join(filter(None, map(str.strip, group.split("^")))) for group in groups]
    return " / ".join(filter(None, said))


def _date(value: object) -> str:
    digits = str(value or "").replace(".", "")
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}" if len(digits) == 8 else digits


def _time(value: object) -> str:
    digits = str(value or "")
    return f"{digits[:2]}:{digits[2:4]}" if len(digits) >= 4 else ""
