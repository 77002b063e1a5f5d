"""Key Object Selection: the few images that a person should open (DICOM PS3.3 A.35.4)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from triage.results.context import MANUFACTURER, ResultContext, stamp
from triage.results.key_images import KeyImage, key_images
from triage.results.observers import device_observer

_LONG_TEXT = 1024


def build_key_objects(
    context: ResultContext,
    made: Sequence[Dataset] = (),
    presentation_state: Dataset | None = None,
) -> Dataset | None:
    """Return the Key Object Selection "Of Interest" (PS3.16 TID 2010), or None: nothing is shown.

    It names the key images of the present findings, with the presentation state that draws on them
    where there is one, and then what the same run `made` of them: its SEG and its pictures.
    """
    shown = key_images(context)
    if not shown:
        return None
    sources = list({image.source.SOPInstanceUID: image.source for image in shown}.values())
    content = KeyObjectSelection(
        document_title=codes.DCM.OfInterest,
        referenced_objects=[*sources, *made],
        observer_device_context=device_observer(context),
        description=_description(context),
    )
    _refine(content, shown, presentation_state)
    states = [presentation_state] if presentation_state is not None else []
    dataset = KeyObjectSelectionDocument(
        evidence=[*sources, *made, *states],
        content=content,
        series_instance_uid=context.series_uid("key-objects"),
        series_number=context.series_number("key-objects"),
        sop_instance_uid=context.instance_uid("key-objects"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        manufacturer_model_name=context.manifest.name,
        software_versions=context.software_versions,
        device_serial_number=context.device_uid,
        series_description=context.series_description("key-objects"),
    )
    dataset.copy_patient_and_study_information(context.reference)
    stamp(dataset, context.local_time)
    return dataset


def without_references(dataset: Dataset, absent: Collection[str]) -> None:
    """Take the references to objects that are not there, by SOP Instance UID, out of a selection.

    They stand in its content and, by study and series, in the evidence (PS3.3 C.17.6.2), where
    neither a series nor a study may be left without a reference.
    """
    dataset.ContentSequence = [i for i in dataset.ContentSequence if not _names(i, absent)]
    for item in dataset.ContentSequence:
        for reference in item.get("ReferencedSOPSequence", ()):
            if any(_is_of(state, absent) for state in reference.get("ReferencedSOPSequence", ())):
                del reference.ReferencedSOPSequence
    for study in dataset.CurrentRequestedProcedureEvidenceSequence:
        for series in study.ReferencedSeriesSequence:
            series.ReferencedSOPSequence = [
                r for r in series.ReferencedSOPSequence if not _is_of(r, absent)
            ]
        study.ReferencedSeriesSequence = [
            s for s in study.ReferencedSeriesSequence if s.ReferencedSOPSequence
        ]
    dataset.CurrentRequestedProcedureEvidenceSequence = [
        s for s in dataset.CurrentRequestedProcedureEvidenceSequence if s.ReferencedSeriesSequence
    ]


def _names(item: Dataset, absent: Collection[str]) -> bool:
    return any(_is_of(reference, absent) for reference in item.get("ReferencedSOPSequence", ()))


def _is_of(reference: Dataset, absent: Collection[str]) -> bool:
    return str(reference.ReferencedSOPInstanceUID) in absent


def _description(context: ResultContext) -> str:
    said = [context.manifest.identity, *(f.in_words() for f in context.present_by_urgency)]
    return f"{'; '.join(said)}. {context.notice}"[:_LONG_TEXT]


def _refine(
    content: KeyObjectSelection, shown: Sequence[KeyImage], presentation_state: Dataset | None
) -> None:
    """Add the frames and the presentation state to the references, which highdicom leaves out."""
    frames: dict[str, list[int]] = {}
    for image in shown:
        if image.frame is not None:
            frames.setdefault(str(image.source.SOPInstanceUID), []).append(image.frame)
    drawn_on = _images_of(presentation_state)
    for item in content[0].ContentSequence:
        for reference in item.get("ReferencedSOPSequence", ()):
            uid = str(reference.ReferencedSOPInstanceUID)
            if uid in frames:
                reference.ReferencedFrameNumber = sorted(frames[uid])
            if presentation_state is not None and uid in drawn_on:
                state = Dataset()
                state.ReferencedSOPClassUID = presentation_state.SOPClassUID
                state.ReferencedSOPInstanceUID = presentation_state.SOPInstanceUID
                reference.ReferencedSOPSequence = [state]


def _images_of(presentation_state: Dataset | None) -> set[str]:
    if presentation_state is None:
        return set()
    return {
        str(image.ReferencedSOPInstanceUID)
        for series in presentation_state.get("ReferencedSeriesSequence", ())
        for image in series.ReferencedImageSequence
    }
