"""The code in packages, for the administrator who has to approve it: what, whose, since when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.errors import TriageError
from triage.core.stages import Stage
from triage.models.code import code_in
from triage.models.packages import PackageError
from triage.models.registry import registered_package
from triage.models.stages import Decision
from triage.store.code_approvals import approve_code
from triage.store.model_tables import CodeApprovalRow, ModelRow


class ApprovalError(TriageError):
    """The code cannot be approved; the message says why."""


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class CodePlace(_View):
    """A piece of code: the file of the package, the place in it, and its text."""

    file: str
    place: str
    text: str


class ModelWithCode(_View):
    """A version whose package has the code."""

    name: str
    version: str
    stage: Stage
    signed_by: str
    registered_at: datetime


class CodeApproval(_View):
    """The code in packages of one digest. As long as `who` is empty it is not run.

    `at` is when it was approved or, where it waits, when the package was registered.
    """

    package_sha256: str
    models: tuple[ModelWithCode, ...]
    who: str
    at: datetime
    reason: str
    code: tuple[CodePlace, ...]
    problem: str

    @property
    def is_waiting(self) -> bool:
        """Whether nobody has approved it."""
        return not self.who


def code_approvals(session: Session) -> list[CodeApproval]:
    """Return the code of all packages that hold some: what waits first, then the newest."""
    rows = session.scalars(select(CodeApprovalRow).order_by(CodeApprovalRow.at.desc())).all()
    models: dict[str, list[ModelRow]] = defaultdict(list)
    for model in session.scalars(select(ModelRow).order_by(ModelRow.name, ModelRow.id)):
        models[model.package_sha256].append(model)
    shown = [_approval(row, models[row.package_sha256]) for row in rows]
    return sorted(shown, key=lambda one: bool(one.who))


def approve(session: Session, package_sha256: str, decision: Decision) -> CodeApproval:
    """Let the code in packages of a digest run.

    Raises:
        ApprovalError: no code of this digest waits.
    """
    row = session.get(CodeApprovalRow, package_sha256)
    if row is None:
        raise ApprovalError("no registered package with code has this digest")
    if row.who:
        raise ApprovalError(f"this was approved before, by {row.who}")
    approve_code(session, package_sha256, who=decision.who, reason=decision.reason, now=decision.at)
    models = session.scalars(select(ModelRow).where(ModelRow.package_sha256 == package_sha256))
    return _approval(row, models.all())


def _approval(row: CodeApprovalRow, models: Sequence[ModelRow]) -> CodeApproval:
    code: tuple[CodePlace, ...] = ()
    problem = "" if models else "no registered version has this package"
    try:
        code = _code(models[0].package_path, row.package_sha256) if models else ()
    except PackageError as error:
        problem = str(error)
    return CodeApproval(
        package_sha256=row.package_sha256,
        models=tuple(ModelWithCode.model_validate(m, from_attributes=True) for m in models),
        who=row.who,
        at=row.at,
        reason=row.reason,
        code=code,
        problem=problem,
    )


@lru_cache(maxsize=64)
def _code(package_path: str, package_sha256: str) -> tuple[CodePlace, ...]:
    """Return the code of a registered package, which never changes."""
    found = code_in(registered_package(package_path, package_sha256))
    return tuple(CodePlace(file=one.file, place=one.place, text=one.text) for one in found)
