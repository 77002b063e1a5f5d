"""Received instances become studies; quiet studies become complete and get their runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    delete,
    exists,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session, joinedload, lazyload, selectinload

from triage.core.completeness import Bounds, QuietPeriods, completion_reason
from triage.core.manifest import ModelManifest
from triage.core.orders import PatientIdentifier
from triage.core.places import Source
from triage.core.priority import Priority
from triage.core.routing import InputSelection, select_inputs, shortened
from triage.core.runs import RunState, StudyState, check_transition
from triage.core.stages import RUNNING_STAGES, Stage, is_in_share
from triage.core.studies import Series, Study, inputs_digest
from triage.store.arrivals import ASSOCIATION_IS_DEAD_AFTER, load_arrivals
from triage.store.chunks import MOST_IN_A_STATEMENT, chunks
from triage.store.code_approvals import WAITS_FOR_APPROVAL, waiting_digests
from triage.store.contents import load_study, priors_of
from triage.store.files import StoredFile
from triage.store.history import SHADOW_KIND, note
from triage.store.merges import survivor_of
from triage.store.model_tables import ModelRow
from triage.store.orders import link_known_order
from triage.store.prior_searches import is_searching, is_wanted_as_prior, wait_for_priors
from triage.store.prioritising import place_first, reprioritise
from triage.store.run_inputs import (
    RunInput,
    keep_further_inputs,
    reopen_where_input_changed,
    run_inputs_of,
)
from triage.store.study_workitems import follow_study, schedule_reading
from triage.store.tables import (
    AnalysisRunRow,
    ArchiveCountRow,
    ArrivalSignalRow,
    InstanceRow,
    OpenAssociationRow,
    PatientRow,
    SeriesRow,
    StudyRow,
    stand_in_patient_id,
)
from triage.store.withdrawals import withdraw_superseded

# The statements of record_instance are built once: it runs for every image that arrives.
# The study is locked, because it may be becoming complete at this moment: without the lock, an
# image that is committed just after would belong to a complete study that nothing reopens.
_SELECT_STUDY = (
    select(StudyRow)
    .where(StudyRow.study_instance_uid == bindparam("uid"))
    .options(lazyload(StudyRow.patient))
    .with_for_update(key_share=True, of=StudyRow)
)
_SELECT_SERIES_ID = select(SeriesRow.id).where(
    SeriesRow.study_id == bindparam("study_id"), SeriesRow.series_instance_uid == bindparam("uid")
)
_SELECT_SAME_UID = (
    select(InstanceRow.id, InstanceRow.sha256, InstanceRow.purged_at, InstanceRow.conflicts_with)
    .where(InstanceRow.sop_instance_uid == bindparam("uid"))
    .order_by(InstanceRow.id)
)
_INSERT_INSTANCE = insert(InstanceRow).returning(InstanceRow.id)
_BODY_PART = 16  # the length of a Code String, of which there should be one


@dataclass(frozen=True, slots=True)
class ReceivedInstance:
    """An instance whose file is durable, ready to be indexed.

    Text values are those of the DICOM attributes, empty where the object has none.
    `headers` are the attributes of `triage.core.studies.IMAGE_HEADER_KEYWORDS`.
    `is_prior` says that it was fetched for comparison with a later study of the patient.
    """

    file: StoredFile
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str
    calling_ae_title: str
    received_at: datetime
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    accession_number: str = ""
    study_description: str = ""
    study_date: str = ""
    study_time: str = ""
    requested_procedure_priority: str = ""
    modality: str = ""
    series_number: int | None = None
    series_description: str = ""
    body_part: str = ""
    instance_number: int | None = None
    headers: dict[str, Any] = field(default_factory=dict)
    is_prior: bool = False


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of an instance: indexed anew, known already, or in conflict with a first one."""

    study_id: int
    series_id: int
    is_duplicate: bool = False
    is_conflict: bool = False


class FileIsGoneError(Exception):
    """The instance's file was deleted by retention just before it could be indexed."""


def record_instance(
    session: Session,
    received: ReceivedInstance,
    file_exists: Callable[[str], bool] = lambda _: False,
) -> Recorded:
    """Index one instance whose file is durable.

    The same UID with the same content is accepted quietly. The same UID with other content is kept
    beside the first and noted as a conflict. A new instance of a complete study reopens it, and so
    does one whose file retention had deleted.

    Args:
        session: a transaction.
        received: the instance.
        file_exists: asked for the path of a file that retention may just be deleting, with the
            study locked; without it such an instance is never indexed.

    Raises:
        FileIsGoneError: the sender must send the instance again.
    """
    with session.no_autoflush:  # each step below writes what the next one reads
        return _record(session, received, file_exists)


def _record(
    session: Session, received: ReceivedInstance, file_exists: Callable[[str], bool]
) -> Recorded:
    study = _study_of(session, received)
    if study.is_prior and not received.is_prior:
        text = f"an image came from {received.calling_ae_title or 'an unnamed sender'}"
        make_ordinary(session, study, text, received.received_at)
    series_id = _series_id_of(session, study, received)
    same_uid = session.execute(_SELECT_SAME_UID, {"uid": received.sop_instance_uid}).all()
    for known in same_uid:
        if known.sha256 == received.file.sha256:
            if known.purged_at is None:
                return Recorded(study.id, series_id, is_duplicate=True)
            _restore(session, received, known.id, file_exists)
            _note_arrival(session, study, received, "an image came again after it was purged")
            return Recorded(study.id, series_id)
    used = next((known for known in same_uid if known.conflicts_with is None), None)
    is_beside = used is not None and used.purged_at is None
    first_id = used.id if used is not None and is_beside else None
    row_id = _insert_instance(session, received, series_id, conflicts_with=first_id)
    if same_uid:
        text = f"instance {received.sop_instance_uid} came again with other content; both are kept"
        note(session, study.id, "conflict", text, at=received.received_at)
    if is_beside:
        return Recorded(study.id, series_id, is_conflict=True)
    if used is not None:  # its file is gone, so the one that has a file is used from now on
        session.execute(
            update(InstanceRow).where(InstanceRow.id == used.id).values(conflicts_with=row_id)
        )
    _note_arrival(session, study, received, "an image arrived late")
    return Recorded(study.id, series_id, is_conflict=bool(same_uid))


def _note_arrival(session: Session, study: StudyRow, received: ReceivedInstance, late: str) -> None:
    study.last_instance_at = max(study.last_instance_at, received.received_at)
    if study.state is StudyState.COMPLETE:
        study.state = StudyState.RECEIVING
        study.receiving_since = received.received_at
        study.purged_at = None
        study.purge_reason = ""
        note(session, study.id, "reopened", late, at=received.received_at)
        follow_study(session, study, received.received_at)


def _restore(
    session: Session,
    received: ReceivedInstance,
    instance_id: int,
    file_exists: Callable[[str], bool],
) -> None:
    # The file was written before the study was locked: retention may have deleted it in between,
    # taking it for the old one. From here on it cannot.
    if not file_exists(received.file.path):
        raise FileIsGoneError(received.file.path)
    session.execute(
        update(InstanceRow)
        .where(InstanceRow.id == instance_id)
        .values(
            path=received.file.path,
            headers=received.headers,
            received_at=received.received_at,
            purged_at=None,
        )
    )


def _insert_instance(
    session: Session, received: ReceivedInstance, series_id: int, *, conflicts_with: int | None
) -> int:
    values = instance_values(received, series_id, conflicts_with=conflicts_with)
    return session.execute(_INSERT_INSTANCE, values).scalar_one()


def instance_values(
    received: ReceivedInstance, series_id: int, *, conflicts_with: int | None
) -> dict[str, Any]:
    """Return the columns of an instance's row."""
    return {
        "series_id": series_id,
        "sop_instance_uid": received.sop_instance_uid,
        "sop_class_uid": received.sop_class_uid[:64],
        "transfer_syntax_uid": received.transfer_syntax_uid[:64],
        "number": received.instance_number,
        "path": received.file.path,
        "size_bytes": received.file.size_bytes,
        "sha256": received.file.sha256,
        "headers": received.headers,
        "calling_ae_title": received.calling_ae_title[:16],
        "received_at": received.received_at,
        "acquisition_number": _number(received.headers.get("AcquisitionNumber")),
        "images_in_acquisition": _number(received.headers.get("ImagesInAcquisition")),
        "conflicts_with": conflicts_with,
    }


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 2**31 else None


def _study_of(session: Session, received: ReceivedInstance) -> StudyRow:
    study = session.scalar(_SELECT_STUDY, {"uid": received.study_instance_uid})
    if study is not None:
        if study.forgotten_at is not None:
            _remember(session, study, received)
        study.modalities = with_modality(study.modalities, received.modality)
        return study
    order = Priority.of_order(received.requested_procedure_priority)
    # Whoever says that it is a prior: only what a study here wants can be kept off the worklist.
    is_prior = received.is_prior and is_wanted_as_prior(session, received.study_instance_uid)
    study = StudyRow(
        study_instance_uid=received.study_instance_uid,
        patient_id=_patient_of(session, received).id,
        accession_number=received.accession_number[:64],
        description=received.study_description[:128],
        study_date=received.study_date[:10],
        study_time=received.study_time[:16],
        modalities=received.modality[:128],
        calling_ae_title=received.calling_ae_title[:16],
        order_priority=order,
        priority=order,
        first_instance_at=received.received_at,
        last_instance_at=received.received_at,
        receiving_since=received.received_at,
        is_prior=is_prior,
    )
    session.add(study)
    session.flush()
    text = f"first image from {received.calling_ae_title or 'an unnamed sender'}"
    if is_prior:
        text += ", fetched as a prior: not for the worklist"
    note(session, study.id, "received", text, at=received.received_at)
    said = f"the order says {received.requested_procedure_priority or 'nothing'}"
    place_first(session, study, said, now=received.received_at)
    link_known_order(session, study, now=received.received_at)
    return study


def _remember(session: Session, study: StudyRow, received: ReceivedInstance) -> None:
    """Give a study whose patient data retention had deleted those of its newly sent image."""
    study.patient_id = _patient_of(session, received).id
    study.accession_number = received.accession_number[:64]
    study.description = received.study_description[:128]
    study.study_date = received.study_date[:10]
    study.study_time = received.study_time[:16]
    study.forgotten_at = None
    link_known_order(session, study, now=received.received_at)


def make_ordinary(session: Session, study: StudyRow, because: str, now: datetime) -> None:
    """Turn a prior into a study like every other: it goes on the worklist and is analysed.

    It waits from now on: what was fetched before, nobody had asked to be read.
    """
    study.is_prior = False
    study.read_at = None
    study.state = StudyState.RECEIVING
    study.first_instance_at = study.last_instance_at = study.receiving_since = now
    text = f"no longer only a prior: {because}"
    note(session, study.id, "reopened", text, at=now)
    reprioritise(session, study, Source.ORDER, text, now=now)


def _patient_of(session: Session, received: ReceivedInstance) -> PatientRow:
    identity = (received.patient_id[:128], received.issuer_of_patient_id[:128])
    if not identity[0]:  # without a Patient ID, two studies cannot be known to be one patient's
        identity = (stand_in_patient_id(received.study_instance_uid), "")
    patient = _known_patient(session, identity)
    survivor = survivor_of(session, PatientIdentifier(*identity))
    if (survivor.value, survivor.issuer) != identity:  # merged, and images still name the old one
        identity = (survivor.value, survivor.issuer)
        patient = _known_patient(session, identity)
    if patient is None:
        patient = PatientRow(
            patient_id=identity[0],
            issuer=identity[1],
            name=received.patient_name[:400],
            birth_date=received.patient_birth_date[:10],
            sex=received.patient_sex[:16],
        )
        session.add(patient)
        session.flush()
    return patient


def _known_patient(session: Session, identity: tuple[str, str]) -> PatientRow | None:
    # Locked against a merge at this moment, which would not see the study that is to come.
    return session.scalar(
        select(PatientRow)
        .where(PatientRow.patient_id == identity[0], PatientRow.issuer == identity[1])
        .with_for_update(read=True, key_share=True)
    )


def _series_id_of(session: Session, study: StudyRow, received: ReceivedInstance) -> int:
    known = session.scalar(
        _SELECT_SERIES_ID, {"study_id": study.id, "uid": received.series_instance_uid}
    )
    if known is not None:
        return known
    series = SeriesRow(**series_values(received, study.id))
    session.add(series)
    study.body_parts = with_body_part(study.body_parts, received.body_part)
    session.flush()
    return series.id


def series_values(received: ReceivedInstance, study_id: int) -> dict[str, Any]:
    """Return the columns of the row of a series, as its first instance describes it."""
    return {
        "study_id": study_id,
        "series_instance_uid": received.series_instance_uid,
        "modality": received.modality[:16],
        "number": received.series_number,
        "description": received.series_description[:128],
        "body_part": received.body_part[:_BODY_PART],
        "is_result": False,
        "considered_images": 0,
    }


def with_modality(modalities: str, modality: str) -> str:
    """Return the modalities of a study, that of one more of its images included."""
    return "\\".join(sorted({*modalities.split("\\"), modality} - {""}))[:128]


def with_body_part(body_parts: str, body_part: str) -> str:
    """Return the body parts of a study, that of one more of its series included."""
    return "\\".join(sorted({*body_parts.split("\\"), body_part[:_BODY_PART].upper()} - {""}))[:128]


def hold_open(
    session: Session, study_id: int, *, association: str, receiver: str, now: datetime
) -> None:
    """Note that `association` has sent images of the study and may send more.

    `keep_associations_alive` renews the heartbeat of the note.
    """
    known = session.scalar(
        select(OpenAssociationRow.id).where(
            OpenAssociationRow.association == association, OpenAssociationRow.study_id == study_id
        )
    )
    if known is None:
        session.add(OpenAssociationRow(**hold_values(study_id, association, receiver, now)))


def hold_values(study_id: int, association: str, receiver: str, now: datetime) -> dict[str, Any]:
    """Return the columns of the note that an association may send more of a study."""
    return {
        "association": association,
        "receiver": receiver,
        "study_id": study_id,
        "alive_at": now,
    }


def release_association(session: Session, association: str) -> None:
    """Note that `association` is gone, by release, abort or a broken connection."""
    session.execute(delete(OpenAssociationRow).where(OpenAssociationRow.association == association))


def release_receiver(session: Session, receiver: str) -> None:
    """Forget the associations of a receiver that is no longer running."""
    session.execute(delete(OpenAssociationRow).where(OpenAssociationRow.receiver == receiver))


def keep_associations_alive(session: Session, receiver: str, now: datetime) -> None:
    """Renew the heartbeat of the receiver's open associations."""
    session.execute(
        update(OpenAssociationRow)
        .where(OpenAssociationRow.receiver == receiver)
        .values(alive_at=now)
    )


def complete_quiet_studies(
    session: Session, quiet: QuietPeriods, now: datetime, bounds: Bounds | None = None
) -> list[int]:
    """Complete each study that is due at `now`, queue its runs, and return the ids of the studies.

    The change to complete and the runs are one transaction (transactional outbox): there is no
    moment at which a complete study could be forgotten.
    """
    session.execute(
        delete(OpenAssociationRow).where(
            OpenAssociationRow.alive_at < now - ASSOCIATION_IS_DEAD_AFTER
        )
    )
    locked = lock_studies(session, _due_studies(session, quiet, now, bounds)[:MOST_IN_A_STATEMENT])
    # Asked again, now that the studies are locked: images or associations may have come since.
    arrivals = load_arrivals(session, locked, now)
    completed = []
    for study in locked:
        reason = completion_reason(arrivals[study.id], quiet, now, bounds)
        if study.state is StudyState.RECEIVING and reason is not None:
            if not lock_runs(session, study.id):
                continue
            if not reopen_where_input_changed(session, study, now):
                continue
            complete_study(session, study, reason, now)
            completed.append(study.id)
    return completed


def is_any_arriving(session: Session) -> bool:
    """Return whether there is a study that time alone may make complete; a cheap read."""
    return session.scalar(_SELECT_ARRIVING) is not None


def has_quiet_studies(
    session: Session, quiet: QuietPeriods, now: datetime, bounds: Bounds | None = None
) -> bool:
    """Return whether `complete_quiet_studies` might find one; it reads without any lock."""
    return bool(_due_studies(session, quiet, now, bounds))


def _due_studies(
    session: Session, quiet: QuietPeriods, now: datetime, bounds: Bounds | None
) -> list[int]:
    candidates = session.scalars(
        _SELECT_CANDIDATES,
        {
            "quiet_since": now - quiet.shortest,
            "alive_since": now - ASSOCIATION_IS_DEAD_AFTER,
            "begun_before": now - (bounds or Bounds()).maximum_age,
        },
    ).all()
    due = []
    for some in chunks(candidates):
        arrivals = load_arrivals(session, some, now)
        due += [s.id for s in some if completion_reason(arrivals[s.id], quiet, now, bounds)]
    return due


def lock_studies(session: Session, ids: Sequence[int]) -> Sequence[StudyRow]:
    """Lock and read again those of the studies that nobody else is writing, oldest first."""
    if not ids:
        return []
    return session.scalars(
        select(StudyRow)
        .where(StudyRow.id.in_(ids))
        .order_by(StudyRow.last_instance_at, StudyRow.id)
        .with_for_update(skip_locked=True, key_share=True, of=StudyRow)
        .execution_options(populate_existing=True)
    ).all()


def lock_runs(session: Session, study_id: int) -> bool:
    """Lock the study's runs; return False where a worker is just writing one of them.

    A worker locks its run and then the study. Whoever holds the study must not wait for a run.
    """
    runs = select(AnalysisRunRow.id).where(
        AnalysisRunRow.study_id == study_id, AnalysisRunRow.state != RunState.SUPERSEDED
    )
    locked = session.scalars(runs.with_for_update(skip_locked=True, of=AnalysisRunRow)).all()
    return len(locked) == len(session.scalars(runs).all())


def _may_be_complete() -> ColumnElement[bool]:
    """Return the condition that is cheap to ask: quiet and released, too old, or with a signal."""
    is_held_open = exists(
        select(OpenAssociationRow.id).where(
            OpenAssociationRow.study_id == StudyRow.id,
            OpenAssociationRow.alive_at >= bindparam("alive_since"),
        )
    )
    is_announced = exists(
        select(ArrivalSignalRow.id).where(
            ArrivalSignalRow.study_instance_uid == StudyRow.study_instance_uid
        )
    )
    is_counted = exists(
        select(ArchiveCountRow.study_id).where(
            ArchiveCountRow.study_id == StudyRow.id,
            ArchiveCountRow.equal_since > StudyRow.last_instance_at,
        )
    )
    return and_(
        StudyRow.state == StudyState.RECEIVING,
        or_(
            and_(StudyRow.last_instance_at <= bindparam("quiet_since"), ~is_held_open),
            StudyRow.receiving_since <= bindparam("begun_before"),
            is_announced,
            is_counted,
        ),
    )


# Built once, as those of record_instance: they are asked a few times a second.
_SELECT_ARRIVING = select(StudyRow.id).where(StudyRow.state == StudyState.RECEIVING).limit(1)
_SELECT_CANDIDATES = (
    select(StudyRow)
    .where(_may_be_complete())
    .options(lazyload(StudyRow.patient))
    .order_by(StudyRow.last_instance_at, StudyRow.id)
)


def complete_study(session: Session, study: StudyRow, reason: str, now: datetime) -> None:
    """Mark the study complete and queue a run for each model that wants one of its series.

    A run that analysed, or is analysing, the very instances that the model would get now stands.
    """
    study.state = StudyState.COMPLETE
    study.completed_at = now
    study.completion_reason = reason
    note(session, study.id, "complete", reason, at=now)
    # An order that was told at the same moment as the first image came saw no study.
    link_known_order(session, study, now=now)
    if study.is_prior:
        return  # neither analysed nor moved on the worklist
    schedule_reading(session, study, now)
    study.generation += 1
    available_at = wait_for_priors(session, study.id, now)
    live = live_runs(session, study.id)
    for want in wanted_runs(session, study):
        _carry_out(
            session, study, want, live.pop(want.model.id, None), now=now, available_at=available_at
        )
    for run in live.values():  # of models that are no longer asked
        supersede_run(session, run, "the model is no longer in use", now)


def _carry_out(
    session: Session,
    study: StudyRow,
    want: WantedRun,
    earlier: AnalysisRunRow | None,
    *,
    now: datetime,
    available_at: datetime,
) -> None:
    """Let the model's earlier run stand, or supersede it and queue the one that is wanted."""
    if earlier is not None:
        if want.is_on_input_of(earlier) and earlier.state is not RunState.FAILED:
            earlier.generation = study.generation
            text = f"{identity_of(want.model)}: its analysis of the same images stands"
            note(session, study.id, "routed", text, at=now, run_id=earlier.id)
            return
        is_other = want.series_id not in (None, earlier.series_id)
        reason = (
            "another series fits the model better"
            if is_other
            else "more images of the study arrived"
        )
        supersede_run(session, earlier, reason, now)
    if want.series is None:
        text = f"{identity_of(want.model)}: {want.reason}"
        kind = "not-routed" if want.model.stage.counts else SHADOW_KIND
        note(session, study.id, kind, text, at=now)
        return
    text = f"queued for {identity_of(want.model)}: {want.reason}"
    queue_run(session, study, want, text, now, available_at=available_at)


@dataclass(frozen=True, slots=True)
class WantedRun:
    """A model, and the series of a study that it gets, or why it gets none.

    Attributes:
        model: the model.
        inputs: what it gets, its first input first; empty where it gets nothing.
        reason: why it gets what it gets, or nothing.
        waits_for_prior: whether one of its inputs is a prior that may still come.
    """

    model: ModelRow
    inputs: tuple[RunInput, ...]
    reason: str
    waits_for_prior: bool = False

    @property
    def series(self) -> Series | None:
        """The series of the first input, or None."""
        return self.inputs[0].series if self.inputs else None

    @property
    def series_id(self) -> int | None:
        """The row of that series, or None."""
        return self.inputs[0].series_id if self.inputs else None

    @property
    def digest(self) -> str:
        """The digest of all instances of all inputs."""
        return inputs_digest((one.name, one.series) for one in self.inputs)

    def is_on_input_of(self, run: AnalysisRunRow | None) -> bool:
        """Return whether `run` is on exactly the instances that the model would get now."""
        return (
            run is not None
            and bool(self.inputs)
            and run.series_id == self.series_id
            and run.instances_sha256 == self.digest
        )


def wanted_runs(session: Session, study: StudyRow) -> list[WantedRun]:
    """Return what each model that is asked gets of the images that are here.

    Shadows are asked for every study. Of a canary and the version in production one is asked, the
    canary for its share of the studies; but both are where the canary gets nothing or is parked,
    and where production was asked about this study before. A model whose code nobody approved
    gets nothing.
    """
    models = session.scalars(
        select(ModelRow).where(ModelRow.stage.in_(RUNNING_STAGES)).order_by(ModelRow.id)
    ).all()
    asked = [m for m in models if m.stage is not Stage.CANARY or _is_in_share(m, study)]
    wanted = _wants(session, study, asked)
    answered = {w.model.name for w in wanted if _answers_alone(w)}
    if not answered:
        return wanted
    asked_before = live_runs(session, study.id)
    return [
        want
        for want in wanted
        if want.model.stage is not Stage.PRODUCTION
        or want.model.name not in answered
        or want.model.id in asked_before
    ]


def want_of(session: Session, study: StudyRow, model: ModelRow) -> WantedRun:
    """Return what one model gets of the images that are here, whatever its stage."""
    return _wants(session, study, [model])[0]


def _wants(session: Session, study: StudyRow, models: Sequence[ModelRow]) -> list[WantedRun]:
    content = load_study(session, study.id)
    # Priors have as many images as the study: they are read only for a model that compares.
    priors = priors_of(session, study.id) if any(map(_compares, models)) else ()
    may_get_priors = is_searching(session, study.id)
    waiting = waiting_digests(session)
    wanted = []
    for model in models:
        if model.package_sha256 in waiting:
            wanted.append(WantedRun(model, (), WAITS_FOR_APPROVAL))
            continue
        selected = _route(content, model, priors, may_get_priors=may_get_priors)
        inputs = run_inputs_of(session, selected.chosen)
        reason = selected.refusal or shortened(selected.remarks)
        wanted.append(WantedRun(model, inputs, reason, selected.waits_for_prior))
    return wanted


def _compares(model: ModelRow) -> bool:
    return any(one.get("from") == "prior" for one in model.manifest.get("inputs", ()))


def _is_in_share(canary: ModelRow, study: StudyRow) -> bool:
    return is_in_share(canary.name, study.study_instance_uid, canary.share)


def _answers_alone(want: WantedRun) -> bool:
    model = want.model
    return model.stage is Stage.CANARY and want.series is not None and model.parked_until is None


def live_runs(session: Session, study_id: int) -> dict[int, AnalysisRunRow]:
    """Return the study's runs that are not superseded, the newest of each model, by model."""
    rows = session.scalars(
        select(AnalysisRunRow)
        .where(AnalysisRunRow.study_id == study_id, AnalysisRunRow.state != RunState.SUPERSEDED)
        .order_by(AnalysisRunRow.generation, AnalysisRunRow.id)
        .execution_options(populate_existing=True)
    )
    return {run.model_id: run for run in rows}


def queue_run(
    session: Session,
    study: StudyRow,
    want: WantedRun,
    text: str,
    now: datetime,
    *,
    available_at: datetime | None = None,
) -> AnalysisRunRow:
    """Queue a run of the study's present generation, and say so in the history.

    It may begin at `available_at`, or at once.
    """
    if want.series is None or want.series_id is None:
        raise ValueError(f"{identity_of(want.model)} gets no series of study {study.id}")
    run = AnalysisRunRow(
        study_id=study.id,
        model_id=want.model.id,
        series_id=want.series_id,
        generation=study.generation,
        state=RunState.PENDING,
        priority=study.priority,
        ranked_at=study.ranked_at,
        stage=want.model.stage,
        available_at=available_at or now,
        created_at=now,
        instances_sha256=want.digest,
    )
    session.add(run)
    session.flush()
    keep_further_inputs(session, run.id, want.inputs[1:])
    note(session, study.id, "routed", text, at=now, run_id=run.id)
    return run


def _route(
    study: Study, model: ModelRow, priors: Sequence[Study], *, may_get_priors: bool
) -> InputSelection:
    """Return the series that `model` gets, or why it gets none.

    A manifest or a header that makes routing fail is such a reason: raised instead, it would keep
    this study, and every other that is due with it, incomplete for ever.
    """
    try:
        manifest = ModelManifest.model_validate(model.manifest)
        return select_inputs(study, manifest, priors, may_get_priors=may_get_priors)
    except (ValueError, TypeError, ArithmeticError, LookupError, RecursionError) as error:
        return InputSelection((), f"routing failed: {type(error).__name__}", ())


def identity_of(model: ModelRow) -> str:
    """Return the model's name and version."""
    return f"{model.name} {model.version}"


def supersede_run(session: Session, run: AnalysisRunRow, reason: str, now: datetime) -> None:
    """Let a run no longer count, and take back what it left; the priority that it raised stays.

    What archives have of it is rejected once the newer run has something to put in its place, see
    `triage.store.withdrawals`.
    """
    check_transition(run.id, run.state, RunState.SUPERSEDED)
    run.state = RunState.SUPERSEDED
    run.reason = reason
    withdraw_superseded(session, run, reason, now=now)
    note(session, run.study_id, "superseded", reason, at=now, run_id=run.id)


def find_study(session: Session, study_instance_uid: str) -> StudyRow | None:
    """Return the study with its patient and series, or None if Triage holds no such study."""
    return session.scalar(
        select(StudyRow)
        .where(StudyRow.study_instance_uid == study_instance_uid)
        .options(joinedload(StudyRow.patient), selectinload(StudyRow.series))
    )
