"""The picture for archives and phones that show nothing else: a Secondary Capture image.

One image is made, of the most urgent present finding that has a heat map or an outline. Where
nothing is present there is none: a picture beside a negative result only asks to be looked at.
"""

from __future__ import annotations

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DA, TM

from triage.core.codes import Code
from triage.core.findings import Finding
from triage.results.context import (
    MANUFACTURER,
    PRIMARY_USE_WARNING,
    ResultContext,
    coded,
    laterality_of,
    stamp,
)
from triage.results.pictures import Overlay, blend

_SOURCE_IMAGE = Code(
    value="121322", scheme="DCM", meaning="Source image for image processing operation"
)
"""DICOM PS3.16 CID 7202."""


def build_heat_map(context: ResultContext) -> Dataset | None:
    """Return the Secondary Capture of the most urgent present finding, or None.

    8-bit RGB (DICOM PS3.3 A.8.1) with the finding, the model and the warning in the pixels above
    the image, and Burned In Annotation YES (C.7.6.1.1.7). It states no pixel spacing: nothing is
    to be measured on it.
    """
    overlay = _choose_overlay(context)
    if overlay is None:
        return None
    pixels = _with_banner(blend(context, overlay), _lines(context, overlay.finding))
    source = context.reference if context.is_multi_frame else context.sources[overlay.source]
    dataset = SCImage.from_ref_dataset(
        ref_dataset=context.reference,
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        series_instance_uid=context.series_uid("heat-map"),
        series_number=context.series_number("heat-map"),
        sop_instance_uid=context.instance_uid("heat-map"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=context.manifest.name,
        software_versions=context.software_versions,
        device_serial_number=context.device_uid,
        patient_orientation=("L", "P"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=context.description,
    )
    _describe(dataset, context, source, overlay)
    return dataset


def _describe(dataset: SCImage, context: ResultContext, source: Dataset, overlay: Overlay) -> None:
    # The constructor insists on an orientation. It is the source's, or unknown, which the standard
    # lets an image say by an empty value (type 2C, DICOM PS3.3 C.7.6.1.1.1).
    dataset.PatientOrientation = source.get("PatientOrientation")
    dataset.Laterality = laterality_of(source)
    dataset.copy_patient_and_study_information(context.reference)
    dataset.BurnedInAnnotation = "YES"
    dataset.ImageComments = context.notice
    dataset.DerivationDescription = f"{overlay.finding.code.meaning}, {context.manifest.identity}"
    dataset.LossyImageCompression = source.get("LossyImageCompression") or "00"
    if dataset.LossyImageCompression == "01":
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if keyword in source:
                setattr(dataset, keyword, source[keyword].value)
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if context.is_multi_frame:
        reference.ReferencedFrameNumber = context.frames[overlay.source]
    reference.PurposeOfReferenceCodeSequence = [coded(_SOURCE_IMAGE)]
    dataset.SourceImageSequence = [reference]
    moment = context.local_time
    dataset.DateOfSecondaryCapture = DA(moment.date())
    dataset.TimeOfSecondaryCapture = TM(moment.time())
    stamp(dataset, moment)


def _choose_overlay(context: ResultContext) -> Overlay | None:
    outlined = {each.finding.key: each for each in context.outlined_findings}
    for finding in context.present_by_urgency:
        heat = context.analysis.heat_maps.get(finding.key)
        if heat is not None:
            key_image = _index_of_key_image(context, finding) or 0
            return Overlay(finding, key_image, np.clip(np.nan_to_num(heat), 0, 1))
        if finding.key in outlined:
            each = outlined[finding.key]
            mask = context.mask_of(each)
            index = _index_of_key_image(context, finding)
            if index is None or not mask[index].any():
                index = int(mask.sum(axis=(1, 2)).argmax())
            segment = each.spec.segment
            color = segment.recommended_display_rgb if segment is not None else None
            return Overlay(finding, index, mask[index].astype(np.float32), color)
    return None


def _index_of_key_image(context: ResultContext, finding: Finding) -> int | None:
    uids = context.analysis.source_sop_instance_uids
    if context.is_multi_frame:
        shown = (f for f in finding.key_image_frames if f in context.frames)
        return next((context.frames.index(frame) for frame in shown), None)
    return next((uids.index(uid) for uid in finding.key_image_uids if uid in uids), None)


def _lines(context: ResultContext, finding: Finding) -> list[str]:
    lines = [PRIMARY_USE_WARNING, context.manifest.identity, finding.in_words()]
    return lines if context.notice == PRIMARY_USE_WARNING else [*lines, context.notice]


def _with_banner(image: NDArray[np.uint8], lines: list[str]) -> NDArray[np.uint8]:
    """Return `image` below a black strip with `lines` in it, so that no anatomy is covered."""
    width = image.shape[1]
    size = max(14, width // 40)
    font = ImageFont.load_default(size=size)
    margin, line_height = size // 2, round(1.35 * size)
    wrapped = [part for line in lines for part in _wrap(line, font, width - 2 * margin)]
    banner = Image.new("RGB", (width, 2 * margin + line_height * len(wrapped)))
    draw = ImageDraw.Draw(banner)
    for number, line in enumerate(wrapped):
        color = (255, 210, 0) if number == 0 else (255, 255, 255)
        draw.text((margin, margin + number * line_height), line, font=font, fill=color)
    return np.concatenate([np.asarray(banner, dtype=np.uint8), image])


def _wrap(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    wrapped = [""]
    for word in line.split():
        longer = f"{wrapped[-1]} {word}".strip()
        if wrapped[-1] and font.getlength(longer) > width:
            wrapped.append(word)
        else:
            wrapped[-1] = longer
    return wrapped
