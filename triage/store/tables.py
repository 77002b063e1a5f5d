"""The tables. The database holds the truth about every study, run, result and delivery."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from sqlalchemy import (
    BigInteger,
    Connection,
    Float,
    ForeignKey,
    Index,
    String,
    Text,
    TextClause,
    UniqueConstraint,
    event,
    false,
    inspect,
    text,
    true,
)
from sqlalchemy.orm import Mapped, Mapper, mapped_column, relationship

from triage.core.commitment import CommitmentState, ReportState
from triage.core.priority import Priority
from triage.core.priors import PriorState, SearchState
from triage.core.remote import RemoteState, ReturnedState
from triage.core.runs import DeliveryKind, DeliveryState, RunState, StudyState
from triage.core.stages import Stage
from triage.core.withdrawals import WithdrawalReason, WithdrawalState
from triage.store import (  # noqa: F401 - they belong to the same schema
    answer_tables,
    attempt_tables,
    audit_tables,
    notification_tables,
    policy_tables,
    user_tables,
    visit_tables,
    workitem_tables,
)
from triage.store.base import Key, Table, state_of
from triage.store.model_tables import ModelRow
from triage.store.order_tables import OrderRow
from triage.store.worklist_tables import write_words

_TO_DELETE = text("purged_at IS NOT NULL AND path <> ''")
_NOT_QUEUED = text("NOT is_queued")
# As SQLAlchemy writes the conditions of the list; SQLite uses a partial index only for the same.
_IS_READ = text("read_at IS NOT NULL")
_ON_SQLITE_LIST = text("read_at IS NULL AND is_prior IS 0")
_ON_POSTGRESQL_LIST = text("read_at IS NULL AND is_prior IS false")


def _index_of_list(name: str, *columns: str | TextClause) -> Index:
    """Return an index of the studies that are to be read."""
    return Index(name, *columns, sqlite_where=_ON_SQLITE_LIST, postgresql_where=_ON_POSTGRESQL_LIST)


def _same_as(column: str) -> Callable[[Any], datetime]:
    """Return a default that is what another column of the same row has."""

    def moment(context: Any) -> datetime:
        return cast(datetime, context.get_current_parameters()[column])

    return moment


STAND_IN_PREFIX = "(none) "
"""What the stand-in for a missing Patient ID begins with; it is never told to anybody outside."""


def stand_in_patient_id(study_instance_uid: str) -> str:
    """Return the Patient ID of a study that has none: without one, no two are known to be one's."""
    return STAND_IN_PREFIX + study_instance_uid


class PatientRow(Table):
    """A patient, as Patient ID and Issuer of Patient ID name one."""

    __tablename__ = "patients"
    __table_args__ = (UniqueConstraint("patient_id", "issuer"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    patient_id: Mapped[str] = mapped_column(String(128), default="")
    issuer: Mapped[str] = mapped_column(String(128), default="")
    name: Mapped[str] = mapped_column(String(400), default="")
    birth_date: Mapped[str] = mapped_column(String(10), default="")
    sex: Mapped[str] = mapped_column(String(16), default="")


@event.listens_for(PatientRow, "after_insert")
@event.listens_for(PatientRow, "after_update")
def _write_words(_: Mapper[PatientRow], connection: Connection, patient: PatientRow) -> None:
    """Keep the words by which the patient is found, whoever writes the row."""
    state = inspect(patient)
    if not any(state.attrs[name].history.has_changes() for name in ("name", "patient_id")):
        return
    is_stand_in = patient.patient_id.startswith(STAND_IN_PREFIX)
    write_words(connection, patient.id, patient.name, "" if is_stand_in else patient.patient_id)


class StudyRow(Table):
    """A study: what it is, whether it is complete, and how urgent it is.

    `generation` counts how often the study was put up for analysis; runs carry the generation that
    they belong to, so a late image supersedes the runs of the earlier one. `receiving_since` is the
    moment at which it began to arrive, or was reopened. `purged_at` is set while its images are
    deleted by retention, `forgotten_at` while its patient data are. `is_prior` marks a study that
    was fetched for comparison with a later one: it is not on the worklist and is not analysed.
    `order_id` is the order that messages told of it, `location` and `patient_class` (HL7 table
    0004) where they say that the patient is.

    Its place on the list is `priority` and, within it, `ranked_at`: when it came, less the minutes
    that its `points` are worth; `priority_without_ai` is what its class would be if the AI said
    nothing (None until it is ranked for the first time). `ai_points` are those that the AI asks
    for. `due_at` is when it should be read, `rises_at` when its wait alone moves it up, `ranked_by`
    the number of the event of the policy by which all that was computed
    (`triage.store.prioritising`). `raised_to` is set while a person's raise counts.
    """

    __tablename__ = "studies"
    __table_args__ = (
        Index("ix_studies_open", "state", "last_instance_at"),
        # Not of those to be read: SQLite would look them up here, and then sort them all.
        Index("ix_studies_read", "read_at", "id", sqlite_where=_IS_READ, postgresql_where=_IS_READ),
        _index_of_list("ix_studies_ranked_by", "ranked_by"),
        _index_of_list("ix_studies_rises_at", "rises_at"),
        Index(
            "ix_studies_accession_prefix",
            "accession_number",
            postgresql_ops={"accession_number": "text_pattern_ops"},
        ),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    patient_id: Mapped[int] = mapped_column(ForeignKey("patients.id"), index=True)
    accession_number: Mapped[str] = mapped_column(String(64), default="", index=True)
    description: Mapped[str] = mapped_column(String(128), default="")
    study_date: Mapped[str] = mapped_column(String(10), default="")
    study_time: Mapped[str] = mapped_column(String(16), default="")
    modalities: Mapped[str] = mapped_column(String(128), default="")
    body_parts: Mapped[str] = mapped_column(String(128), default="", server_default="")
    calling_ae_title: Mapped[str] = mapped_column(String(16), default="")
    state: Mapped[StudyState] = mapped_column(state_of(StudyState), default=StudyState.RECEIVING)
    generation: Mapped[int] = mapped_column(default=0)
    completion_reason: Mapped[str] = mapped_column(Text, default="")
    order_priority: Mapped[Priority] = mapped_column(default=Priority.ROUTINE)
    ai_priority: Mapped[Priority | None] = mapped_column(default=None)
    ai_reason: Mapped[str] = mapped_column(Text, default="")
    ai_points: Mapped[int] = mapped_column(default=0, server_default="0")
    priority: Mapped[Priority] = mapped_column(default=Priority.ROUTINE)
    priority_without_ai: Mapped[Priority | None] = mapped_column(default=None)
    points: Mapped[int] = mapped_column(default=0, server_default="0")
    ranked_at: Mapped[datetime] = mapped_column(default=_same_as("first_instance_at"))
    ranked_by: Mapped[int] = mapped_column(default=-1, server_default="-1")
    due_at: Mapped[datetime | None] = mapped_column(default=None)
    rises_at: Mapped[datetime | None] = mapped_column(default=None)
    raised_to: Mapped[Priority | None] = mapped_column(default=None)
    raised_by: Mapped[str] = mapped_column(String(128), default="", server_default="")
    raised_reason: Mapped[str] = mapped_column(Text, default="", server_default="")
    raised_at: Mapped[datetime | None] = mapped_column(default=None)
    first_instance_at: Mapped[datetime]
    last_instance_at: Mapped[datetime]
    receiving_since: Mapped[datetime | None] = mapped_column(default=None)
    completed_at: Mapped[datetime | None] = mapped_column(default=None)
    read_at: Mapped[datetime | None] = mapped_column(default=None)
    purged_at: Mapped[datetime | None] = mapped_column(default=None)
    purge_reason: Mapped[str] = mapped_column(Text, default="")
    forgotten_at: Mapped[datetime | None] = mapped_column(default=None)
    is_prior: Mapped[bool] = mapped_column(default=False, server_default=false())
    order_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id"), index=True)
    location: Mapped[str] = mapped_column(String(128), default="", server_default="")
    patient_class: Mapped[str] = mapped_column(String(16), default="", server_default="")

    order: Mapped[OrderRow | None] = relationship()
    patient: Mapped[PatientRow] = relationship(lazy="joined")
    series: Mapped[list[SeriesRow]] = relationship(
        back_populates="study", order_by="SeriesRow.number, SeriesRow.id"
    )


# The worklist in reading order, with what it is filtered and counted by: a page or a count of
# 100,000 studies looks at no row that it does not show.
Index(
    "ix_studies_to_read",
    StudyRow.priority.desc(),
    StudyRow.ranked_at,
    StudyRow.id,
    StudyRow.modalities,
    StudyRow.body_parts,
    StudyRow.patient_class,
    StudyRow.location,
    StudyRow.ai_priority,
    # SQLite looks at these again, and would read the row for them.
    StudyRow.read_at,
    StudyRow.is_prior,
    sqlite_where=_ON_SQLITE_LIST,
    postgresql_where=_ON_POSTGRESQL_LIST,
)


class SeriesRow(Table):
    """A series of a study. `is_result` marks what Triage itself made.

    `considered_images` is how many images it had when it was last put up for an analysis that does
    not wait for the study. Its UID is unique within the study only: where a modality uses one UID
    again for another patient, their images must not end up in one series.
    """

    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("study_id", "series_instance_uid"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    series_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    modality: Mapped[str] = mapped_column(String(16), default="")
    number: Mapped[int | None]
    description: Mapped[str] = mapped_column(String(128), default="")
    body_part: Mapped[str] = mapped_column(String(16), default="")
    is_result: Mapped[bool] = mapped_column(default=False)
    considered_images: Mapped[int] = mapped_column(default=0, server_default="0")

    study: Mapped[StudyRow] = relationship(back_populates="series")
    instances: Mapped[list[InstanceRow]] = relationship(
        back_populates="series", order_by="InstanceRow.id"
    )


class InstanceRow(Table):
    """A stored SOP instance. `path` is relative to the instance folder of the data directory.

    `conflicts_with` is set where the same SOP Instance UID came again with other content: the
    first stays the one that is used, and the other is kept beside it. `purged_at` is set once
    retention has decided that the file goes, and `path` is empty once it has gone.
    """

    __tablename__ = "instances"
    __table_args__ = (
        UniqueConstraint("sop_instance_uid", "sha256"),
        Index(
            "ix_instances_to_delete",
            "series_id",
            sqlite_where=_TO_DELETE,
            postgresql_where=_TO_DELETE,
        ),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))
    number: Mapped[int | None]
    path: Mapped[str] = mapped_column(String(512))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    headers: Mapped[dict[str, Any]] = mapped_column(default=dict)
    calling_ae_title: Mapped[str] = mapped_column(String(16), default="")
    received_at: Mapped[datetime]
    acquisition_number: Mapped[int | None] = mapped_column(default=None)
    images_in_acquisition: Mapped[int | None] = mapped_column(default=None)
    conflicts_with: Mapped[int | None] = mapped_column(ForeignKey("instances.id"))
    purged_at: Mapped[datetime | None] = mapped_column(default=None)

    series: Mapped[SeriesRow] = relationship(back_populates="instances")


class AnalysisRunRow(Table):
    """One model's analysis of one state of a study. States: `triage.core.runs.RunState`.

    `lease_until` is the moment from which on another worker may take the run over; `claim` counts
    the claims, so that a worker which lost its lease cannot finish the run of another.
    `instances_sha256` is the digest of the instances that it analyses, as they were when it was
    queued, then when it was claimed. `stage` is the model's when the run was queued: a shadow run
    stays one, whatever becomes of its model. `priority` and `ranked_at` are the study's, which they
    follow while the run waits. `input_characteristics` say what kind of images went
    in, without patient data, for the watch over drift.
    """

    __tablename__ = "analysis_runs"
    __table_args__ = (
        UniqueConstraint("study_id", "model_id", "generation"),
        Index("ix_analysis_runs_queue", "state", text("priority DESC"), "ranked_at", "id"),
        Index("ix_analysis_runs_model_id_finished_at", "model_id", "finished_at"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    generation: Mapped[int]
    state: Mapped[RunState] = mapped_column(state_of(RunState), default=RunState.PENDING)
    reason: Mapped[str] = mapped_column(Text, default="")
    priority: Mapped[Priority] = mapped_column(default=Priority.ROUTINE)
    ranked_at: Mapped[datetime] = mapped_column(default=_same_as("created_at"))
    attempts: Mapped[int] = mapped_column(default=0)
    claim: Mapped[int] = mapped_column(default=0)
    claimed_by: Mapped[str] = mapped_column(String(128), default="")
    available_at: Mapped[datetime]
    lease_until: Mapped[datetime | None] = mapped_column(default=None)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None] = mapped_column(default=None)
    finished_at: Mapped[datetime | None] = mapped_column(default=None)
    input_sha256: Mapped[str] = mapped_column(String(64), default="")
    instances_sha256: Mapped[str] = mapped_column(String(64), default="", server_default="")
    flow_run_id: Mapped[str] = mapped_column(String(36), default="")
    timings_s: Mapped[dict[str, Any]] = mapped_column(default=dict)
    stage: Mapped[Stage] = mapped_column(state_of(Stage), default=Stage.PRODUCTION)
    input_characteristics: Mapped[dict[str, Any]] = mapped_column(default=dict)

    study: Mapped[StudyRow] = relationship()
    model: Mapped[ModelRow] = relationship(lazy="joined")
    series: Mapped[SeriesRow] = relationship()
    inputs: Mapped[list[RunInputRow]] = relationship(order_by="RunInputRow.id")
    findings: Mapped[list[FindingRow]] = relationship(
        back_populates="run", order_by="FindingRow.id"
    )
    result_objects: Mapped[list[ResultObjectRow]] = relationship(
        back_populates="run", order_by="ResultObjectRow.sequence"
    )


class RunInputRow(Table):
    """A series that a run gets beside its first: a second sequence, or a prior of the patient."""

    __tablename__ = "run_inputs"
    __table_args__ = (UniqueConstraint("run_id", "name"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("analysis_runs.id"))
    name: Mapped[str] = mapped_column(String(64))
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))

    series: Mapped[SeriesRow] = relationship()


class FindingRow(Table):
    """A finding of a run; `content` is `triage.core.findings.Finding` as JSON."""

    __tablename__ = "findings"
    __table_args__ = (UniqueConstraint("run_id", "key"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("analysis_runs.id"), index=True)
    key: Mapped[str] = mapped_column(String(64))
    present: Mapped[bool]
    confidence: Mapped[float] = mapped_column(Float)
    content: Mapped[dict[str, Any]]

    run: Mapped[AnalysisRunRow] = relationship(back_populates="findings")


class FeedbackRow(Table):
    """What a radiologist says of a finding; the newest of each person counts.

    `verdict` is a `triage.core.agreement.Verdict`. `present` is what the finding said when it was
    judged: another attempt of the run may say something else. `missed_finding_id` is the report of
    a missed finding that said it; it goes with that.
    """

    __tablename__ = "feedback"
    __table_args__ = (UniqueConstraint("finding_id", "who"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    finding_id: Mapped[int] = mapped_column(ForeignKey("findings.id", ondelete="CASCADE"))
    who: Mapped[str] = mapped_column(String(128))
    verdict: Mapped[str] = mapped_column(String(16))
    present: Mapped[bool] = mapped_column(default=True, server_default=true())
    reason: Mapped[str] = mapped_column(Text, default="")
    at: Mapped[datetime] = mapped_column(index=True)
    missed_finding_id: Mapped[int | None] = mapped_column(
        ForeignKey("missed_findings.id", ondelete="CASCADE")
    )


class ResultObjectRow(Table):
    """A DICOM object that a run left, or that a remote model sent, which has no run here.

    `role` is a `triage.core.manifest.ResultKind`, or a `triage.core.withdrawals.WithdrawalRole`;
    `remote_model` is the name of the remote model.

    `sequence` is the order of delivery: the SEG goes before the SR that points to it. `variant` is
    the form of SEG that the object is or refers to; empty is that of `results.segmentation_type`.
    """

    __tablename__ = "result_objects"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    run_id: Mapped[int | None] = mapped_column(ForeignKey("analysis_runs.id"), index=True)
    role: Mapped[str] = mapped_column(String(32))
    variant: Mapped[str] = mapped_column(String(32), default="", server_default="")
    remote_model: Mapped[str] = mapped_column(String(64), default="", server_default="")
    sequence: Mapped[int]
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    series_instance_uid: Mapped[str] = mapped_column(String(64))
    path: Mapped[str] = mapped_column(String(512))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]

    run: Mapped[AnalysisRunRow | None] = relationship(back_populates="result_objects")
    deliveries: Mapped[list[DeliveryRow]] = relationship(
        back_populates="result_object", order_by="DeliveryRow.id"
    )


class DeliveryRow(Table):
    """An outbox row: one object or one notice on its way to one destination.

    `subject` says what is delivered, so that nothing is queued twice: "object:UID", "result:RUN",
    "correction:RUN:TIME", "priority:EVENT" or "withdrawal:ID". `lane` and `place` keep the order:
    what is in one lane arrives at a destination by place, and by `id` where the places are equal.
    `given_up_by` and `given_up_reason` say who decided that it need not arrive, and why.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("subject", "destination"),
        Index("ix_deliveries_outbox", "state", "next_attempt_at"),
        Index("ix_deliveries_lane", "lane", "destination"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    kind: Mapped[DeliveryKind] = mapped_column(state_of(DeliveryKind))
    subject: Mapped[str] = mapped_column(String(96))
    destination: Mapped[str] = mapped_column(String(64))
    lane: Mapped[str] = mapped_column(String(32))
    place: Mapped[int] = mapped_column(default=0)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    run_id: Mapped[int | None] = mapped_column(ForeignKey("analysis_runs.id"), index=True)
    result_object_id: Mapped[int | None] = mapped_column(
        ForeignKey("result_objects.id"), index=True
    )
    state: Mapped[DeliveryState] = mapped_column(
        state_of(DeliveryState), default=DeliveryState.WAITING
    )
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    lease_until: Mapped[datetime | None] = mapped_column(default=None)
    last_error: Mapped[str] = mapped_column(Text, default="")
    delivered_at: Mapped[datetime | None] = mapped_column(default=None)
    committed_at: Mapped[datetime | None] = mapped_column(default=None)
    given_up_by: Mapped[str] = mapped_column(String(128), default="", server_default="")
    given_up_reason: Mapped[str] = mapped_column(Text, default="", server_default="")

    study: Mapped[StudyRow] = relationship()
    run: Mapped[AnalysisRunRow | None] = relationship()
    result_object: Mapped[ResultObjectRow | None] = relationship(back_populates="deliveries")


class PausedDestinationRow(Table):
    """A destination to which a person has stopped all deliveries; they wait."""

    __tablename__ = "paused_destinations"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    who: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(Text, default="")
    at: Mapped[datetime]


class DestinationEventRow(Table):
    """What a person decided about a destination. Rows are only ever added.

    `action` is a `triage.store.destinations.Action`.
    """

    __tablename__ = "destination_events"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    destination: Mapped[str] = mapped_column(String(64), index=True)
    action: Mapped[str] = mapped_column(String(16))
    who: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(Text, default="")
    at: Mapped[datetime]


class WithdrawalRow(Table):
    """A result that was taken back, by a person or, where `who` is empty, by a newer analysis.

    `reason` is a `triage.core.withdrawals.WithdrawalReason`, `text` what else was said. What
    archives are told of it is built afterwards; `next_attempt_at` is when, and also the lease of
    the worker that builds it. Nothing gives up: what fails is tried again. `is_queued` says that
    the notices of what a person took back are in the outbox.
    """

    __tablename__ = "withdrawals"
    __table_args__ = (
        Index("ix_withdrawals_due", "state", "next_attempt_at"),
        Index(
            "ix_withdrawals_to_queue",
            "id",
            sqlite_where=_NOT_QUEUED,
            postgresql_where=_NOT_QUEUED,
        ),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("analysis_runs.id"), unique=True)
    who: Mapped[str] = mapped_column(String(128), default="")
    reason: Mapped[WithdrawalReason] = mapped_column(state_of(WithdrawalReason))
    text: Mapped[str] = mapped_column(Text, default="")
    at: Mapped[datetime]
    state: Mapped[WithdrawalState] = mapped_column(
        state_of(WithdrawalState), default=WithdrawalState.WAITING
    )
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    last_error: Mapped[str] = mapped_column(Text, default="")
    done_at: Mapped[datetime | None] = mapped_column(default=None)
    is_queued: Mapped[bool] = mapped_column(default=False, server_default=false())

    run: Mapped[AnalysisRunRow] = relationship()


class PriorityEventRow(Table):
    """A change of a study's priority, with its reason. Rows are only ever added.

    `source` is a `triage.core.places.Source`. Where `before` is `after`, the study moved within its
    class, or something was said that did not move it. `place` is all that counted from then on, in
    words, empty for changes from before there was a policy.
    `is_queued` is set once the notices of it are in the outbox.
    """

    __tablename__ = "priority_events"
    __table_args__ = (
        Index(
            "ix_priority_events_to_queue",
            "id",
            sqlite_where=_NOT_QUEUED,
            postgresql_where=_NOT_QUEUED,
        ),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    run_id: Mapped[int | None] = mapped_column(ForeignKey("analysis_runs.id"))
    at: Mapped[datetime]
    source: Mapped[str] = mapped_column(String(16))
    before: Mapped[Priority]
    after: Mapped[Priority]
    reason: Mapped[str] = mapped_column(Text)
    place: Mapped[str] = mapped_column(Text, default="", server_default="")
    is_queued: Mapped[bool] = mapped_column(default=False, server_default=false())


class StudyEventRow(Table):
    """A line in a study's history: what became of it, and why. Rows are only ever added.

    `kind` is one of: received, complete, reopened, routed, not-routed, analysed, not-analysed,
    failed, superseded, flagged, delivered, undeliverable, resent, given-up, committed,
    not-committed, conflict, read, unread, purged, forgotten, announced, priors, feedback,
    withdrawn, rejected, shadow, order, patient, withheld, remote, raised, ranked, claimed,
    released, missed, signed, addendum, cancelled, notified, not-notified, acknowledged. The newest
    `id` is what open worklists follow.
    """

    __tablename__ = "study_events"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    run_id: Mapped[int | None] = mapped_column(ForeignKey("analysis_runs.id"))
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(32))
    text: Mapped[str] = mapped_column(Text)


class OpenAssociationRow(Table):
    """An association that has sent images of a study and is not yet released.

    The rows of a receiver that died are removed when it starts again, or when their heartbeat is
    too old, so a crash cannot keep a study incomplete for ever.
    """

    __tablename__ = "open_associations"
    __table_args__ = (UniqueConstraint("association", "study_id"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    association: Mapped[str] = mapped_column(String(64))
    receiver: Mapped[str] = mapped_column(String(64), index=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    alive_at: Mapped[datetime]


class ArrivalSignalRow(Table):
    """What an MPPS or an Instance Availability Notification says of a study's images.

    It may come before any image, so it names the study by its UID. `source` is a
    `triage.core.completeness.Source`, `state` a `triage.store.signals.SignalState`.
    """

    __tablename__ = "arrival_signals"
    __table_args__ = (UniqueConstraint("source", "sop_instance_uid", "study_instance_uid"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    source: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    study_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    state: Mapped[str] = mapped_column(String(16))
    calling_ae_title: Mapped[str] = mapped_column(String(16), default="")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime] = mapped_column(index=True)


class ExpectedInstanceRow(Table):
    """An instance that a signal announced, or said to be out of reach."""

    __tablename__ = "expected_instances"
    __table_args__ = (UniqueConstraint("signal_id", "sop_instance_uid"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    signal_id: Mapped[int] = mapped_column(ForeignKey("arrival_signals.id"))
    series_instance_uid: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    is_available: Mapped[bool] = mapped_column(default=True)


class ArchiveCountRow(Table):
    """How many instances of a study the archive counts, and since when it gives the same answer.

    `series` has the count of each series by its UID, empty where the archive does not say.
    """

    __tablename__ = "archive_counts"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    next_question_at: Mapped[datetime]
    questions: Mapped[int] = mapped_column(default=0)
    answered_at: Mapped[datetime | None] = mapped_column(default=None)
    equal_since: Mapped[datetime | None] = mapped_column(default=None)
    instances: Mapped[int | None] = mapped_column(default=None)
    series: Mapped[dict[str, Any]] = mapped_column(default=dict)
    last_error: Mapped[str] = mapped_column(Text, default="")


class WorkerRow(Table):
    """A running worker's heartbeat: what it hosts and on which device.

    `devices` are `triage.core.devices.DeviceState` as JSON, `doing` is the step of each of its runs
    by the run's id. `clock_ahead_s` is how far its clock is
    ahead of the database's.
    """

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    alive_at: Mapped[datetime]
    device: Mapped[str] = mapped_column(String(32), default="")
    warm_models: Mapped[str] = mapped_column(Text, default="")
    prefect_error: Mapped[str] = mapped_column(Text, default="")
    version: Mapped[str] = mapped_column(String(32), default="", server_default="")
    devices: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    doing: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    clock_ahead_s: Mapped[float] = mapped_column(Float, default=0.0, server_default="0")


class MaintenanceRow(Table):
    """Who does a piece of housekeeping at the moment, so that several processes do not."""

    __tablename__ = "maintenance"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    holder: Mapped[str] = mapped_column(String(128))
    lease_until: Mapped[datetime]


class PriorSearchRow(Table):
    """The search for a study's priors. States: `triage.core.priors.SearchState`.

    `wait_s` is how long the analysis of the complete study may wait for it, and `wait_until` the
    moment that follows from it once the study is complete.
    """

    __tablename__ = "prior_searches"
    __table_args__ = (Index("ix_prior_searches_due", "state", "next_attempt_at"),)

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    remote: Mapped[str] = mapped_column(String(64))
    state: Mapped[SearchState] = mapped_column(state_of(SearchState), default=SearchState.WAITING)
    wait_s: Mapped[float] = mapped_column(Float)
    wait_until: Mapped[datetime | None] = mapped_column(default=None)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    claimed_by: Mapped[str] = mapped_column(String(128), default="")
    lease_until: Mapped[datetime | None] = mapped_column(default=None)
    said: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None] = mapped_column(default=None)


class PriorRow(Table):
    """A relevant earlier study of a study's patient, and what became of fetching it.

    `place` orders a study's priors, the most relevant first. The prior itself is the study of the
    UID, once it has come.
    """

    __tablename__ = "priors"
    __table_args__ = (UniqueConstraint("study_id", "study_instance_uid"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    place: Mapped[int]
    study_date: Mapped[str] = mapped_column(String(10), default="")
    study_time: Mapped[str] = mapped_column(String(16), default="")
    modalities: Mapped[str] = mapped_column(String(128), default="")
    description: Mapped[str] = mapped_column(String(128), default="")
    state: Mapped[PriorState] = mapped_column(state_of(PriorState), default=PriorState.WANTED)
    said: Mapped[str] = mapped_column(Text, default="")
    at: Mapped[datetime]


class CommitmentRequestRow(Table):
    """A storage commitment request of another system, until its report has been taken.

    `referenced` are pairs of SOP Class UID and SOP Instance UID, in the order of the request.
    `next_attempt_at` is also the lease of the receiver that is reporting.
    """

    __tablename__ = "commitment_requests"
    __table_args__ = (
        UniqueConstraint("transaction_uid", "calling_ae_title"),
        Index("ix_commitment_requests_due", "state", "next_attempt_at"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(String(64))
    calling_ae_title: Mapped[str] = mapped_column(String(16))
    referenced: Mapped[list[Any]]
    state: Mapped[ReportState] = mapped_column(state_of(ReportState), default=ReportState.WAITING)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    requested_at: Mapped[datetime]
    reported_at: Mapped[datetime | None] = mapped_column(default=None)
    last_error: Mapped[str] = mapped_column(Text, default="")


class CommitmentRow(Table):
    """Whether an archive has taken responsibility for one instance of a study.

    `archive` is the name of a destination or a remote. `failures` counts the reports that said no.
    `next_attempt_at` is when the archive is to be asked, or, while it is asked, asked again.
    """

    __tablename__ = "commitments"
    __table_args__ = (
        UniqueConstraint("sop_instance_uid", "archive"),
        Index("ix_commitments_due", "state", "next_attempt_at"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    archive: Mapped[str] = mapped_column(String(64))
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    is_result: Mapped[bool] = mapped_column(default=False)
    state: Mapped[CommitmentState] = mapped_column(
        state_of(CommitmentState), default=CommitmentState.WAITING
    )
    transaction_uid: Mapped[str] = mapped_column(String(64), default="")
    attempts: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    committed_at: Mapped[datetime | None] = mapped_column(default=None)
    last_error: Mapped[str] = mapped_column(Text, default="")


class CommitmentTransactionRow(Table):
    """A storage commitment request that we made; a late report still finds its archive."""

    __tablename__ = "commitment_transactions"

    transaction_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    archive: Mapped[str] = mapped_column(String(64))
    asked_at: Mapped[datetime]


class RemoteAnalysisRow(Table):
    """A study, as it was when it was complete, and one remote model: sent, answered, or why not.

    `pseudonym` is the Study Instance UID that the remote model knows. `next_attempt_at` is when
    images are to be sent, then until when an answer is waited for. `findings` are what its reports
    say (`triage.core.findings.Finding` as JSON); they raise the priority if `counts`.
    """

    __tablename__ = "remote_analyses"
    __table_args__ = (
        UniqueConstraint("remote_model", "study_id", "generation"),
        Index("ix_remote_analyses_due", "state", "next_attempt_at"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    remote_model: Mapped[str] = mapped_column(String(64))
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    generation: Mapped[int]
    series_instance_uid: Mapped[str] = mapped_column(String(64), default="")
    pseudonym: Mapped[str] = mapped_column(String(64), index=True)
    state: Mapped[RemoteState] = mapped_column(state_of(RemoteState), default=RemoteState.WAITING)
    attempts: Mapped[int] = mapped_column(default=0)
    answers: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    sent_at: Mapped[datetime | None] = mapped_column(default=None)
    answered_at: Mapped[datetime | None] = mapped_column(default=None)
    said: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime]
    findings: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    counts: Mapped[bool] = mapped_column(default=False, server_default=false())

    study: Mapped[StudyRow] = relationship()


class ReturnedObjectRow(Table):
    """An object that a remote model sent back: waiting, taken into its study, or quarantined.

    `study_instance_uid` is the pseudonym in it, `said` why it is quarantined. The file stays as it
    came.
    """

    __tablename__ = "returned_objects"
    __table_args__ = (UniqueConstraint("sop_instance_uid", "sha256"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    calling_ae_title: Mapped[str] = mapped_column(String(16))
    study_instance_uid: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    path: Mapped[str] = mapped_column(String(512), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    state: Mapped[ReturnedState] = mapped_column(
        state_of(ReturnedState), default=ReturnedState.WAITING, index=True
    )
    study_id: Mapped[int | None] = mapped_column(ForeignKey("studies.id"), default=None)
    said: Mapped[str] = mapped_column(Text, default="")
    received_at: Mapped[datetime]
