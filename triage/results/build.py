"""From an analysis to the DICOM objects that its model's manifest asks for."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from io import BytesIO

from pydicom import dcmwrite
from pydicom.dataset import Dataset

from triage.core.analysis import Analysis
from triage.core.manifest import ModelManifest, ResultKind
from triage.core.segmentation import SegmentationForm
from triage.core.withdrawals import WithdrawalRole
from triage.results.context import ResultContext, outlined_findings
from triage.results.errors import ResultError
from triage.results.heat_map import build_heat_map
from triage.results.key_objects import build_key_objects
from triage.results.parametric_map import build_parametric_maps
from triage.results.presentation_state import build_presentation_state
from triage.results.report import build_report
from triage.results.secondary_capture import build_secondary_captures
from triage.results.segmentation import build_segmentation
from triage.results.sources import as_dataset, read_further, read_sources, use_utf8
from triage.results.structure_set import build_structure_set
from triage.settings import ResultSettings
from triage.store.files import InstanceFiles
from triage.store.outbox import NewResultObject
from triage.store.withdrawals import DocumentReference

_KEY_OBJECTS: frozenset[ResultKind] = frozenset(("seg", "heat-map", "secondary-capture"))
"""What of a run its key object selection names beside the images."""

# highdicom repeats patients' names in a warning and in a log line when they have one component
# only, which is frequent and allowed. Names are never logged.
warnings.filterwarnings("ignore", message="The string .* is unlikely to represent the intended")
logging.getLogger("highdicom.base").addFilter(lambda r: "patient_name" not in r.getMessage())


@dataclass(frozen=True, slots=True)
class BuiltObject:
    """A result object in memory, and what it is.

    Attributes:
        role: the kind, such as "seg".
        dataset: the object.
        variant: "" for the usual form; the name of a `SegmentationForm` for what is made again
            for destinations that ask for that one.
    """

    role: ResultKind | WithdrawalRole
    dataset: Dataset
    variant: str = ""


def build_results(
    analysis: Analysis,
    manifest: ModelManifest,
    *,
    study_instance_uid: str,
    settings: ResultSettings,
    produced_at: datetime,
    variants: Sequence[SegmentationForm] = (),
    predecessors: Sequence[DocumentReference] = (),
) -> tuple[BuiltObject, ...]:
    """Return the objects that `manifest.results` asks for, in order of delivery.

    What is referred to comes before what refers to it. The SR and the PDF are always made, because
    "analysed, nothing found" is a result; pictures, maps, key objects and presentation states only
    where something is present. Series and SOP Instance UIDs depend on study, model, version and
    input only.

    Args:
        analysis: what was found.
        manifest: whose findings they are.
        study_instance_uid: of the study that the objects belong to.
        settings: how the objects are written.
        produced_at: when, with its time zone.
        variants: further forms of the SEG that destinations ask for. For each that is not the
            usual one, the SEG and all that refers to it are made again, with UIDs of their own:
            a destination gets either the objects of one variant or the usual ones in their place.
        predecessors: the reports whose place the new one takes, each that of its variant.

    Raises:
        ResultError: the source images or the analysis cannot be made into objects.
    """
    sources = read_sources(analysis.source_files, study_instance_uid=study_instance_uid)
    if not _is_ascii(analysis, manifest, settings):
        for source in sources:
            use_utf8(source)
    context = ResultContext(
        analysis=analysis,
        manifest=manifest,
        sources=sources,
        study_instance_uid=study_instance_uid,
        settings=settings,
        produced_at=produced_at,
        form=settings.segmentation_form,
        further=read_further(analysis.further_files),
        predecessors={p.variant: as_dataset(p, study_instance_uid) for p in predecessors},
    )
    further = [form for form in dict.fromkeys(variants) if form != context.form]
    try:
        return tuple(_build(context, further))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # What highdicom raises when source attributes are wrong in a way that `repair` does not
        # know; the run fails with a reason instead of the worker.
        raise ResultError(
            f"{manifest.identity}: no results could be made from the source images: {error}"
        ) from error


def _build(context: ResultContext, variants: Sequence[SegmentationForm]) -> Iterator[BuiltObject]:
    usual = [
        *_segmentation_and_report(context),
        *_objects(context, "heat-map", build_heat_map),
        *_objects(context, "parametric-map", build_parametric_maps),
        *_objects(context, "secondary-capture", build_secondary_captures),
        *_objects(context, "rtstruct", build_structure_set),
        *_objects(context, "presentation-state", build_presentation_state),
        *_objects(context, "pdf", _build_pdf),
    ]
    yield from usual
    yield from _key_objects(context, usual)
    without_segmentation = [each for each in usual if each.role != "seg"]
    for form in variants:
        other = context.in_form(form)
        if made := list(_segmentation_and_report(other)):
            yield from made
            yield from _key_objects(other, [*made, *without_segmentation])


def _build_pdf(context: ResultContext) -> Dataset:
    # Only where a manifest asks for pages: reportlab and matplotlib take longer than all else here.
    from triage.results.pdf import build_pdf  # noqa: PLC0415

    return build_pdf(context)


def _segmentation_and_report(context: ResultContext) -> Iterator[BuiltObject]:
    """Yield the SEG and the SR that refers to it; of a variant nothing where it has no SEG."""
    segmentations = list(_objects(context, "seg", build_segmentation))
    segmentation = segmentations[0].dataset if segmentations else None
    yield from segmentations
    if segmentation is not None or not context.variant:
        yield from _objects(context, "sr", partial(build_report, segmentation=segmentation))


def _key_objects(context: ResultContext, made: Sequence[BuiltObject]) -> Iterator[BuiltObject]:
    states = [each.dataset for each in made if each.role == "presentation-state"]
    build = partial(
        build_key_objects,
        made=[each.dataset for each in made if each.role in _KEY_OBJECTS],
        presentation_state=states[0] if states else None,
    )
    yield from _objects(context, "key-objects", build)


def _objects(
    context: ResultContext,
    role: ResultKind,
    build: Callable[[ResultContext], Dataset | Sequence[Dataset] | None],
) -> Iterator[BuiltObject]:
    """Yield what `build` makes, if the manifest asks for it."""
    if role not in context.manifest.results.objects:
        return
    made = build(context)
    datasets = [made] if isinstance(made, Dataset) else made or ()
    for dataset in datasets:
        yield BuiltObject(role, dataset, context.variant)


def needs_probabilities(
    manifest: ModelManifest, settings: ResultSettings, variants: Sequence[SegmentationForm] = ()
) -> bool:
    """Return whether any object to be built shows `Analysis.probabilities`."""
    wanted = manifest.results.objects
    forms = (settings.segmentation_form, *variants)
    return "parametric-map" in wanted or (
        "seg" in wanted and any(form.type == "FRACTIONAL" for form in forms)
    )


def _is_ascii(analysis: Analysis, manifest: ModelManifest, settings: ResultSettings) -> bool:
    # Every character set of DICOM holds ASCII; any other text needs one that surely holds it too.
    texts = [
        manifest.notice,
        settings.series_description,
        *(f.model_dump_json() for f in analysis.findings),
    ]
    texts += [spec.segment.model_dump_json() for spec in manifest.findings if spec.segment]
    return all(text.isascii() for text in texts)


def number_segments(analysis: Analysis, manifest: ModelManifest) -> Analysis:
    """Return `analysis` with each finding's `segment_number` as the SEG numbers it, or None."""
    numbers = {o.finding.key: o.segment_number for o in outlined_findings(analysis, manifest)}
    findings = tuple(
        finding.model_copy(update={"segment_number": numbers.get(finding.key)})
        for finding in analysis.findings
    )
    return replace(analysis, findings=findings)


def store_results(files: InstanceFiles, objects: Sequence[BuiltObject]) -> list[NewResultObject]:
    """Write the objects durably and return what `triage.store.outbox` needs to index them.

    Raises:
        OSError: the disk refused.
    """
    return [_store(files, built) for built in objects]


def _store(files: InstanceFiles, built: BuiltObject) -> NewResultObject:
    dataset = built.dataset
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    file = files.write(dataset.StudyInstanceUID, dataset.SOPInstanceUID, [buffer.getbuffer()])
    return NewResultObject(
        role=built.role,
        file=file,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        modality=str(dataset.Modality),
        series_number=int(dataset.SeriesNumber),
        series_description=str(dataset.SeriesDescription),
        instance_number=int(dataset.InstanceNumber),
        variant=built.variant,
    )
