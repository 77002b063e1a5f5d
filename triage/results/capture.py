"""Secondary Capture images (DICOM PS3.3 A.8.1): pictures with the answer in their pixels."""

from __future__ import annotations

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DA, TM

from triage.core.codes import Code
from triage.core.findings import Finding
from triage.core.manifest import ResultKind
from triage.results.context import MANUFACTURER, ResultContext, coded, side_of, stamp

SOURCE_IMAGE = Code(
    value="121322", scheme="DCM", meaning="Source image for image processing operation"
)
"""DICOM PS3.16 CID 7202."""


def build_capture(
    context: ResultContext,
    role: ResultKind,
    pixels: NDArray[np.uint8],
    *,
    finding: Finding,
    place: int,
    number: int = 1,
) -> Dataset:
    """Return `pixels`, uint8 (rows, columns, 3), as a Secondary Capture of a source image.

    Burned In Annotation is YES (C.7.6.1.1.7). It states no pixel spacing: nothing is to be
    measured on it.

    Args:
        context: the run.
        role: the kind of object that it is.
        pixels: RGB.
        finding: the first that it is about.
        place: the place of the source image or analysed frame.
        number: Instance Number.
    """
    source = context.reference if context.is_multi_frame else context.sources[place]
    dataset = SCImage.from_ref_dataset(
        ref_dataset=context.reference,
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        series_instance_uid=context.series_uid(role),
        series_number=context.series_number(role),
        sop_instance_uid=context.instance_uid(role, number),
        instance_number=number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=context.manifest.name,
        software_versions=context.software_versions,
        device_serial_number=context.device_uid,
        patient_orientation=("L", "P"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=context.series_description(role),
    )
    _describe(dataset, context, source, finding)
    dataset.SourceImageSequence = [_reference(context, source, place)]
    return dataset


def _describe(dataset: SCImage, context: ResultContext, source: Dataset, finding: Finding) -> None:
    # The constructor insists on an orientation. It is the source's, or unknown, which the standard
    # lets an image say by an empty value (type 2C, DICOM PS3.3 C.7.6.1.1.1).
    dataset.PatientOrientation = source.get("PatientOrientation")
    dataset.Laterality = side_of(source)
    dataset.copy_patient_and_study_information(context.reference)
    dataset.BurnedInAnnotation = "YES"
    dataset.ImageComments = context.notice
    dataset.DerivationDescription = f"{finding.code.meaning}, {context.manifest.identity}"
    dataset.LossyImageCompression = source.get("LossyImageCompression") or "00"
    if dataset.LossyImageCompression == "01":
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if keyword in source:
                setattr(dataset, keyword, source[keyword].value)
    moment = context.local_time
    dataset.DateOfSecondaryCapture = DA(moment.date())
    dataset.TimeOfSecondaryCapture = TM(moment.time())
    stamp(dataset, moment)


def _reference(context: ResultContext, source: Dataset, place: int) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if context.is_multi_frame:
        reference.ReferencedFrameNumber = context.frames[place]
    reference.PurposeOfReferenceCodeSequence = [coded(SOURCE_IMAGE)]
    return reference
