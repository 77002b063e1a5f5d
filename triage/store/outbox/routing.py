"""What destinations' routes are asked about, and which objects each destination gets."""

from __future__ import annotations

from collections.abc import Sequence

from triage.core.runs import StudyState
from triage.settings import ObjectDestination, RoutedResult
from triage.settings.destinations import StudyStage
from triage.store.outbox.objects import NewResultObject
from triage.store.tables import AnalysisRunRow, StudyRow

_PICTURES = {"heat-map", "secondary-capture", "pdf"}


def routed(study: StudyRow, run: AnalysisRunRow | None) -> RoutedResult:
    """Return what the routes are asked about a result of `run`, or about the study alone."""
    stage: StudyStage = "arriving" if study.state is StudyState.RECEIVING else "unread"
    return RoutedResult(
        model=run.model.name if run else "",
        stage=run.stage.value if run else "",
        findings=[finding.key for finding in run.findings if finding.present] if run else (),
        modalities=study.modalities.split("\\"),
        calling_ae_title=study.calling_ae_title,
        study_stage="read" if study.read_at else stage,
    )


def gets(
    destination: ObjectDestination, new: NewResultObject, objects: Sequence[NewResultObject]
) -> bool:
    """Return whether `destination` gets this object: of its role, and of the variant it asks for.

    Of a role that was not made in that variant it gets the ordinary object.
    """
    if destination.objects and new.role not in destination.objects:
        return False
    has_variant = any(
        (other.role, other.variant) == (new.role, destination.variant) for other in objects
    )
    return new.variant == (destination.variant if has_variant else "")


def is_withheld(destination: ObjectDestination, new: NewResultObject) -> bool:
    """Return whether the object is a picture or a document, which may say who the patient is."""
    return destination.deidentify != "none" and new.role in _PICTURES
