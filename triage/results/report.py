"""Structured reports: what a model said, as a TID 1500 Measurement Report (DICOM PS3.16)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    ComprehensiveSR,
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegment,
    ReferencedSegmentationFrame,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    SourceImageForSegmentation,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from triage.core.codes import Code
from triage.core.findings import Box, Finding
from triage.core.priority import Priority
from triage.results.context import (
    ARTIFICIAL_INTELLIGENCE,
    MANUFACTURER,
    OutlinedFinding,
    ResultContext,
    coded,
    stamp,
)
from triage.results.observers import device_observer

# DICOM PS3.16 CID 240
PRESENT = Code(value="52101004", scheme="SCT", meaning="Present")
ABSENT = Code(value="272519000", scheme="SCT", meaning="Absent")

CERTAINTY_OF_FINDING = Code(value="111012", scheme="DCM", meaning="Certainty of Finding")
"""Asked in percent by DICOM PS3.16 CID 6048."""

PERCENT = Code(value="%", scheme="UCUM", meaning="percent")
PRIORITY = Code(value="260870009", scheme="SCT", meaning="Priority")

_PRIORITY_VALUES = {
    Priority.STAT: Code(value="25876001", scheme="SCT", meaning="Emergency"),
    Priority.HIGH: Code(value="103391001", scheme="SCT", meaning="Urgency"),
}
"""What raises a study, as CID 3414 codes it. A finding that asks for no more than the usual place
says nothing: the AI moves up and never down."""

_PROCEDURES = {  # DICOM PS3.16 CID 100
    "CT": Code(value="25045-6", scheme="LN", meaning="CT unspecified body region"),
    "MR": Code(value="25056-3", scheme="LN", meaning="MRI unspecified body region"),
    "NM": Code(value="49118-3", scheme="LN", meaning="NM unspecified body region"),
    "PT": Code(value="44136-0", scheme="LN", meaning="PET unspecified body region"),
    "CR": Code(value="43468-8", scheme="LN", meaning="XR unspecified body region"),
    "DX": Code(value="43468-8", scheme="LN", meaning="XR unspecified body region"),
    "RG": Code(value="43468-8", scheme="LN", meaning="XR unspecified body region"),
}
_ANY_PROCEDURE = Code(value="363679005", scheme="SCT", meaning="Imaging procedure")

_Group = (
    MeasurementsAndQualitativeEvaluations
    | PlanarROIMeasurementsAndQualitativeEvaluations
    | VolumetricROIMeasurementsAndQualitativeEvaluations
)


def build_report(context: ResultContext, segmentation: Dataset | None) -> Dataset:
    """Return the SR of all findings, present and absent (DICOM PS3.3 A.35.13, or A.35.3).

    An outlined finding is a TID 1411 group that refers to its segment, or of a single image a
    TID 1410 group that refers to its frame of the SEG; each box of a detected one is a TID 1410
    group with its rectangle on an image; every other finding is a TID 1501 group about the images.
    The report is complete but neither verified nor final: no person has seen it (Completion,
    Verification and Preliminary Flag, C.17.2.6). The images of all inputs are its evidence, those
    of another study (a prior) as other pertinent evidence.
    """
    made = [segmentation] if segmentation is not None else []
    kind = Comprehensive3DSR if context.settings.report_type == "3d" else ComprehensiveSR
    dataset = kind(
        evidence=[*context.sources, *made, *context.further],
        content=_content(context, segmentation),
        series_instance_uid=context.series_uid("sr"),
        series_number=context.series_number("sr"),
        sop_instance_uid=context.instance_uid("sr"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=context.manifest.name,
        software_versions=context.software_versions,
        device_serial_number=context.device_uid,
        is_complete=True,
        is_verified=False,
        is_final=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=context.series_description("sr"),
        previous_versions=context.previous_reports or None,
    )
    stamp(dataset, context.local_time)
    return dataset


def _content(context: ResultContext, segmentation: Dataset | None) -> MeasurementReport:
    report = MeasurementReport(
        observation_context=_observation_context(context),
        procedure_reported=procedures_reported(context.reference),
        imaging_measurements=_groups(context, segmentation),
        title=codes.DCM.ImagingMeasurementReport,
    )
    # TID 1500 is extensible. The two texts are for the person who opens the report: what is said,
    # and what it may be used for.
    said = "; ".join(finding.in_words() for finding in context.analysis.findings)
    for name, text in ((codes.DCM.Summary, said), (codes.DCM.Comment, context.notice)):
        item = TextContentItem(
            name=name, value=text, relationship_type=RelationshipTypeValues.CONTAINS
        )
        report[0].ContentSequence.append(item)
    return report


def _observation_context(context: ResultContext) -> ObservationContext:
    return ObservationContext(observer_device_context=device_observer(context))


def procedures_reported(reference: Dataset) -> list[CodedConcept]:
    """Return the procedures that the images state, or that of their modality (CID 100)."""
    stated = [
        CodedConcept(
            value=item.CodeValue,
            scheme_designator=item.CodingSchemeDesignator,
            meaning=item.CodeMeaning,
        )
        for item in reference.get("ProcedureCodeSequence", ())
        if all(item.get(k) for k in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"))
    ]
    return stated or [coded(_PROCEDURES.get(str(reference.get("Modality")), _ANY_PROCEDURE))]


def _groups(context: ResultContext, segmentation: Dataset | None) -> list[_Group]:
    outlined = {each.finding.key: each for each in context.outlined_findings}
    groups: list[_Group] = []
    for finding in context.analysis.findings:
        if segmentation is not None and finding.key in outlined:
            groups.append(_outlined_group(context, outlined[finding.key], segmentation))
        elif boxes := _boxes_on_sources(context, finding):
            groups += [_box_group(context, finding, n, *each) for n, each in enumerate(boxes, 1)]
        else:
            groups.append(_whole_image_group(context, finding))
    return groups


def _boxes_on_sources(context: ResultContext, finding: Finding) -> list[tuple[Box, Dataset]]:
    by_uid = {str(source.SOPInstanceUID): source for source in context.sources}
    return [
        (box, by_uid[box.sop_instance_uid])
        for box in finding.boxes
        if finding.present and box.sop_instance_uid in by_uid
    ]


def _box_group(
    context: ResultContext, finding: Finding, number: int, box: Box, source: Dataset
) -> _Group:
    """Return the TID 1410 group of one box: a closed polyline on its image (PS3.3 C.18.6)."""
    corners = [
        (box.left, box.top),
        (box.right, box.top),
        (box.right, box.bottom),
        (box.left, box.bottom),
        (box.left, box.top),
    ]
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=context.uid("tracking", finding.key, str(number)),
            identifier=f"{context.tracking_identifier(finding)} {number}",
        ),
        referenced_region=ImageRegion(
            graphic_type=GraphicTypeValues.POLYLINE,
            graphic_data=np.array(corners),
            source_image=SourceImageForRegion(
                referenced_sop_class_uid=source.SOPClassUID,
                referenced_sop_instance_uid=source.SOPInstanceUID,
                referenced_frame_numbers=None if box.frame is None else [box.frame],
            ),
        ),
        finding_type=coded(finding.code),
        finding_sites=_sites(finding),
        algorithm_id=_algorithm(context),
        measurements=[_certainty(box.score)],
        qualitative_evaluations=_evaluations(finding),
    )


def _outlined_group(
    context: ResultContext, outlined: OutlinedFinding, segmentation: Dataset
) -> _Group:
    """Return the TID 1411 group of a finding that the SEG outlines.

    The reference is made by hand: `ReferencedSegment.from_segmentation` fails for a SEG of one
    segment, whose Segment Identification is shared by all frames (highdicom 0.28.2).
    """
    if context.expected_shape[0] == 1:
        return _planar_group(context, outlined, segmentation)
    finding = outlined.finding
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=outlined.segment_number,
            source_series=SourceSeriesForSegmentation(context.reference.SeriesInstanceUID),
        ),
        tracking_identifier=_tracking(context, finding),
        finding_type=coded(finding.code),
        finding_sites=_sites(finding),
        algorithm_id=_algorithm(context),
        measurements=_measurements(context, finding),
        qualitative_evaluations=_evaluations(finding),
    )


def _planar_group(
    context: ResultContext, outlined: OutlinedFinding, segmentation: Dataset
) -> _Group:
    """Return the TID 1410 group of a finding outlined on the only image: an area is no volume."""
    finding = outlined.finding
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=_segmentation_frame(context, outlined, segmentation),
        tracking_identifier=_tracking(context, finding),
        finding_type=coded(finding.code),
        finding_sites=_sites(finding),
        algorithm_id=_algorithm(context),
        measurements=_measurements(context, finding),
        qualitative_evaluations=_evaluations(finding),
    )


def _segmentation_frame(
    context: ResultContext, outlined: OutlinedFinding, segmentation: Dataset
) -> ReferencedSegmentationFrame:
    """Return the reference to where `outlined` is in the SEG of one image, and to that image.

    By frame or by segment, never by both as highdicom writes it (PS3.3 C.18.4.1): each segment of
    a BINARY has a frame, and all segments of a LABELMAP share one.
    """
    number = outlined.segment_number
    frame = _frame_of_segment(segmentation, number)
    reference = ReferencedSegmentationFrame(
        sop_class_uid=segmentation.SOPClassUID,
        sop_instance_uid=segmentation.SOPInstanceUID,
        frame_number=frame or 1,
        segment_number=number,
        source_image=SourceImageForSegmentation(
            referenced_sop_class_uid=context.reference.SOPClassUID,
            referenced_sop_instance_uid=context.reference.SOPInstanceUID,
            referenced_frame_numbers=list(context.frames) or None,
        ),
    )
    image = reference[0].ReferencedSOPSequence[0]
    del image["ReferencedFrameNumber" if frame is None else "ReferencedSegmentNumber"]
    return reference


def _frame_of_segment(segmentation: Dataset, number: int) -> int | None:
    """Return the frame of a segment in the SEG of one image, None in a LABELMAP."""
    for frame, groups in enumerate(segmentation.PerFrameFunctionalGroupsSequence, start=1):
        identified = groups.get("SegmentIdentificationSequence")
        if identified and identified[0].ReferencedSegmentNumber == number:
            return frame
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    return 1 if shared.get("SegmentIdentificationSequence") else None


def _whole_image_group(context: ResultContext, finding: Finding) -> _Group:
    """Return the TID 1501 group of a finding without an outline, or of one that is absent.

    Of an absent finding the group has no Finding (121071, DCM), which a reader that knows no
    Presence would take for a positive one, but only "… = Absent". Nor has it a certainty: the
    model's confidence that it is there would read as that of its being absent.
    """
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(context, finding),
        finding_type=coded(finding.code) if finding.present else None,
        finding_sites=_sites(finding),
        algorithm_id=_algorithm(context),
        measurements=_measurements(context, finding),
        qualitative_evaluations=_evaluations(finding),
        source_images=_key_images(context, finding),
    )


def _tracking(context: ResultContext, finding: Finding) -> TrackingIdentifier:
    return TrackingIdentifier(
        uid=context.tracking_uid(finding), identifier=context.tracking_identifier(finding)
    )


def _sites(finding: Finding) -> list[FindingSite] | None:
    return [FindingSite(anatomic_location=coded(finding.site))] if finding.site else None


def _algorithm(context: ResultContext) -> AlgorithmIdentification:
    """Return the algorithm identification of TID 4019."""
    return AlgorithmIdentification(
        name=context.manifest.name,
        version=context.manifest.version,
        family=coded(ARTIFICIAL_INTELLIGENCE),
    )


def _measurements(context: ResultContext, finding: Finding) -> list[Measurement] | None:
    """Return the numbers of a finding, and the certainty of one that is present.

    What was measured is said whether it is abnormal or not, and has no certainty: a range decided.
    """
    numbers = [
        Measurement(name=coded(m.concept), value=m.value, unit=coded(m.unit))
        for m in finding.measurements
    ]
    specs = {spec.key: spec for spec in context.manifest.findings}
    if finding.present and specs[finding.key].measurement is None:
        numbers.append(_certainty(finding.confidence))
    return numbers or None


def _certainty(confidence: float) -> Measurement:
    return Measurement(
        name=coded(CERTAINTY_OF_FINDING),
        value=round(100 * confidence, 2),
        unit=coded(PERCENT),
    )


def _evaluations(finding: Finding) -> list[QualitativeEvaluation]:
    presence = PRESENT if finding.present else ABSENT
    evaluations = [QualitativeEvaluation(name=coded(finding.code), value=coded(presence))]
    asked = _PRIORITY_VALUES.get(finding.priority)
    if finding.present and asked is not None:
        evaluations.append(QualitativeEvaluation(name=coded(PRIORITY), value=coded(asked)))
    return evaluations


def _key_images(
    context: ResultContext, finding: Finding
) -> Sequence[SourceImageForMeasurementGroup] | None:
    """Return references to the images that show the finding, or to the only image there is."""
    if context.is_multi_frame:
        return [_key_frames(context, finding)]
    by_uid = {str(source.SOPInstanceUID): source for source in context.sources}
    shown = [by_uid[uid] for uid in finding.key_image_uids if uid in by_uid]
    if not shown and len(context.sources) == 1:
        shown = [context.reference]
    return [
        SourceImageForMeasurementGroup(
            referenced_sop_class_uid=source.SOPClassUID,
            referenced_sop_instance_uid=source.SOPInstanceUID,
        )
        for source in shown
    ] or None


def _key_frames(context: ResultContext, finding: Finding) -> SourceImageForMeasurementGroup:
    """Return a reference to the frames that show the finding, or to all that were analysed."""
    has_all = len(context.frames) == int(context.reference.get("NumberOfFrames") or 1)
    others = None if has_all else list(context.frames)
    return SourceImageForMeasurementGroup(
        referenced_sop_class_uid=context.reference.SOPClassUID,
        referenced_sop_instance_uid=context.reference.SOPInstanceUID,
        referenced_frame_numbers=list(finding.key_image_frames) or others,
    )
