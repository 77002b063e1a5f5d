"""Studies that Triage holds, as routing sees them, with the paths of their files."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.orm import Session

from triage.core.studies import Series, Study
from triage.store.contents import load_study
from triage.store.files import InstanceFiles
from triage.store.studies import find_study


def held_study(session: Session, files: InstanceFiles, study_instance_uid: str) -> Study | None:
    """Return a study that Triage holds, or None where it holds no images of it."""
    row = find_study(session, study_instance_uid)
    if row is None:
        return None
    study = load_study(session, row.id)
    held = tuple(_with_paths(series, files) for series in study.series if series.instances)
    return replace(study, series=held) if held else None


def _with_paths(series: Series, files: InstanceFiles) -> Series:
    return replace(
        series,
        instances=tuple(replace(i, path=str(files.absolute(i.path))) for i in series.instances),
    )
