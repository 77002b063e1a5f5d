"""The findings of studies that count: of models whose findings count, and not taken back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.findings import Finding
from triage.store.model_tables import ModelRow
from triage.store.remote_findings import standing_remote_findings
from triage.store.tables import AnalysisRunRow, FindingRow, WithdrawalRow


def standing_findings(
    session: Session, study_ids: Iterable[int]
) -> dict[int, list[tuple[str, Finding]]]:
    """Return the present findings that no person withdrew, by study, with the model's identity.

    Those of remote models are among them. Of each finding of a model the newest run that says it
    speaks: withdrawn there, it does not come back from the superseded run before. Those of shadow
    models never count.
    """
    ids = list(study_ids)
    # Columns, not rows: studies are ranked anew by the hundred, and a model's row has its manifest.
    rows = session.execute(
        select(
            AnalysisRunRow.study_id,
            AnalysisRunRow.model_id,
            AnalysisRunRow.stage,
            ModelRow.name,
            ModelRow.version,
            FindingRow.key,
            FindingRow.content,
            WithdrawalRow.who,
        )
        .join(FindingRow, FindingRow.run_id == AnalysisRunRow.id)
        .join(ModelRow, ModelRow.id == AnalysisRunRow.model_id)
        .outerjoin(WithdrawalRow, WithdrawalRow.run_id == AnalysisRunRow.id)
        .where(AnalysisRunRow.study_id.in_(ids), FindingRow.present.is_(True))
        .order_by(AnalysisRunRow.id)
    )
    newest = {(row.study_id, row.model_id, row.key): row for row in rows}
    found: dict[int, list[tuple[str, Finding]]] = defaultdict(list)
    for row in newest.values():
        if row.stage.counts and not row.who:
            said = Finding.model_validate(row.content)
            found[row.study_id].append((f"{row.name} {row.version}", said))
    for study_id, remote in standing_remote_findings(session, ids).items():
        found[study_id] += remote
    return found
