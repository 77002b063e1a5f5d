"""The findings of studies that count: of models whose findings count, and not taken back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.findings import Finding
from triage.store.tables import AnalysisRunRow, FindingRow, WithdrawalRow


def standing_findings(
    session: Session, study_ids: Iterable[int]
) -> dict[int, list[tuple[str, Finding]]]:
    """Return the present findings that no person withdrew, by study, with the model's identity.

    Of each finding of a model the newest run that says it speaks: withdrawn there, it does not
    come back from the superseded run before. Those of shadow models never count.
    """
    rows = session.execute(
        select(AnalysisRunRow, FindingRow, WithdrawalRow.who)
        .join(FindingRow, FindingRow.run_id == AnalysisRunRow.id)
        .outerjoin(WithdrawalRow, WithdrawalRow.run_id == AnalysisRunRow.id)
        .where(AnalysisRunRow.study_id.in_(list(study_ids)), FindingRow.present.is_(True))
        .order_by(AnalysisRunRow.id)
    ).all()
    newest = {
        (run.study_id, run.model_id, finding.key): (run, finding, who) for run, finding, who in rows
    }
    found: dict[int, list[tuple[str, Finding]]] = defaultdict(list)
    for run, finding, who in newest.values():
        if run.stage.counts and not who:
            said = Finding.model_validate(finding.content)
            found[run.study_id].append((f"{run.model.name} {run.model.version}", said))
    return found
