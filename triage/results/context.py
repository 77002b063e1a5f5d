"""What the objects of one run have in common: identity, texts, source images, the moment."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import get_args

import numpy as np
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from triage.core.analysis import Analysis
from triage.core.codes import Code
from triage.core.descriptions import described
from triage.core.findings import Finding
from triage.core.manifest import FindingSpec, ModelManifest, ResultKind
from triage.core.segmentation import SegmentationForm
from triage.core.uids import derived_uid
from triage.results.errors import ResultError
from triage.settings import ResultSettings

MANUFACTURER = "Triage"
PRIMARY_USE_WARNING = "AI result, not for primary diagnosis"
ARTIFICIAL_INTELLIGENCE = Code(value="123110", scheme="DCM", meaning="Artificial Intelligence")
"""Algorithm family, DICOM PS3.16 CID 7162."""

_SERIES_NUMBER_OFFSETS: dict[str, int] = {
    kind: offset for offset, kind in enumerate(get_args(ResultKind), start=1)
}
_LONG_STRING = 64  # the VR LO, DICOM PS3.5 6.2


@dataclass(frozen=True, slots=True)
class OutlinedFinding:
    """A present finding with voxels, and the number of its segment in the SEG."""

    finding: Finding
    spec: FindingSpec
    segment_number: int
    label: int

    @property
    def color(self) -> tuple[int, int, int] | None:
        """The colour that the manifest gives its segment."""
        return self.spec.segment.recommended_display_rgb if self.spec.segment else None


@dataclass(frozen=True)
class ResultContext:
    """One analysis on its way to objects.

    Attributes:
        sources: the repaired headers of the source images, in the order of the analysis.
        further: the headers of the further inputs' images, of this study or of another.
        predecessors: the reports of this model that the new one takes the place of, by variant.
        produced_at: when the results were made, with its time zone.
        form: how a SEG is written.
        variant: "", or the name of `form` where a destination asked for another than the usual.
    """

    analysis: Analysis
    manifest: ModelManifest
    sources: Sequence[Dataset]
    study_instance_uid: str
    settings: ResultSettings
    produced_at: datetime
    form: SegmentationForm = field(default_factory=SegmentationForm)
    variant: str = ""
    further: Sequence[Dataset] = ()
    predecessors: Mapping[str, Dataset] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an analysis whose findings or shapes are not those of the manifest."""
        known = {spec.key for spec in self.manifest.findings}
        unknown = sorted({f.key for f in self.analysis.findings} - known)
        if unknown:
            raise ResultError(
                f"{self.manifest.identity}: findings {', '.join(unknown)} are not in the manifest"
            )
        rows_and_columns = self.expected_shape[1:]
        for what, array, expected in (
            ("segmentation", self.analysis.segmentation, self.expected_shape),
            *(("probabilities", a, self.expected_shape) for a in self._arrays("probabilities")),
            *(("heat map", a, rows_and_columns) for a in self._arrays("heat_maps")),
        ):
            if array is not None and array.shape != expected:
                raise ResultError(
                    f"{self.manifest.identity}: the {what} has shape {array.shape}, the source "
                    f"images have {expected}"
                )

    def _arrays(self, name: str) -> Sequence[NDArray[np.float32]]:
        return tuple(getattr(self.analysis, name).values())

    def in_form(self, form: SegmentationForm) -> ResultContext:
        """Return the same for a destination that asks for `form`, with UIDs of its own."""
        return replace(self, form=form, variant=form.name)

    @property
    def reference(self) -> Dataset:
        """The source image that patient and study attributes are taken from."""
        return self.sources[0]

    @property
    def is_multi_frame(self) -> bool:
        """Whether the source is one multi-frame image."""
        return bool(self.frames)

    @cached_property
    def frames(self) -> tuple[int, ...]:
        """The analysed frames of a multi-frame source, from 1; empty where it is none."""
        if self.analysis.source_frames or len(self.sources) != 1:
            return self.analysis.source_frames
        count = int(self.reference.get("NumberOfFrames") or 1)
        return tuple(range(1, count + 1)) if count > 1 else ()

    @property
    def expected_shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns of what was analysed."""
        slices = len(self.frames) or len(self.sources)
        return slices, int(self.reference.Rows), int(self.reference.Columns)

    def derive_dimension_uid(self, role: ResultKind, dataset: Dataset) -> None:
        """Put a derived Dimension Organization UID where highdicom drew a random one."""
        uid = self.uid(role, "dimensions", *self._variant)
        dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
        for index in dataset.get("DimensionIndexSequence", ()):
            index.DimensionOrganizationUID = uid

    def uid(self, role: str, *more: str) -> UID:
        """Return the UID that belongs to this run and `role`, the same whenever it is asked.

        The run is known by study, model, version and the digest of what went in, so that the same
        analysis emitted twice is the same object.
        """
        model = (self.manifest.name, self.manifest.version)
        return UID(
            derived_uid(self.study_instance_uid, *model, self.analysis.input_sha256, role, *more)
        )

    def series_uid(self, role: ResultKind) -> UID:
        """Return the Series Instance UID of the object `role`, each of which has its own series."""
        return self.uid(role, "series", *self._variant)

    def instance_uid(self, role: ResultKind, number: int = 1) -> UID:
        """Return the SOP Instance UID of the object `role`, of several the one with `number`."""
        more = [str(number)] if number > 1 else []
        return self.uid(role, "instance", *self._variant, *more)

    @property
    def _variant(self) -> tuple[str, ...]:
        return (self.variant,) if self.variant else ()

    def tracking_uid(self, finding: Finding) -> UID:
        """Return the Tracking Unique Identifier (112040, DCM) that SEG and SR share."""
        return self.uid("tracking", finding.key)

    def tracking_identifier(self, finding: Finding) -> str:
        """Return the Tracking Identifier (112039, DCM), readable and unique within the model."""
        return f"{self.manifest.name}: {finding.key}"

    def series_number(self, role: ResultKind) -> int:
        """Return the Series Number, see `series_number`."""
        return series_number(self.settings, self.manifest.identity, role)

    def series_description(self, role: ResultKind) -> str:
        """Return the Series Description: "AI: Hemorrhage (head-ct-hemorrhage 1.0.0)" by default."""
        present = self.present_by_urgency
        said = present[0].code.meaning if present else "nothing found"
        return described(
            self.settings.series_description,
            finding=f"{said} +{len(present) - 1}" if len(present) > 1 else said,
            model=self.manifest.name,
            version=self.manifest.version,
            kind=role.replace("-", " "),
        )

    @property
    def notice(self) -> str:
        """What every reader must know: the manifest's notice, or the general warning."""
        return self.manifest.notice.strip() or PRIMARY_USE_WARNING

    @property
    def short_notice(self) -> str:
        """The notice, cut to the 64 characters of a description."""
        if len(self.notice) <= _LONG_STRING:
            return self.notice
        return f"{self.notice[: _LONG_STRING - 3].rsplit(' ', 1)[0]}..."

    @property
    def present_by_urgency(self) -> list[Finding]:
        """The present findings, the most urgent and then the most certain first."""
        present = [f for f in self.analysis.findings if f.present]
        return sorted(present, key=lambda f: (-f.priority, -f.confidence, f.key))

    def places_of_key_images(self, finding: Finding) -> list[int]:
        """Return where the key images of a finding stand among the sources or analysed frames."""
        if self.is_multi_frame:
            shown = [f for f in finding.key_image_frames if f in self.frames]
            return [self.frames.index(frame) for frame in shown]
        uids = self.analysis.source_sop_instance_uids
        return [uids.index(uid) for uid in finding.key_image_uids if uid in uids]

    @cached_property
    def outlined_findings(self) -> tuple[OutlinedFinding, ...]:
        """The present findings that have voxels, in order of their segments."""
        return outlined_findings(self.analysis, self.manifest)

    @property
    def examined_segments(self) -> tuple[OutlinedFinding, ...]:
        """A segment for everything that the model outlines when it is there, found or not."""
        keyed = {finding.key: finding for finding in self.analysis.findings}
        outlining = [spec for spec in self.manifest.findings if spec.segment and spec.key in keyed]
        return tuple(
            OutlinedFinding(keyed[spec.key], spec, number, spec.segment.label)
            for number, spec in enumerate(outlining, start=1)
            if spec.segment
        )

    def spec_of(self, finding: Finding) -> FindingSpec:
        """Return what the manifest says of a finding."""
        return _spec_of(finding, self.manifest)

    def mask_of(self, outlined: OutlinedFinding) -> NDArray[np.bool_]:
        """Return where `outlined` is, of shape (slices, rows, columns)."""
        return np.equal(self._labels, outlined.label)

    def plane_of(self, outlined: OutlinedFinding, place: int) -> NDArray[np.bool_]:
        """Return where `outlined` is on one slice, of shape (rows, columns)."""
        return np.asarray(np.equal(self._labels[place], outlined.label))

    @property
    def _labels(self) -> NDArray[np.uint8]:
        mask = self.analysis.segmentation
        if mask is None:
            raise ResultError(f"{self.manifest.identity}: there is no segmentation")
        return mask

    def best_place_of(self, outlined: OutlinedFinding) -> int:
        """Return where `outlined` shows best: on its first key image, or where it is largest."""
        for place in self.places_of_key_images(outlined.finding)[:1]:
            if self.plane_of(outlined, place).any():
                return place
        return int(self.mask_of(outlined).sum(axis=(1, 2)).argmax())

    @property
    def device_uid(self) -> str:
        """The UID of the observing device: the configured one, or one for each model version."""
        identity = (self.manifest.name, self.manifest.version)
        return self.settings.device_uid or derived_uid("triage", "device", *identity)

    @property
    def software_versions(self) -> list[str]:
        """Software Versions (0018,1020): the model's, then our own."""
        return software_versions(self.manifest.version)

    @property
    def previous_reports(self) -> list[Dataset]:
        """The report that the new one takes the place of: of the same variant, or the usual one."""
        previous = self.predecessors.get(self.variant, self.predecessors.get(""))
        return [] if previous is None else [previous]

    @property
    def local_time(self) -> datetime:
        """When the results were made, as this machine's wall clock shows it.

        Timezone Offset From UTC (0008,0201) is not written: it would speak for Study Date and Time
        too (DICOM PS3.3 C.12.1.1.8), which are copied from images that seldom state one.
        """
        return self.produced_at.astimezone().replace(tzinfo=None)


def series_number(settings: ResultSettings, model: str, role: ResultKind) -> int:
    """Return the Series Number: 9001 to 9999 unless the site says otherwise, above scanners'.

    The last digit is the kind of object, from 1 for a SEG to 9 for a PDF; the two before it belong
    to the model version `model`, so that two models seldom share a number.
    """
    place = zlib.crc32(model.encode()) % 100
    return settings.first_series_number + 10 * place + _SERIES_NUMBER_OFFSETS[role]


def software_versions(model_version: str) -> list[str]:
    """Return Software Versions (0018,1020) of what a model version's results are made with."""
    return [model_version, f"{MANUFACTURER} {_own_version()}"]


def outlined_findings(analysis: Analysis, manifest: ModelManifest) -> tuple[OutlinedFinding, ...]:
    """Return the present findings that have voxels, numbered from 1 in order of their labels.

    A BINARY segmentation's numbers begin at 1 and increase by 1 (DICOM PS3.3 C.8.20.2), so they
    cannot be the labels, nor places in the manifest, where an absent finding leaves a gap.
    """
    mask = analysis.segmentation
    if mask is None:
        return ()
    outlined: list[tuple[int, Finding, FindingSpec]] = []
    for finding in analysis.findings:
        spec = _spec_of(finding, manifest)
        if finding.present and spec.segment is not None and np.any(mask == spec.segment.label):
            outlined.append((spec.segment.label, finding, spec))
    outlined.sort(key=lambda each: each[0])
    return tuple(
        OutlinedFinding(finding, spec, number, label)
        for number, (label, finding, spec) in enumerate(outlined, start=1)
    )


def _spec_of(finding: Finding, manifest: ModelManifest) -> FindingSpec:
    return next(spec for spec in manifest.findings if spec.key == finding.key)


def coded(code: Code) -> CodedConcept:
    """Return `code` as highdicom writes it."""
    return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def side_of(source: Dataset) -> str:
    """Return Laterality (0020,0060) of a result: "L" or "R", or unknown (type 2C, empty)."""
    sides = (str(source.get(keyword) or "") for keyword in ("Laterality", "ImageLaterality"))
    return next((side for side in sides if side in ("L", "R")), "")


def stamp(dataset: Dataset, moment: datetime) -> None:
    """Date `dataset` as made at `moment`, not at whatever time the library ran."""
    for keyword in ("InstanceCreation", "Series", "Content"):
        setattr(dataset, f"{keyword}Date", moment.strftime("%Y%m%d"))
        setattr(dataset, f"{keyword}Time", moment.strftime("%H%M%S.%f"))
    for equipment in dataset.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in equipment:
            equipment.ContributionDateTime = moment.strftime("%Y%m%d%H%M%S.%f")


def _own_version() -> str:
    try:
        return version("triage")
    except PackageNotFoundError:
        return "unknown"
