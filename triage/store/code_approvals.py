"""Which packages hold code that nobody has approved yet, and so are not run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.errors import TriageError
from triage.core.stages import RUNNING_STAGES
from triage.store.model_events import record_event
from triage.store.model_tables import CodeApprovalRow, ModelRow

WAITS_FOR_APPROVAL = "the code in its package waits for approval (`triage models approve`)"
"""Why a model whose code nobody approved is not run."""


class CodeNotApprovedError(TriageError):
    """A model may not be run yet; the message says what an administrator has to do."""


def ask_for_approval(session: Session, package_sha256: str, *, now: datetime) -> None:
    """Note that the package of this digest holds code; an approval that was given stands."""
    if session.get(CodeApprovalRow, package_sha256) is None:
        session.add(CodeApprovalRow(package_sha256=package_sha256, who="", at=now))
        session.flush()


def approve_code(
    session: Session, package_sha256: str, *, who: str, reason: str, now: datetime
) -> bool:
    """Let the code in packages of this digest run; return whether it waited for that.

    Each model of this digest gets an event "approved".

    Raises:
        CodeNotApprovedError: `who` or `reason` is empty.
    """
    if not who.strip() or not reason.strip():
        raise CodeNotApprovedError("an approval needs --who and --reason; say both")
    row = session.get(CodeApprovalRow, package_sha256)
    if row is None or row.who:
        return False
    row.who, row.reason, row.at = who, reason, now
    for model in session.scalars(select(ModelRow).where(ModelRow.package_sha256 == package_sha256)):
        record_event(session, model, "approved", who=who, at=now, reason=reason)
    session.flush()
    return True


def is_approved(session: Session, package_sha256: str) -> bool:
    """Return whether somebody has approved the code in packages of this digest."""
    row = session.get(CodeApprovalRow, package_sha256)
    return row is not None and bool(row.who)


def waiting_digests(session: Session) -> frozenset[str]:
    """Return the digests of the packages whose code nobody has approved."""
    waiting = select(CodeApprovalRow.package_sha256).where(CodeApprovalRow.who == "")
    return frozenset(session.scalars(waiting))


def check_code_approved(session: Session, model: ModelRow) -> None:
    """Raise CodeNotApprovedError if the code in the model's package waits for approval."""
    if model.package_sha256 in waiting_digests(session):
        raise CodeNotApprovedError(
            f"{model.name} {model.version} cannot be run: {WAITS_FOR_APPROVAL}; look at its code "
            f"and run `triage models approve {model.name} {model.version} --who … --reason …`"
        )


def runnable_models(session: Session) -> Sequence[ModelRow]:
    """Return the models in a running stage, but for those whose code waits for approval."""
    waiting = waiting_digests(session)
    rows = session.scalars(
        select(ModelRow).where(ModelRow.stage.in_(RUNNING_STAGES)).order_by(ModelRow.id)
    )
    return [row for row in rows if row.package_sha256 not in waiting]
