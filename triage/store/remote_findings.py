"""What remote models found: kept with what they were asked, standing beside our own findings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.findings import Finding
from triage.store.tables import RemoteAnalysisRow


def keep_remote_findings(
    session: Session, analysis_id: int, findings: Sequence[Finding], *, counts: bool
) -> None:
    """Keep what a report found, in the place of what an earlier one of this analysis said of it.

    `counts` says whether it may raise the priority: the remote model is in production.
    """
    row = session.scalars(
        select(RemoteAnalysisRow)
        .where(RemoteAnalysisRow.id == analysis_id)
        .with_for_update(of=RemoteAnalysisRow)
    ).one()
    said = {content["key"]: content for content in row.findings}
    said |= {finding.key: finding.model_dump(mode="json") for finding in findings}
    row.findings, row.counts = list(said.values()), counts


def standing_remote_findings(
    session: Session, study_ids: Iterable[int]
) -> dict[int, list[tuple[str, Finding]]]:
    """Return what remote models in production found to be present, by study, with their names.

    Of each finding of a model the newest analysis that says it is present speaks, as of our own.
    """
    rows = session.scalars(
        select(RemoteAnalysisRow)
        .where(RemoteAnalysisRow.study_id.in_(list(study_ids)), RemoteAnalysisRow.counts.is_(True))
        .order_by(RemoteAnalysisRow.id)
    )
    newest = {
        (row.study_id, row.remote_model, content["key"]): Finding.model_validate(content)
        for row in rows
        for content in row.findings
        if content["present"]
    }
    found: dict[int, list[tuple[str, Finding]]] = defaultdict(list)
    for (study_id, model, _), finding in newest.items():
        found[study_id].append((model, finding))
    return found
