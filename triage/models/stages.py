"""From shadow to production and back: who changed a model's stage, when and why.

One version of a model is in production, at most one is its canary, and any number are shadows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.errors import TriageError
from triage.core.stages import Stage
from triage.models.packages import PackageError
from triage.models.placeholders import unfilled
from triage.models.registry import registered_package
from triage.store.breaker import unpark
from triage.store.code_approvals import CodeNotApprovedError, check_code_approved
from triage.store.model_events import record_event
from triage.store.model_tables import ModelEventRow, ModelRow

DEFAULT_SHARE = 0.2
PROMOTED, RETIRED, ROLLED_BACK = "promoted", "retired", "rolled-back"


class StageError(TriageError):
    """A stage cannot be changed so; `field` is what to change in the request."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class UnknownModelError(StageError):
    """No model of that name, or no such version of it, is registered."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Who decided, when and why."""

    who: str
    at: datetime
    reason: str

    def __post_init__(self) -> None:
        """Refuse a decision without a name or a reason."""
        if not self.who.strip():
            raise StageError("who", "say who decides this")
        if not self.reason.strip():
            raise StageError("reason", "say why; whoever looks at the history will ask")


def promote(
    session: Session,
    name: str,
    version: str,
    to: Stage,
    decision: Decision,
    *,
    share: float | None = None,
) -> ModelRow:
    """Bring a version to shadow, canary or production, and return its row.

    The version that was there before it makes room: the former one in production retires, and
    `rollback` brings it back; the former canary becomes a shadow.

    Args:
        session: a transaction.
        name: the model's name.
        version: the version.
        to: the stage.
        decision: who, when and why.
        share: of a canary, the part of the studies that it answers for, above 0 and below 1.

    Raises:
        StageError: there is no such version, or it cannot go there.
    """
    if to is Stage.RETIRED:
        raise StageError("to", "use retire for that")
    versions = _locked(session, name)
    model = _of_version(versions, name, version)
    share = _checked_share(to, share)
    if (model.stage, model.share) == (to, share):
        raise StageError("to", f"{name} {version} is in {to} already")
    if to is Stage.CANARY:
        _require_production_beside(versions, model)
    if to.counts:
        _require_filled(model)
    _require_ready(session, model)
    _make_room(session, versions, model, to, decision)
    _move(session, model, to, PROMOTED, decision, share=share)
    return model


def retire(session: Session, name: str, version: str, decision: Decision) -> ModelRow:
    """Let a version be asked no more; what it said stays.

    Raises:
        StageError: there is no such version, or it is retired already.
    """
    model = _of_version(_locked(session, name), name, version)
    if model.stage is Stage.RETIRED:
        raise StageError("version", f"{name} {version} is retired already")
    _move(session, model, Stage.RETIRED, RETIRED, decision)
    return model


def resume(session: Session, name: str, version: str, decision: Decision) -> ModelRow:
    """Let the runs of a version that failed too often go on at once, and return its row.

    Raises:
        StageError: there is no such version, or it is not parked.
    """
    model = _of_version(_locked(session, name), name, version)
    if model.parked_until is None:
        raise StageError("version", f"{name} {version} is not parked; its runs go on")
    unpark(session, model, who=decision.who, reason=decision.reason, now=decision.at)
    return model


def rollback(session: Session, name: str, decision: Decision) -> ModelRow:
    """Bring back the version that was in production before the present one; return its row.

    A second rollback goes one further back, and not forth again.

    Raises:
        StageError: there was none before.
    """
    versions = _locked(session, name)
    by_id = {model.id: model for model in versions}
    tenures = _tenures(session, by_id)
    earlier = [i for i in tenures if by_id[i].stage is not Stage.PRODUCTION]
    if not earlier:
        raise StageError("name", f"no version of {name} was in production before the present one")
    model = by_id[earlier[-1]]
    _require_ready(session, model)
    _make_room(session, versions, model, Stage.PRODUCTION, decision)
    _move(session, model, Stage.PRODUCTION, ROLLED_BACK, decision)
    return model


def record(
    session: Session,
    model: ModelRow,
    action: str,
    decision: Decision,
    *,
    before: Stage | None = None,
    after: Stage | None = None,
    share: float | None = None,
) -> None:
    """Add a line to a model's history."""
    record_event(
        session,
        model,
        action,
        who=decision.who,
        at=decision.at,
        reason=decision.reason,
        before=before,
        after=after,
        share=share,
    )


def versions_of(session: Session, name: str) -> Sequence[ModelRow]:
    """Return the registered versions of a model, the newest first.

    Raises:
        UnknownModelError: there is no model of that name.
    """
    return sorted(_versions(session, name), key=_number, reverse=True)


def version_of(session: Session, name: str, version: str) -> ModelRow:
    """Return one registered version.

    Raises:
        UnknownModelError: there is no such version.
    """
    return _of_version(_versions(session, name), name, version)


def _versions(session: Session, name: str, *, is_locking: bool = False) -> Sequence[ModelRow]:
    statement = select(ModelRow).where(ModelRow.name == name).order_by(ModelRow.id)
    rows = session.scalars(statement.with_for_update() if is_locking else statement).all()
    if not rows:
        known = session.scalars(select(ModelRow.name).distinct().order_by(ModelRow.name)).all()
        raise UnknownModelError(
            "name", f"no model {name} is registered; registered are: {', '.join(known) or 'none'}"
        )
    return rows


def _locked(session: Session, name: str) -> Sequence[ModelRow]:
    """Return all versions, locked: two promotions at once must not both find room."""
    return _versions(session, name, is_locking=True)


def _of_version(versions: Iterable[ModelRow], name: str, version: str) -> ModelRow:
    known = {model.version: model for model in versions}
    if version not in known:
        raise UnknownModelError(
            "version", f"{name} has no version {version}; registered are: {', '.join(known)}"
        )
    return known[version]


def _number(model: ModelRow) -> tuple[int, ...]:
    return tuple(map(int, model.version.split(".")))


def _checked_share(to: Stage, share: float | None) -> float:
    if to is not Stage.CANARY:
        if share is not None:
            raise StageError("share", f"only a canary has a share; leave it out for {to}")
        return 0.0
    share = DEFAULT_SHARE if share is None else share
    if not 0 < share < 1:
        raise StageError("share", f"give a number above 0 and below 1 (found {share:g})")
    return share


def _require_production_beside(versions: Iterable[ModelRow], model: ModelRow) -> None:
    if not any(v.stage is Stage.PRODUCTION and v is not model for v in versions):
        raise StageError(
            "to",
            f"a canary stands beside a version in production, and {model.name} has no other; "
            "promote to production or shadow",
        )


def _require_filled(model: ModelRow) -> None:
    keys = ", ".join(unfilled(model.manifest))
    if keys:
        raise StageError(
            "version", f"its model.yaml still leaves to be said: {keys}; register a new version"
        )


def _require_ready(session: Session, model: ModelRow) -> None:
    """Refuse a version whose package was damaged, or whose code nobody approved."""
    try:
        registered_package(model.package_path, model.package_sha256)
        check_code_approved(session, model)
    except (PackageError, CodeNotApprovedError, OSError) as error:
        raise StageError("version", f"its package cannot be used: {error}") from error


def _make_room(
    session: Session,
    versions: Iterable[ModelRow],
    coming: ModelRow,
    to: Stage,
    decision: Decision,
) -> None:
    going = {Stage.PRODUCTION: Stage.RETIRED, Stage.CANARY: Stage.SHADOW}.get(to)
    for model in versions:
        if going is not None and model is not coming and model.stage is to:
            for_whom = Decision(
                decision.who, decision.at, f"made room for {coming.version}: {decision.reason}"
            )
            action = RETIRED if going is Stage.RETIRED else PROMOTED
            _move(session, model, going, action, for_whom)


def _move(
    session: Session,
    model: ModelRow,
    to: Stage,
    action: str,
    decision: Decision,
    *,
    share: float = 0.0,
) -> None:
    before = model.stage
    model.stage = to
    model.share = share
    record(session, model, action, decision, before=before, after=to, share=share or None)
    session.flush()


def _tenures(session: Session, by_id: dict[int, ModelRow]) -> list[int]:
    """Return the versions that were in production, as a stack: a rollback takes one off."""
    events = session.scalars(
        select(ModelEventRow).where(ModelEventRow.model_id.in_(by_id)).order_by(ModelEventRow.id)
    )
    stack: list[int] = []
    for event in events:
        one = event.model_id
        if event.from_stage == Stage.PRODUCTION and one not in stack:
            stack.append(one)  # it was registered before events were
        elif event.to_stage == Stage.PRODUCTION:
            if one in stack:
                stack = stack[: stack.index(one)] if event.action == ROLLED_BACK else stack
                stack = [i for i in stack if i != one]
            stack.append(one)
    return stack
