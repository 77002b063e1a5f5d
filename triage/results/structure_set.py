"""RT Structure Sets: outlines in patient coordinates, for planning systems (DICOM PS3.3 A.19)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from highdicom.base import SOPClass
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from triage.core.manifest import SegmentSpec
from triage.decoding.multi_frame import frame_value
from triage.results.context import MANUFACTURER, OutlinedFinding, ResultContext, coded, stamp
from triage.results.contours import Points, keyhole, regions_of

_DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"
_SHORT_STRING, _LONG_STRING = 16, 64  # the VRs SH and LO, DICOM PS3.5 6.2


def build_structure_set(context: ResultContext) -> Dataset | None:
    """Return the structure set of the outlined findings, or None where there is none.

    One ROI for each finding, as closed planar contours on the slices of the source, in mm of its
    frame of reference; a hole is reached by a keyhole (C.8.8.6.3). Images without a place in the
    patient have no structure set. It is UNAPPROVED: no person has seen it.
    """
    outlined = context.outlined_findings
    if not outlined or "FrameOfReferenceUID" not in context.reference:
        return None
    if not all(_has_place(context, place) for place in (0, context.expected_shape[0] - 1)):
        return None
    dataset = _empty_structure_set(context)
    dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(context)]
    dataset.StructureSetROISequence = [_roi(context, each) for each in outlined]
    dataset.ROIContourSequence = [_roi_contour(context, each) for each in outlined]
    dataset.RTROIObservationsSequence = [_observation(each) for each in outlined]
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def _empty_structure_set(context: ResultContext) -> Dataset:
    source = context.reference
    dataset = SOPClass(
        study_instance_uid=source.StudyInstanceUID,
        series_instance_uid=context.series_uid("rtstruct"),
        series_number=context.series_number("rtstruct"),
        sop_instance_uid=context.instance_uid("rtstruct"),
        sop_class_uid=RTStructureSetStorage,
        instance_number=1,
        modality="RTSTRUCT",
        manufacturer=MANUFACTURER,
        manufacturer_model_name=context.manifest.name,
        software_versions=context.software_versions,  # type: ignore[arg-type]  # any number
        device_serial_number=context.device_uid,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        patient_id=source.PatientID,
        patient_name=source.PatientName,
        patient_birth_date=source.PatientBirthDate,
        patient_sex=source.PatientSex,
        accession_number=source.AccessionNumber,
        study_id=source.StudyID,
        study_date=source.StudyDate,
        study_time=source.StudyTime,
        referring_physician_name=source.ReferringPhysicianName,
        series_description=context.series_description("rtstruct"),
        specific_character_set=source.get("SpecificCharacterSet"),
    )
    dataset.copy_patient_and_study_information(source)
    moment = context.local_time
    stamp(dataset, moment)
    del dataset.ContentDate, dataset.ContentTime
    dataset.OperatorsName = None
    dataset.StructureSetLabel = f"AI {context.manifest.name}"[:_SHORT_STRING]
    dataset.StructureSetName = context.manifest.identity[:_LONG_STRING]
    dataset.StructureSetDescription = context.notice
    dataset.StructureSetDate = moment.strftime("%Y%m%d")
    dataset.StructureSetTime = moment.strftime("%H%M%S.%f")
    dataset.FrameOfReferenceUID = source.FrameOfReferenceUID
    dataset.PositionReferenceIndicator = source.get("PositionReferenceIndicator")
    return dataset


def _frame_of_reference(context: ResultContext) -> Dataset:
    source = context.reference
    series = Dataset()
    series.SeriesInstanceUID = source.SeriesInstanceUID
    places = [0] if context.is_multi_frame else range(len(context.sources))
    series.ContourImageSequence = [_image(context, place, by_frame=False) for place in places]
    study = Dataset()
    study.ReferencedSOPClassUID = _DETACHED_STUDY
    study.ReferencedSOPInstanceUID = source.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame_of_reference = Dataset()
    frame_of_reference.FrameOfReferenceUID = source.FrameOfReferenceUID
    frame_of_reference.RTReferencedStudySequence = [study]
    return frame_of_reference


def _image(context: ResultContext, place: int, *, by_frame: bool = True) -> Dataset:
    source = context.reference if context.is_multi_frame else context.sources[place]
    image = Dataset()
    image.ReferencedSOPClassUID = source.SOPClassUID
    image.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if context.is_multi_frame and by_frame:
        image.ReferencedFrameNumber = context.frames[place]
    return image


def _roi(context: ResultContext, outlined: OutlinedFinding) -> Dataset:
    roi = Dataset()
    roi.ROINumber = outlined.segment_number
    roi.ReferencedFrameOfReferenceUID = context.reference.FrameOfReferenceUID
    roi.ROIName = f"AI {outlined.finding.code.meaning}"[:_LONG_STRING]
    roi.ROIDescription = outlined.finding.in_words()
    roi.ROIGenerationAlgorithm = "AUTOMATIC"
    roi.ROIGenerationDescription = context.manifest.identity[:_LONG_STRING]
    return roi


def _roi_contour(context: ResultContext, outlined: OutlinedFinding) -> Dataset:
    contours = [
        _contour(context, place, points) for place, points in _planar_outlines(context, outlined)
    ]
    for number, contour in enumerate(contours, start=1):
        contour.ContourNumber = number
    drawn = Dataset()
    drawn.ReferencedROINumber = outlined.segment_number
    drawn.ROIDisplayColor = list(_segment(outlined).recommended_display_rgb)
    drawn.ContourSequence = contours
    return drawn


def _planar_outlines(
    context: ResultContext, outlined: OutlinedFinding
) -> Iterator[tuple[int, Points]]:
    """Yield each outline with the place of its slice, in pixels from the middle of the first."""
    mask = context.mask_of(outlined)
    for place in np.flatnonzero(mask.any(axis=(1, 2))):
        for region in regions_of(mask[place]):
            yield int(place), keyhole(region)


def _contour(context: ResultContext, place: int, points: Points) -> Dataset:
    contour = Dataset()
    contour.ContourImageSequence = [_image(context, place)]
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = len(points)
    in_patient = _in_patient(context, place, points)
    # DS has 16 characters (PS3.5 6.2); a tenth of a micrometre is more than any pixel has.
    contour.ContourData = [f"{value:.4f}" for value in in_patient.ravel()]
    return contour


def _in_patient(context: ResultContext, place: int, points: Points) -> Points:
    """Return columns and rows as coordinates (x, y, z) in mm (DICOM PS3.3 C.7.6.2.1.1)."""
    position, orientation, spacing = (np.array(v, np.float64) for v in _geometry(context, place))
    along_row, down_column = orientation[:3], orientation[3:]
    per_column = points[:, :1] * spacing[1] * along_row
    per_row = points[:, 1:] * spacing[0] * down_column
    return np.asarray(position + per_column + per_row)


def _geometry(context: ResultContext, place: int) -> list[Sequence[float]]:
    source = context.reference if context.is_multi_frame else context.sources[place]
    frame = context.frames[place] - 1 if context.is_multi_frame else 0
    keywords = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    return [frame_value(source, frame, keyword) for keyword in keywords]


def _has_place(context: ResultContext, place: int) -> bool:
    return all(value is not None for value in _geometry(context, place))


def _observation(outlined: OutlinedFinding) -> Dataset:
    observation = Dataset()
    observation.ObservationNumber = outlined.segment_number
    observation.ReferencedROINumber = outlined.segment_number
    observation.ROIObservationLabel = outlined.finding.code.meaning[:_SHORT_STRING]
    observation.RTROIIdentificationCodeSequence = [coded(_segment(outlined).type)]
    # Not GTV, nor any other: what it is to a plan is for the planner to say (type 2).
    observation.RTROIInterpretedType = ""
    observation.ROIInterpreter = ""
    return observation


def _segment(outlined: OutlinedFinding) -> SegmentSpec:
    assert outlined.spec.segment is not None, "what is outlined has a segment"
    return outlined.spec.segment
