"""Workitems as they are given out: with what the configuration and the index of images say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.dicom_json import element, has_value
from triage.core.workitem_attributes import INPUT_INFORMATION, WORKLIST_LABEL
from triage.settings import Settings
from triage.store.rejections import is_rejected
from triage.store.tables import InstanceRow, SeriesRow, StudyRow
from triage.store.workitem_tables import WorkitemRow


@dataclass(frozen=True, slots=True)
class Presentation:
    """What the configuration says of workitems.

    Attributes:
        worklist_label: Worklist Label (0074,1202) of those that bring none.
        retrieve_ae_title: where the images can be retrieved by C-MOVE and C-GET; "" is nowhere.
        retrieve_url: the root of WADO-RS from which they can be retrieved; "" is nowhere.
    """

    worklist_label: str
    retrieve_ae_title: str
    retrieve_url: str

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return what the settings say; our own AE title where we answer retrievals."""
        own = settings.receiver.ae_title if settings.query.enabled else ""
        return cls(
            worklist_label=settings.ups.worklist_label,
            retrieve_ae_title=(settings.ups.retrieve_ae_title or own).strip(),
            retrieve_url=settings.ups.retrieve_url.rstrip("/"),
        )


def presented(
    session: Session, row: WorkitemRow, presentation: Presentation, *, with_inputs: bool
) -> dict[str, Any]:
    """Return the attributes of a workitem as others get them.

    Input Information of a study's workitem is read from the index at this moment, so it names the
    images that are here now; `with_inputs` says whether it is wanted, since it is long.
    """
    attributes = dict(row.attributes)
    if not has_value(attributes, WORKLIST_LABEL):
        attributes[WORKLIST_LABEL] = element("LO", presentation.worklist_label)
    if row.study_id is not None and with_inputs:
        inputs = _inputs(session, row.study_id, presentation)
        attributes[INPUT_INFORMATION] = element("SQ", *inputs)
    elif row.study_id is not None:
        attributes.pop(INPUT_INFORMATION, None)  # empty, it would say that there are no images
    return attributes


def _inputs(session: Session, study_id: int, presentation: Presentation) -> list[dict[str, Any]]:
    """Return an item for each series (Referenced Instances and Access Macro, PS3.3 10.3)."""
    rows = session.execute(
        select(
            StudyRow.study_instance_uid,
            SeriesRow.series_instance_uid,
            InstanceRow.sop_class_uid,
            InstanceRow.sop_instance_uid,
        )
        .join(SeriesRow, SeriesRow.study_id == StudyRow.id)
        .join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
        .where(
            StudyRow.id == study_id,
            InstanceRow.conflicts_with.is_(None),
            InstanceRow.purged_at.is_(None),
            ~is_rejected(),
        )
        .order_by(SeriesRow.number, SeriesRow.id, InstanceRow.number, InstanceRow.id)
    ).all()
    series: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for study_uid, series_uid, sop_class_uid, sop_instance_uid in rows:
        reference = {
            "00081150": element("UI", sop_class_uid),
            "00081155": element("UI", sop_instance_uid),
        }
        series.setdefault((study_uid, series_uid), []).append(reference)
    return [
        {
            "0040E020": element("CS", "DICOM"),
            "0020000D": element("UI", study_uid),
            "0020000E": element("UI", series_uid),
            "00081199": element("SQ", *references),
            **_access(presentation, study_uid, series_uid),
        }
        for (study_uid, series_uid), references in series.items()
    ]


def _access(presentation: Presentation, study_uid: str, series_uid: str) -> dict[str, Any]:
    access = {}
    if presentation.retrieve_ae_title:
        ae_title = {"00080054": element("AE", presentation.retrieve_ae_title)}
        access["0040E021"] = element("SQ", ae_title)
    if presentation.retrieve_url:
        url = f"{presentation.retrieve_url}/studies/{study_uid}/series/{series_uid}"
        access["0040E025"] = element("SQ", {"00081190": element("UR", url)})
    return access
