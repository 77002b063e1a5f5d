"""What the API answers and takes; made by `make client` from its OpenAPI document."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, Field, RootModel


class Acknowledged(BaseModel):
    """
    Who acknowledged first, and when.
    """

    notification_id: int
    acknowledged_by: str
    acknowledged_at: AwareDatetime


class Acknowledgement(BaseModel):
    """
    Who acknowledges, through a program.
    """

    who: str = ""


class Activation(BaseModel):
    """
    A policy that is to hold from now on.
    """

    policy: dict[str, Any] | str
    reason: str
    who: str = ""


class Addendum(BaseModel):
    """
    Why the answers are opened again.
    """

    reason: str = ""


class AffectedStudy(BaseModel):
    """
    A study whose wait would be much different; `in_words` is its place by the other policy.
    """

    study_instance_uid: str
    modalities: str
    before: Literal["low", "routine", "high", "stat"]
    after: Literal["low", "routine", "high", "stat"]
    points_before: int
    points_after: int
    wait_before: float
    wait_after: float
    in_words: str


class Agreement(BaseModel):
    """
    How far both versions agree on one finding, over the studies that both answered.

    `kappa` is Cohen's (Educ. Psychol. Meas. 20:37, 1960), None where both always say the same
    one thing. `mcnemar_p` is the exact test of McNemar (Psychometrika 12:153, 1947) on the
    studies with a label: the chance of so uneven a difference if both were right equally often.
    """

    key: str
    studies: int
    both_present: int
    only_a: int
    only_b: int
    both_absent: int
    agreement: float | None
    kappa: float | None
    labelled: int = 0
    only_a_right: int = 0
    only_b_right: int = 0
    mcnemar_p: float | None = None


class AlertView(BaseModel):
    """
    A rule about live models that a model breaks.
    """

    model: str
    version: str
    rule: str
    text: str
    raised_at: AwareDatetime


class Asker(BaseModel):
    """
    Who asks; where `web.user_header` names the person, that name counts instead.
    """

    who: str = ""


class ByClass(BaseModel):
    """
    A number for each class; what is left out has none.
    """

    stat: int | None = None
    high: int | None = None
    routine: int | None = None
    low: int | None = None


class CheckOrder(BaseModel):
    """
    Check a registered version, or the uploaded archive of a package.
    """

    kind: Literal["check"] = "check"
    model: str = ""
    version: str = ""
    package: str = ""


class CheckedThing(BaseModel):
    """
    One thing that was looked at: "ok", "look" (a person has to judge) or "wrong".
    """

    name: str
    verdict: Literal["ok", "look", "wrong"]
    text: str


class ClaimRequest(BaseModel):
    """
    How a study is claimed.

    Attributes:
        take_over_because: a word on why, where somebody else reads it.
        only_renew: hold a claim that is there; make none.
    """

    take_over_because: str = ""
    only_renew: bool = False


class ClaimView(BaseModel):
    """
    Who reads a study; `who` is empty where nobody does.

    `until` is None for the performer of the study's workitem: that claim lasts as long as theirs.
    """

    who: str = ""
    is_mine: bool = False
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None


class ClassChange(BaseModel):
    """
    How many studies would have another class.
    """

    before: Literal["low", "routine", "high", "stat"]
    after: Literal["low", "routine", "high", "stat"]
    studies: int


class Code(BaseModel):
    """
    A concept in a coding scheme, for example (1386000, SCT, "Intracranial hemorrhage").
    """

    value: str
    scheme: str
    meaning: str


class CodePlace(BaseModel):
    """
    A piece of code: the file of the package, the place in it, and its text.
    """

    file: str
    place: str
    text: str


class ComparisonView(BaseModel):
    """
    Another study of the patient, received or fetched as a prior.
    """

    study_instance_uid: str
    study_date: str
    study_time: str
    modalities: list[str]
    description: str
    is_prior: bool


class DeliveryState(
    RootModel[Literal["waiting", "sending", "delivered", "dead", "given-up", "withdrawn"]]
):
    root: Literal["waiting", "sending", "delivered", "dead", "given-up", "withdrawn"]
    """
    Where the delivery of one object or notice to one destination stands.

    DEAD has failed for good, and a person may send it again. GIVEN_UP is dead and a person has
    decided that it stays so. WITHDRAWN is kept back, because its run no longer counts.
    """


class DeliveryView(BaseModel):
    """
    An object or a notice on its way to a destination; `what` is "SR" or "Priority notice".
    """

    delivery_id: int
    kind: Literal["result", "priority", "withdrawal"]
    """
    What a delivery tells.

    RESULT is what an analysis left, as an object or a notice; it is kept back when its run no
    longer counts. PRIORITY is a change of a study's priority. WITHDRAWAL takes a result back.
    """
    what: str
    destination: str
    state: str
    attempts: int
    last_error: str
    delivered_at: AwareDatetime | None
    committed_at: AwareDatetime | None
    next_attempt_at: AwareDatetime
    given_up_by: str
    given_up_reason: str


class DeviceState(BaseModel):
    """
    A GPU, or the CPU, as its worker saw it last; what cannot be known is None.

    Memory is in bytes, `busy` a share from 0 to 1 of the time since it was last asked.
    """

    name: str
    title: str = ""
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    busy: float | None = None
    problem: str = ""


class DiskForecast(BaseModel):
    """
    How fast the disk fills, and when no image is taken any more, if nothing is deleted.
    """

    bytes_per_day: int
    days_left: float | None
    text: str


class DiskView(BaseModel):
    """
    How full the disk of the images is, in a word and in a sentence.
    """

    level: Literal["roomy", "low", "refusing"]
    """
    How full the disk is.

    LOW is below the warning; images are taken. REFUSING is below the minimum, and until there is
    more room again: what was accepted is analysed and delivered in what is left.
    """
    free_bytes: int
    text: str


class Done(BaseModel):
    """
    How many deliveries a decision was about.
    """

    deliveries: int


class Duration(BaseModel):
    """
    How long something takes: a mean, and how it is spread.
    """

    mean_min: float
    """
    Mean, in minutes.
    """
    spread: Literal["exponential", "lognormal", "constant"] = "exponential"
    """
    How single values lie about the mean.
    """
    variation: float = 0.5
    """
    Standard deviation by mean, of `lognormal`.
    """


class Estimate(BaseModel):
    """
    A mean over replications with its 95 % interval.
    """

    mean: float
    low: float
    high: float


class EvaluateOrder(BaseModel):
    """
    Compare a registered version with labels; without images on studies that Triage holds.
    """

    kind: Literal["evaluate"] = "evaluate"
    model: str
    version: str
    labels: str
    labels_name: str
    images: str = ""
    held_out_only: bool = False


class Evaluated(BaseModel):
    """
    A model was compared with labels; `figures` as `triage models evaluate` writes them.
    """

    kind: Literal["evaluate"] = "evaluate"
    model: str
    figures: dict[str, Any]


class ExpectedStudy(BaseModel):
    """
    An order, or what a modality announced, without a study; `said` is what is known of it.
    """

    accession_number: str
    study_instance_uid: str
    procedure: str
    stated_at: AwareDatetime
    said: str


class FeedbackView(BaseModel):
    """
    What a person says of a finding.
    """

    who: str
    verdict: str
    reason: str
    at: AwareDatetime


class Figures(BaseModel):
    """
    What became of the notifications of some days.

    `median_s` and `p90_s` are from the flag to the acknowledgement; None where there was none.
    `held` counts messages that went into digests by why.
    """

    days: int
    total: int
    states: dict[
        Literal[
            "pending", "sent", "acknowledged", "escalated", "suppressed", "expired", "withdrawn"
        ],
        int,
    ]
    escalated: int
    median_s: float | None
    p90_s: float | None
    reasons: dict[str, int]
    held: dict[str, int]


class FindingChip(BaseModel):
    """
    A finding that is present, as a line of the list shows it; `said` is it in words.
    """

    title: str
    said: str
    priority: Literal["low", "routine", "high", "stat"]
    model: str


class FindingCode(BaseModel):
    """
    A finding that registered models look for.
    """

    code: Code
    models: list[str]


class Format(RootModel[Literal["csv", "ndjson"]]):
    root: Literal["csv", "ndjson"]
    """
    How the trail is exported.
    """


class HourOfPerson(BaseModel):
    """
    What one person would have been told in one hour that had anything for them.
    """

    recipient: str
    hour: AwareDatetime
    at_once: int
    held: dict[str, int]


class PixelSpacingMm(RootModel[tuple[float, float]]):
    root: Annotated[tuple[float, float], Field(max_length=2, min_length=2)]


class Directions(RootModel[tuple[str, str]]):
    root: Annotated[tuple[str, str], Field(max_length=2, min_length=2)]


class ImageView(BaseModel):
    """
    An image, or a multi-frame image with all its frames.
    """

    sop_instance_uid: str
    number: int | None
    frames: int
    pixel_spacing_mm: PixelSpacingMm | None
    is_spacing_at_detector: bool = False
    depths_mm: list[float] = []
    directions: Directions | None = None


class InitOrder(BaseModel):
    """
    Make a package of an uploaded file or bundle; what is empty is taken from it.

    `source` is the upload's name in the job's folder, `size` rows and columns of a model of images.
    """

    kind: Literal["init"] = "init"
    source: str
    name: str = ""
    version: str = ""
    modality: str = ""
    size: int | None = None
    labels: list[str] = []


class JobFile(BaseModel):
    """
    A file that came of a job.
    """

    name: str
    size_bytes: int


class LifeEvent(BaseModel):
    """
    A line of the table: when, how long, what kind, in words.
    """

    at: AwareDatetime
    until: AwareDatetime | None = None
    kind: str
    text: str


class ListedDelivery(BaseModel):
    """
    A delivery in a list, with its study and what is to be done about it.
    """

    delivery: DeliveryView
    study_instance_uid: str
    next_step: str


class MessageStateInput(RootModel[Literal["done", "ignored", "refused"]]):
    root: Literal["done", "ignored", "refused"]
    """
    What became of a message that was received: done, of no concern, or not understood.
    """


class Minimum(BaseModel):
    """
    The least that a measurement must be, for example a Volume of 5 mL.

    `concept` is the code's value or meaning, `unit` the UCUM unit.
    """

    concept: str
    at_least: float
    unit: str


class Mark(RootModel[tuple[float, float]]):
    root: Annotated[tuple[float, float], Field(max_length=2, min_length=2)]


class Mark1(RootModel[tuple[float, float, float, float]]):
    root: Annotated[tuple[float, float, float, float], Field(max_length=4, min_length=4)]


class MissedFinding(BaseModel):
    """
    What it is, by code or in words, and where it lies, as far as that was said.

    Attributes:
        code: what it is; one that a model looks for counts as missed by that model.
        words: the same in free words, or more about it; no patient data.
        sop_instance_uid: the image that shows it.
        frame: of a multi-frame image, from 1 on.
        mark: [column, row] of a point or [left, top, right, bottom] of a box on that image, in
            pixels from the upper left corner of the first one, whose middle is (0.5, 0.5)
            (DICOM PS3.3 C.18.6.1.1).
    """

    code: Code | None = None
    words: str = ""
    laterality: Literal["", "left", "right", "both"] = ""
    sop_instance_uid: str = ""
    frame: int | None = None
    mark: Mark | Mark1 | None = None


class MissedView(BaseModel):
    """
    Something that a person sees and no model said.
    """

    report_id: int
    who: str
    at: AwareDatetime
    words: str
    finding: MissedFinding


class ModelEvaluation(BaseModel):
    """
    An evaluation on a labelled set, with the figures as they were written.
    """

    evaluation_id: int
    version: str
    at: AwareDatetime
    who: str
    labels_name: str
    figures: dict[str, Any]


class ModelEvent(BaseModel):
    """
    What was done with a version: by whom, when and why.
    """

    at: AwareDatetime
    version: str
    who: str
    action: str
    from_stage: str
    to_stage: str
    share: float | None
    reason: str


class ModelHealth(BaseModel):
    """
    How a version does: its runs of the last day by state, and what is wrong with it.
    """

    runs: dict[str, int]
    is_parked: bool
    parked_reason: str
    alerts: list[str]


class NewPassword(BaseModel):
    """
    A password that the person has to change when they log in.
    """

    password: str


class NextStudy(BaseModel):
    """
    The study to be read next; empty where none is left.
    """

    study_instance_uid: str


class NoteView(BaseModel):
    """
    Where a field of a scenario comes from: history, or an assumption.
    """

    field: str
    text: str
    is_known: bool


class NotificationView(BaseModel):
    """
    A notification. `patient` is for pages and programs that show the worklist, too.
    """

    notification_id: int
    study_instance_uid: str
    patient: str
    modalities: list[str]
    description: str
    finding: str
    said: str
    model: str
    priority: Literal["low", "routine", "high", "stat"]
    rule: str
    state: Literal[
        "pending", "sent", "acknowledged", "escalated", "suppressed", "expired", "withdrawn"
    ]
    """
    Where a notification of one finding class of one study stands.

    PENDING is made with the flag, and nobody was told yet, or the study was put back. SENT has
    reached somebody of the first step, ESCALATED a later one. ACKNOWLEDGED has been seen by a
    person who said so. SUPPRESSED was told nobody, for a stated reason. EXPIRED needs nobody any
    more: the study was read, or nobody acknowledged in time. WITHDRAWN was taken back with the
    result that it was about.
    """
    reason: str
    step: int
    due_at: AwareDatetime | None
    created_at: AwareDatetime
    told_at: AwareDatetime | None
    acknowledged_at: AwareDatetime | None
    acknowledged_by: str
    acknowledged_via: str


class Notifications(BaseModel):
    """
    Part of the list, the open ones first, then the newest.
    """

    total: int
    entries: list[NotificationView]


class Offer(BaseModel):
    """
    A value that one can filter by, how it reads, and how many studies have it.
    """

    value: str
    label: str
    studies: int


class OpeningView(BaseModel):
    """
    The image that is shown first, and the finding that it shows.
    """

    series_instance_uid: str
    sop_instance_uid: str
    frame: int
    finding_id: int | None = None


class OrderPoints(BaseModel):
    """
    The points that a study has because of what its order says.
    """

    stat: int = 0
    high: int = 0
    routine: int = 0
    low: int = 0


class OrderShare(BaseModel):
    """
    Studies that were ordered with a priority.
    """

    priority: Literal["low", "routine", "high", "stat"]
    share: float
    """
    Share of all studies.
    """
    reading: Duration | None = None
    """
    How long it takes to read these; without it as their kind and disease say.
    """


class ParkedModel(BaseModel):
    """
    A model that failed study after study, and when it is tried again.
    """

    model: str
    reason: str
    tried_again_at: AwareDatetime


class PasswordChange(BaseModel):
    """
    The old password and the new one.
    """

    old: str
    new: str


class PatientView(BaseModel):
    """
    Who the patient is.
    """

    name: str
    patient_id: str
    birth_date: str
    sex: str


class PauseView(BaseModel):
    """
    Who has paused a destination, and why.
    """

    who: str
    reason: str
    at: AwareDatetime


class PlaceChange(BaseModel):
    """
    A change of the study's place: its class before and after, who or what did it, and why.

    `place` is all that counted from then on, in words.
    """

    at: AwareDatetime
    source: str
    before: Literal["low", "routine", "high", "stat"]
    after: Literal["low", "routine", "high", "stat"]
    reason: str
    place: str


class PolicyEventView(BaseModel):
    """
    Something done with the policy; `version` held from then on.

    `diff` is what an activation changed against the version before, line by line as in a unified
    diff, empty for the switch.
    """

    action: str
    version: int
    name: str
    ai_counts: bool
    who: str
    reason: str
    at: AwareDatetime
    diff: list[str]


class Preview(BaseModel):
    """
    What the rules make of the findings of some days.

    Only first steps: whether anybody would have acknowledged is not known. What was read before the
    finding came is left out.
    """

    days: int
    findings: int
    notifications: dict[str, int]
    repeated: int
    already_read: int
    hours: list[HourOfPerson]


class PriorView(BaseModel):
    """
    An earlier study to compare with, and what became of fetching it.
    """

    study_instance_uid: str
    study_date: str
    study_time: str
    modalities: list[str]
    description: str
    state: str
    said: str
    is_in_store: bool


class ProblemRun(BaseModel):
    """
    A run that ended without findings.
    """

    run_id: int
    model: str
    state: str
    reason: str
    next_step: str
    finished_at: AwareDatetime | None
    study_instance_uid: str


class ProcessedAgain(BaseModel):
    """
    What became of a message that was processed again.
    """

    said: str


class Promotion(BaseModel):
    """
    Where a version goes; of a canary, the part of the studies that it answers for.
    """

    who: str = ""
    """
    Where `web.user_header` names the person, that name counts instead; else it is required.
    """
    reason: str
    to: Literal["shadow", "canary", "production"]
    share: float | None = None


class Proposal(BaseModel):
    """
    A policy that may hold one day: as a JSON object, or as the text of a TOML document.
    """

    policy: dict[str, Any] | str


class QuarantinedView(BaseModel):
    """
    An object of a remote model that belongs to no study; without anything of its content.
    """

    object_id: int
    calling_ae_title: str
    sop_instance_uid: str
    size_bytes: int
    received_at: AwareDatetime
    reason: str


class QueueView(BaseModel):
    """
    What waits: how many, since when the oldest, and how long the last of them may wait.
    """

    name: str
    length: int
    oldest_at: AwareDatetime | None = None
    expected_wait_s: float | None = None
    text: str = ""


class RaiseView(BaseModel):
    """
    A person's raise that counts now.
    """

    priority: Literal["low", "routine", "high", "stat"]
    who: str
    reason: str
    at: AwareDatetime | None


class Raised(BaseModel):
    """
    What a study is raised to, and why.
    """

    reason: str
    who: str = ""
    priority: Literal["low", "routine", "high", "stat"]


class RanAgain(BaseModel):
    """
    The models that were queued again, and those that were not, with the reason.
    """

    queued: list[str]
    refused: list[str]


class Reason(BaseModel):
    """
    Who decides, and why; both stay in the model's history.
    """

    who: str = ""
    """
    Where `web.user_header` names the person, that name counts instead; else it is required.
    """
    reason: str


class RecentEvent(BaseModel):
    """
    A line of some study's history.
    """

    at: AwareDatetime
    kind: str
    text: str
    study_instance_uid: str


class Refusal(BaseModel):
    """
    Why a request was refused: what is wrong and what to do, and the field that it is about.
    """

    detail: str
    field: str = ""


class RefusedCallerView(BaseModel):
    """
    A caller whose associations were rejected in the last day, why, and what to do.
    """

    calling_ae_title: str
    address: str
    reason: str
    times: int
    last_at: AwareDatetime
    next_step: str


class ResultView(BaseModel):
    """
    An object that a run left.
    """

    role: str
    sop_instance_uid: str
    series_instance_uid: str
    size_bytes: int
    created_at: AwareDatetime
    deliveries: list[DeliveryView]


class Roles(BaseModel):
    """
    All roles of an account.
    """

    roles: list[Literal["radiologist", "administrator", "ml-engineer", "auditor"]]


class Rollback(BaseModel):
    """
    The version that is to hold again; 0 is the shipped policy.
    """

    reason: str
    who: str = ""
    version: int


class RunInLife(BaseModel):
    """
    A run as the page's buttons need it.
    """

    run_id: int
    model: str
    name: str
    state: str
    reason: str
    attempts: int
    is_current: bool
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    timings_s: dict[str, float]
    claimed_by: str
    flow_run_id: str
    can_be_cancelled: bool


class Said(BaseModel):
    """
    What one version says of one finding in one study; None where it gave no answer.
    """

    present: bool | None
    confidence: float | None
    in_words: str


class Scaffolded(BaseModel):
    """
    A package was made; `left_to_say` are the places that only a person can fill.
    """

    kind: Literal["init"] = "init"
    model: str
    left_to_say: list[str]


class SearchedRead(BaseModel):
    """
    Which of the studies that were read are wanted.
    """

    limit: int = 100
    offset: int = 0
    text: str = ""


class Normal(RootModel[tuple[float, float, float]]):
    root: Annotated[tuple[float, float, float], Field(max_length=3, min_length=3)]


class SeriesView(BaseModel):
    """
    A series: what it is, who made it, and its images; `kind` is "image" or what it is else.
    """

    series_instance_uid: str
    number: int | None
    modality: str
    description: str
    body_part: str
    kind: str
    is_result: bool
    is_superseded: bool
    is_withdrawn: bool = False
    model: str
    instances: int
    purged: int = 0
    frame_of_reference_uid: str = ""
    normal: Normal | None = None
    images: list[ImageView]


class SessionView(BaseModel):
    """
    A browser that is logged in.
    """

    id: int
    is_this: bool
    created_at: AwareDatetime
    last_seen_at: AwareDatetime
    expires_at: AwareDatetime
    address: str
    browser: str


class SignOffView(BaseModel):
    """
    Who closed the answers and when; who opened them again, None while they are closed.
    """

    who: str
    at: AwareDatetime
    reopened_by: str
    reopened_at: AwareDatetime | None
    reopen_reason: str


class Snooze(BaseModel):
    """
    How long a person wants to be left in peace; 0 ends it.
    """

    minutes: int
    recipient: str = ""


class Snoozed(BaseModel):
    """
    Until when; STAT and what else `always_at_once` names are told all the same.
    """

    recipient: str
    until: AwareDatetime


class StagedVersion(BaseModel):
    """
    Where a version stands now.
    """

    name: str
    version: str
    stage: Literal["shadow", "canary", "production", "retired"]
    """
    Where a model version stands.

    SHADOW runs on today's studies, and nobody but the ML engineer sees what it says. CANARY
    answers for a share of the studies, the version in production for the others. PRODUCTION
    answers for all. RETIRED runs no more; what it said stays.
    """
    share: float
    package_sha256: str


class StuckWithdrawal(BaseModel):
    """
    A withdrawn result whose rejection note could not be built yet.
    """

    run_id: int
    text: str
    last_error: str
    study_instance_uid: str


class StudySearch(BaseModel):
    """
    What is known of a study; all that is given must match, and something must be given.

    A name matches by the beginnings of its words, as on the worklist, whatever order, case and
    accents ("ada love" finds Lovelace^Ada); an accession number or Patient ID as a whole or, where
    none is the same, without regard to case and leading zeros.
    """

    accession_number: str = ""
    patient_id: str = ""
    patient_name: str = ""
    study_instance_uid: str = ""
    study_date: date | None = None
    sender: str = ""
    text: str = ""


class StudyStatus(BaseModel):
    """
    A status: its kind, the sentence, and what else a person would ask.
    """

    kind: Literal[
        "receiving",
        "waiting",
        "running",
        "flagged",
        "found",
        "clear",
        "withdrawn",
        "not-analysed",
        "not-wanted",
    ]
    """
    The few words that a status begins with; pages choose their mark by it.
    """
    text: str
    detail: str = ""


class Switch(BaseModel):
    """
    Whether what the AI asks for is to count.
    """

    reason: str
    who: str = ""
    is_on: bool


class TakenBack(BaseModel):
    """
    Why a person takes a raise back, and who it is where a program asks; no patient data.
    """

    reason: str
    who: str = ""


class Targets(BaseModel):
    """
    Minutes from the first image until a study should be read.
    """

    stat: int | None = None
    high: int | None = None
    routine: int | None = None
    low: int | None = None


class TokenView(BaseModel):
    """
    A token, without its secret.
    """

    id: int
    name: str
    owner: str
    scopes: list[
        Literal[
            "see-patients",
            "change-worklist",
            "answer-findings",
            "store-images",
            "see-models",
            "manage-models",
            "approve-code",
            "see-operations",
            "operate",
            "change-policy",
            "manage-users",
            "read-audit",
            "own-account",
        ]
    ]
    created_at: AwareDatetime
    expires_at: AwareDatetime
    last_used_at: AwareDatetime | None
    revoked_at: AwareDatetime | None


class TriedFinding(BaseModel):
    """
    What a model said of a study, in words, and whether it is there.
    """

    key: str
    present: bool
    confidence: float | None
    text: str


class TryOrder(BaseModel):
    """
    Run a registered version on a study that Triage holds, or on uploaded DICOM files.
    """

    kind: Literal["try"] = "try"
    model: str
    version: str
    study_instance_uid: str = ""
    images: str = ""


class UserView(BaseModel):
    """
    An account.
    """

    id: int
    name: str
    origin: Literal["local", "oidc", "proxy"]
    """
    Who says that somebody is who they are.
    """
    roles: list[Literal["radiologist", "administrator", "ml-engineer", "auditor"]]
    is_disabled: bool
    must_change_password: bool
    created_at: AwareDatetime
    logged_in_at: AwareDatetime | None


class Waiting(BaseModel):
    """
    How long a group waits, in minutes.
    """

    mean_min: Estimate
    median_min: float
    p90_min: float
    within_target: Estimate
    formula_mean_min: float | None
    curve: list[float]


class WaitsOfClass(BaseModel):
    """
    How long the studies of a class (by the policy that holds) wait, in minutes.

    `past_target` counts those that wait longer than their target.
    """

    priority: Literal["low", "routine", "high", "stat"]
    studies: int
    mean_before: float
    mean_after: float
    median_before: float
    median_after: float
    past_target_before: int
    past_target_after: int


class WantedToken(BaseModel):
    """
    Which token is wanted: for which program, what it may do, and for how long.
    """

    name: str
    scopes: list[
        Literal[
            "see-patients",
            "change-worklist",
            "answer-findings",
            "store-images",
            "see-models",
            "manage-models",
            "approve-code",
            "see-operations",
            "operate",
            "change-policy",
            "manage-users",
            "read-audit",
            "own-account",
        ]
    ]
    days: int = 90


class Whereabouts(BaseModel):
    """
    Where a study is: `now`, what is `next` by itself, and what a person is `to_do`, if anything.

    `stage` is one word of "receiving", "analysis", "delivery", "reading", "read", "prior",
    "purged".
    """

    stage: str
    now: str
    next: str = ""
    to_do: str = ""


class WhichModel(BaseModel):
    """
    Who and why, and which model; all that want the study, where none is named.
    """

    who: str = ""
    reason: str
    model: str = ""


class Who(BaseModel):
    """
    Who decides, through a program.
    """

    who: str = ""


class WhoAndWhy(BaseModel):
    """
    The same, and why.
    """

    who: str = ""
    reason: str


class WorkerState(BaseModel):
    """
    A worker, alive or lost in the last day.
    """

    name: str
    is_alive: bool
    alive_at: AwareDatetime
    version: str
    devices: list[DeviceState]
    warm_models: list[str]
    prefect_error: str
    clock_says: str


class WorkerView(BaseModel):
    """
    A worker that is alive.
    """

    name: str
    device: str
    warm_models: str
    prefect_error: str
    alive_at: AwareDatetime


class WorklistChoices(BaseModel):
    """
    What the studies that are to be read can be filtered by.
    """

    modalities: list[Offer]
    body_parts: list[Offer]
    patient_classes: list[Offer]
    wards: list[Offer]
    people: list[str]


class WorklistCounts(BaseModel):
    """
    How many studies are to be read, of each priority, and how many the AI has flagged.
    """

    total: int
    by_priority: dict[str, int]
    flagged: int
    changed_after_reading: int


class WorklistEntry(BaseModel):
    """
    A line of the reading list.

    `raised_by` is what puts it above its order: "AI", a person's name, "policy", or "". `due_at`
    is when it should be read by, `claimed_until` when a claim runs out, which is None for the
    performer of its workitem. `key_image_uid` is the SOP Instance UID of the image that shows its
    most urgent finding best.
    """

    place: int
    study_instance_uid: str
    priority: Literal["low", "routine", "high", "stat"]
    order_priority: Literal["low", "routine", "high", "stat"]
    is_flagged: bool
    reason: str
    notices: list[str]
    waiting_since: AwareDatetime
    waiting_s: float
    patient_name: str
    patient_id: str
    birth_date: str
    sex: str
    modalities: list[str]
    description: str
    study_date: str
    accession_number: str
    status: StudyStatus
    read_at: AwareDatetime | None = None
    changed_after_reading: str = ""
    completion_reason: str = ""
    location: str = ""
    patient_class: str = ""
    raised_by: str = ""
    due_at: AwareDatetime | None = None
    findings: Annotated[list[FindingChip], Field(validate_default=True)] = []
    key_image_uid: str = ""
    claimed_by: str = ""
    claimed_since: AwareDatetime | None = None
    claimed_until: AwareDatetime | None = None


class WorklistFilter(BaseModel):
    """
    What is asked for; of each kind any one of the values will do, and all kinds must fit.

    Attributes:
        modalities: of any series.
        body_parts: Body Part Examined (0018,0015) of any series, in capitals.
        patient_classes: by HL7 table 0004.
        wards: the first part of the location.
        statuses: what became of the study.
        assigned: by who reads it; "others" is everybody but me.
        person: who, where `assigned` is "person".
        flagged: only those that the AI flags.
    """

    modalities: list[str] = []
    body_parts: list[str] = []
    patient_classes: list[str] = []
    wards: list[str] = []
    statuses: list[Literal["receiving", "analysing", "analysed", "not-analysed", "not-wanted"]] = []
    assigned: Literal["anybody", "me", "nobody", "others", "person"] = "anybody"
    person: str = ""
    flagged: bool = False


class TriageWorklistMessagesMessageView(BaseModel):
    """
    A received message without its content, which has patient data.
    """

    message_id: int
    received_at: AwareDatetime
    sender: str
    address: str
    message_type: str
    control_id: str
    state: Literal["done", "ignored", "refused"]
    """
    What became of a message that was received: done, of no concern, or not understood.
    """
    said: str


class TriageWorklistNotificationsEventView(BaseModel):
    """
    A line of a notification's time line.
    """

    at: AwareDatetime
    kind: str
    who: str
    text: str


class TriageWorklistNotificationsMessageView(BaseModel):
    """
    What one person is told over one channel.
    """

    recipient: str
    channel: str
    kind: Literal["alert", "retraction"]
    """
    What a message to one person says: a finding, or that it is taken back.
    """
    step: int
    state: Literal["waiting", "held", "sending", "sent", "cancelled", "dead"]
    """
    Where a message to one person over one channel stands.

    HELD waits for the person's digest. CANCELLED is not to be sent any more: somebody acknowledged,
    or the result was taken back. DEAD has failed for good.
    """
    held: str
    due_at: AwareDatetime
    sent_at: AwareDatetime | None
    attempts: int
    last_error: str


class TriageWorklistStudyViewEventView(BaseModel):
    """
    A line of the study's history.
    """

    at: AwareDatetime
    kind: str
    text: str


class AccountView(BaseModel):
    """
    Who asks, and what they may do.
    """

    name: str
    way: Literal["open", "session", "token", "proxy", "program"]
    """
    How it is known who somebody is.
    """
    roles: list[Literal["radiologist", "administrator", "ml-engineer", "auditor"]]
    permissions: list[
        Literal[
            "see-patients",
            "change-worklist",
            "answer-findings",
            "store-images",
            "see-models",
            "manage-models",
            "approve-code",
            "see-operations",
            "operate",
            "change-policy",
            "manage-users",
            "read-audit",
            "own-account",
        ]
    ]
    must_change_password: bool
    sessions: list[SessionView]
    tokens: list[TokenView]


class Ai(BaseModel):
    """
    A model that looks for one disease in all studies of a kind.
    """

    sensitivity: float
    """
    Share of the diseased that it flags.
    """
    specificity: float
    """
    Share of all others that it does not flag.
    """
    raises_to: Literal["low", "routine", "high", "stat"] = "high"
    """
    The priority that a flagged study gets at least; an AI never lowers one.
    """
    turnaround: Duration | None = None
    """
    From when a study is on the list to when its flag is.
    """
    answers: float = 1.0
    """
    Share of studies that it answers for; others stay where their order puts them.
    """


class Answer(BaseModel):
    """
    What the person says of a finding.
    """

    verdict: Literal["agree", "disagree", "unsure"]
    """
    What a person says of a finding.
    """
    reason: str = ""


class AnsweredFinding(BaseModel):
    """
    A finding, and what persons say of it; each person's newest word.
    """

    finding_id: int
    run_id: int
    key: str
    title: str
    present: bool
    model: str
    answers: list[FeedbackView]


class AnswersView(BaseModel):
    """
    Whether answers are open, by whom they were closed, and what was reported as missed.
    """

    is_open: bool
    signed_off_by: str
    signed_off_at: AwareDatetime | None
    sign_offs: list[SignOffView]
    missed: list[MissedView]


class AuditView(BaseModel):
    """
    An entry of the trail: who saw or did what, to whose images, when and from where.

    `words` says in plain words what `type` and `outcome` say; empty for what only an earlier
    version could do.
    """

    id: int
    at: AwareDatetime
    kind: Literal[
        "application",
        "authentication",
        "accessed",
        "transferred",
        "query",
        "export",
        "audit-log-used",
        "security-alert",
    ]
    """
    The events of DICOM PS3.15 A.5.3 that Triage records.
    """
    type: str
    action: str
    outcome: Literal[0, 4, 8, 12]
    """
    EventOutcomeIndicator (DICOM PS3.15 A.5.2.2).
    """
    who: str
    way: str
    address: str
    study_instance_uid: str
    patient_id: str
    studies: list[str]
    detail: str
    words: str


class Bar(BaseModel):
    """
    Something that took from `start` to `end`; a moment where the two are one.

    `is_idle` says that nothing was done in that time, so that it may be drawn shorter.
    """

    start: AwareDatetime
    end: AwareDatetime
    tone: Literal[
        "wait", "going-on", "done", "decode", "infer", "interpret", "results", "refused", "failed"
    ]
    """
    What a bar stands for.
    """
    text: str
    is_idle: bool = False


class Bell(BaseModel):
    """
    What the bell of a person shows: how many wait for an acknowledgement, and the first.
    """

    count: int
    entries: list[NotificationView]


class Checked(BaseModel):
    """
    A package was checked.
    """

    kind: Literal["check"] = "check"
    model: str
    package_sha256: str
    is_ok: bool
    checks: list[CheckedThing]
    seconds: float


class ContributionView(BaseModel):
    """
    One thing that counts: `points` are minutes of waiting, `priority` a class or None.

    `counts` is false for what the AI asks for while AI prioritization is switched off.
    """

    source: Literal[
        "order", "person", "location", "ai", "waiting", "withdrawal", "policy", "switch"
    ]
    """
    Who or what says something of how urgent a study is, or changed its place.
    """
    text: str
    priority: Literal["low", "routine", "high", "stat"] | None = None
    points: int = 0
    counts: bool = True


class Deliveries(BaseModel):
    """
    A part of a list of deliveries, and how long the list is.
    """

    total: int
    offset: int
    entries: list[ListedDelivery]


class DestinationView(BaseModel):
    """
    A destination: how much waits for it, and whether anything is sent.

    `kind` is empty where it is not in the settings any more and deliveries to it are left.
    """

    name: str
    kind: str
    pause: PauseView | None
    waiting: int
    sending: int
    dead: int
    delivered: int
    last_delivered_at: AwareDatetime | None


class Difference(BaseModel):
    """
    One finding of one study as both versions have it; `label` is the truth, where known.
    """

    study_instance_uid: str
    key: str
    a: Said
    b: Said
    label: bool | None = None


class Disease(BaseModel):
    """
    What some studies of a kind show. A study shows one at most.
    """

    name: str
    prevalence: float
    """
    Share of the kind's studies.
    """
    reading: Duration | None = None
    """
    How long it takes to read these; without it as long as the kind's others.
    """
    ai: Ai | None = None
    """
    The model that looks for it, if there is one.
    """


class FeedbackKept(BaseModel):
    """
    What was kept of it.
    """

    finding_id: int
    who: str
    verdict: Literal["agree", "disagree", "unsure"]
    """
    What a person says of a finding.
    """
    reason: str
    at: AwareDatetime
    present: bool


class FindingRule(BaseModel):
    """
    What a finding asks for; a finding that no rule names asks for what its manifest says.

    Attributes:
        finding: its key in the manifest, or the value of its code, such as 50960005.
        model: the model's name; left out, it is of any model.
        minimum_confidence: 0 to 1; below it this rule does not raise anything.
        minimum: the least measurement; below it this rule does not raise anything.
        priority: the class that it asks for. routine: it raises no class.
        points: minutes of waiting that it is worth within its class.
    """

    finding: str
    model: str = ""
    minimum_confidence: float = 0.0
    minimum: Minimum | None = None
    priority: Literal["low", "routine", "high", "stat"] = "routine"
    points: int = 0


class FindingView(BaseModel):
    """
    A finding as the study page states it.
    """

    finding_id: int
    run_id: int
    can_be_withdrawn: bool
    key: str
    title: str
    present: bool
    confidence: float
    measurements: list[str]
    site: str
    priority: Literal["low", "routine", "high", "stat"]
    model: str
    stage: Literal["shadow", "canary", "production", "retired"]
    """
    Where a model version stands.

    SHADOW runs on today's studies, and nobody but the ML engineer sees what it says. CANARY
    answers for a share of the studies, the version in production for the others. PRODUCTION
    answers for all. RETIRED runs no more; what it said stays.
    """
    notice: str
    segment_number: int | None
    segmentation_uid: str
    key_image_uids: list[str]
    key_image_frames: list[int] = []
    heat_map_series_uid: str
    withdrawn: str = ""
    feedback: list[FeedbackView]


class FoundStudy(BaseModel):
    """
    A study in the answer, with where it stands in one sentence.
    """

    study_instance_uid: str
    patient_name: str
    patient_id: str
    accession_number: str
    study_date: str
    modalities: list[str]
    description: str
    calling_ae_title: str
    first_instance_at: AwareDatetime
    images: int
    where: Whereabouts


class Group(BaseModel):
    """
    What the AI changes for some of the patients.
    """

    kind: Literal["all", "disease", "other", "flagged", "not-flagged", "order"]
    name: str
    share: float
    studies: int
    without_ai: Waiting
    with_ai: Waiting
    difference_min: Estimate
    waits_longer: float
    longer_p95_min: float


class Lane(BaseModel):
    """
    One line of the picture: its name, and what happened on it.
    """

    group: str
    name: str
    bars: list[Bar]


class LocationRule(BaseModel):
    """
    Where a patient is, and what that is worth.

    Attributes:
        name: how the worklist says it: "Emergency".
        patient_classes: HL7 table 0004: E, I, O …; any of them.
        locations: patterns such as "ED*", any of them; capital and small letters are the same.
            Where both are given, both must hold.
        at_least: the class that such a study has at least.
        points: minutes of waiting that it is worth.
        turnaround_minutes: targets that hold here where they are sooner than the general ones.
    """

    name: str
    patient_classes: list[str] = []
    locations: list[str] = []
    at_least: Literal["low", "routine", "high", "stat"] | None = None
    points: int = 0
    turnaround_minutes: Targets | None = None


class ModelVersion(BaseModel):
    """
    A registered version as a list shows it.
    """

    name: str
    version: str
    title: str
    notice: str
    stage: Literal["shadow", "canary", "production", "retired"]
    """
    Where a model version stands.

    SHADOW runs on today's studies, and nobody but the ML engineer sees what it says. CANARY
    answers for a share of the studies, the version in production for the others. PRODUCTION
    answers for all. RETIRED runs no more; what it said stays.
    """
    share: float
    signed_by: str
    waits_for_approval: bool
    registered_at: AwareDatetime
    health: ModelHealth


class ModelWithCode(BaseModel):
    """
    A version whose package has the code.
    """

    name: str
    version: str
    stage: Literal["shadow", "canary", "production", "retired"]
    """
    Where a model version stands.

    SHADOW runs on today's studies, and nobody but the ML engineer sees what it says. CANARY
    answers for a share of the studies, the version in production for the others. PRODUCTION
    answers for all. RETIRED runs no more; what it said stays.
    """
    signed_by: str
    registered_at: AwareDatetime


class NewToken(BaseModel):
    """
    A token that was just made; the secret is shown this once.
    """

    id: int
    name: str
    owner: str
    scopes: list[
        Literal[
            "see-patients",
            "change-worklist",
            "answer-findings",
            "store-images",
            "see-models",
            "manage-models",
            "approve-code",
            "see-operations",
            "operate",
            "change-policy",
            "manage-users",
            "read-audit",
            "own-account",
        ]
    ]
    created_at: AwareDatetime
    expires_at: AwareDatetime
    last_used_at: AwareDatetime | None
    revoked_at: AwareDatetime | None
    secret: str


class NewUser(BaseModel):
    """
    An account that is to be made; the person has to change the password first.
    """

    name: str
    password: str
    roles: list[Literal["radiologist", "administrator", "ml-engineer", "auditor"]] = []


class NewView(BaseModel):
    """
    The content of a view; `is_default` opens the list with it, instead of another.
    """

    filter: WorklistFilter
    is_default: bool = False


class NotificationDetail(BaseModel):
    """
    A notification with whom it was told to, and all that became of it.
    """

    notification_id: int
    study_instance_uid: str
    patient: str
    modalities: list[str]
    description: str
    finding: str
    said: str
    model: str
    priority: Literal["low", "routine", "high", "stat"]
    rule: str
    state: Literal[
        "pending", "sent", "acknowledged", "escalated", "suppressed", "expired", "withdrawn"
    ]
    """
    Where a notification of one finding class of one study stands.

    PENDING is made with the flag, and nobody was told yet, or the study was put back. SENT has
    reached somebody of the first step, ESCALATED a later one. ACKNOWLEDGED has been seen by a
    person who said so. SUPPRESSED was told nobody, for a stated reason. EXPIRED needs nobody any
    more: the study was read, or nobody acknowledged in time. WITHDRAWN was taken back with the
    result that it was about.
    """
    reason: str
    step: int
    due_at: AwareDatetime | None
    created_at: AwareDatetime
    told_at: AwareDatetime | None
    acknowledged_at: AwareDatetime | None
    acknowledged_by: str
    acknowledged_via: str
    messages: list[TriageWorklistNotificationsMessageView]
    events: list[TriageWorklistNotificationsEventView]


class Operations(BaseModel):
    """
    The state of the whole.
    """

    disk: DiskView | None = None
    runs: dict[str, int]
    deliveries: dict[str, int]
    studies_receiving: int
    workers: list[WorkerView]
    parked: Annotated[list[ParkedModel], Field(validate_default=True)] = []
    destinations: Annotated[list[DestinationView], Field(validate_default=True)] = []
    stuck: list[ListedDelivery]
    not_arrived: int = 0
    withdrawals: Annotated[list[StuckWithdrawal], Field(validate_default=True)] = []
    problems: list[ProblemRun]
    events: list[RecentEvent]
    alerts: Annotated[list[AlertView], Field(validate_default=True)] = []


class PlaceExplanation(BaseModel):
    """
    Why a study is where it is.

    Attributes:
        position: its place on the reading list, from 1; None where it is not on it.
        in_words: all of it in a sentence, as the events say it.
        points: minutes that it is put forward within its class.
        waiting_minutes: since its first image; with the points it is the `score`.
        due_at: when it should be read, None where the policy has no target.
        priority_without_ai, position_without_ai: where it would be if the AI said nothing of it.
        ai_counts: false while AI prioritization is switched off.
        changes: the newest 50, oldest first.
    """

    study_instance_uid: str
    position: int | None
    priority: Literal["low", "routine", "high", "stat"]
    order_priority: Literal["low", "routine", "high", "stat"]
    in_words: str
    contributions: list[ContributionView]
    points: int
    waiting_minutes: int
    score: int
    ranked_at: AwareDatetime
    due_at: AwareDatetime | None
    is_overdue: bool
    rises_at: AwareDatetime | None
    raised: RaiseView | None
    priority_without_ai: Literal["low", "routine", "high", "stat"]
    position_without_ai: int | None
    ai_counts: bool
    policy_version: int
    policy_name: str
    changes: list[PlaceChange]


class PolicyPreview(BaseModel):
    """
    What would have been, had the other policy held; waits are in minutes.

    Both policies are replayed with the readings that there were: at each, the first study of the
    list is taken to be read. A study that is not read waits until `until`.

    Attributes:
        studies: how many were on the list at any time between `since` and `until`.
        readings: how many were read in that time.
        is_truncated: whether there were more, of which only the newest were looked at.
        higher, lower: how many would have a more, or a less, urgent class.
        forward, back: of the same class, how many would be given more, or fewer, points.
        shorter, longer: how many would wait less, or more, by a minute at least.
        mean_shorter, mean_longer: by how many minutes.
        most_affected: those whose wait differs most, the longer first.
    """

    since: AwareDatetime
    until: AwareDatetime
    studies: int
    readings: int
    is_truncated: bool
    higher: int
    lower: int
    forward: int
    back: int
    classes: list[ClassChange]
    shorter: int
    longer: int
    mean_shorter: float
    mean_longer: float
    waits: list[WaitsOfClass]
    most_affected: list[AffectedStudy]


class PriorityPolicy(BaseModel):
    """
    All that decides a study's place, but for the study itself.

    Attributes:
        name: how people call it.
        description: why it is as it is.
        order_points: by what the order says, within the class.
        locations: where patients are; all rules that hold count, and their points add up.
        findings: what findings ask for; of several the most urgent class and the most points.
        turnaround_minutes: by class, from the first image until a study should be read.
        rises_after_minutes: a study that waited so long in its class goes up one. Left out: it
            stays. Use it where everything that is read is marked as read, or the list fills up.
        most_points: the most minutes that all points of a study together are worth.
    """

    name: str = "Shipped policy"
    description: str = ""
    order_points: OrderPoints | None = None
    locations: Annotated[list[LocationRule], Field(validate_default=True)] = []
    findings: Annotated[list[FindingRule], Field(validate_default=True)] = []
    turnaround_minutes: Targets | None = None
    rises_after_minutes: ByClass | None = None
    most_points: int = 720


class ReadStudies(BaseModel):
    """
    A part of the studies that were read, the newest first.
    """

    generated_at: AwareDatetime
    offset: int
    entries: list[WorklistEntry]


class ReceivedMessages(BaseModel):
    """
    The newest messages, newest first, and how many are kept of each state.
    """

    counts: dict[str, int]
    messages: list[TriageWorklistMessagesMessageView]


class RunView(BaseModel):
    """
    One model's analysis, whatever became of it.
    """

    run_id: int
    model: str
    title: str
    stage: Literal["shadow", "canary", "production", "retired"]
    """
    Where a model version stands.

    SHADOW runs on today's studies, and nobody but the ML engineer sees what it says. CANARY
    answers for a share of the studies, the version in production for the others. PRODUCTION
    answers for all. RETIRED runs no more; what it said stays.
    """
    notice: str
    state: str
    is_current: bool
    reason: str
    series: str
    attempts: int
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    timings_s: dict[str, float]
    withdrawn: str = ""
    withdrawal_error: str = ""
    can_be_withdrawn: bool = False
    results: list[ResultView]
    notices: list[DeliveryView]


class RunningView(BaseModel):
    """
    A run in progress, but for shadows; `doing` is how far it is, by the newest heartbeat.
    """

    run_id: int
    model: str
    stage: Literal["shadow", "canary", "production", "retired"]
    """
    Where a model version stands.

    SHADOW runs on today's studies, and nobody but the ML engineer sees what it says. CANARY
    answers for a share of the studies, the version in production for the others. PRODUCTION
    answers for all. RETIRED runs no more; what it said stays.
    """
    study_instance_uid: str
    worker: str
    attempt: int
    started_at: AwareDatetime
    doing: str
    flow_run_id: str


class SaidThrough(BaseModel):
    """
    The same, through a program such as the reporting system.
    """

    verdict: Literal["agree", "disagree", "unsure"]
    """
    What a person says of a finding.
    """
    reason: str = ""
    who: str = ""


class SearchedPart(BaseModel):
    """
    The same with a search for a patient, as the body of a request.
    """

    limit: int = 100
    offset: int = 0
    modalities: list[str] = []
    body_parts: list[str] = []
    patient_classes: list[str] = []
    wards: list[str] = []
    statuses: list[Literal["receiving", "analysing", "analysed", "not-analysed", "not-wanted"]] = []
    assigned: Literal["anybody", "me", "nobody", "others", "person"] = "anybody"
    person: str = ""
    flagged: bool = False
    text: str = ""


class SenderView(BaseModel):
    """
    A sender at an address, by a way in; counts are of instances since midnight or in the hour.

    `broken` counts visits of today that ended without a release. `silence` says in words that it
    has sent nothing for longer than usual.
    """

    calling_ae_title: str
    address: str
    way: Literal["dicom", "dicom-tls", "stow", "pull", "priors", "folder"]
    """
    The way in that instances took.
    """
    way_in_words: str
    today: int
    today_bytes: int
    last_hour: int
    refused: int
    broken: int
    last_at: AwareDatetime
    last_error: str
    silence: str


class StudyAnswers(BaseModel):
    """
    All answers to what was said of a study.
    """

    is_open: bool
    signed_off_by: str
    signed_off_at: AwareDatetime | None
    sign_offs: list[SignOffView]
    missed: list[MissedView]
    study_instance_uid: str
    read_at: AwareDatetime | None
    findings: list[AnsweredFinding]


class StudyKind(BaseModel):
    """
    Studies that the same models look at.
    """

    name: str = "studies"
    share: float = 1.0
    """
    Share of all studies.
    """
    reading: Duration | None = None
    """
    How long it takes to read one.
    """
    diseases: Annotated[list[Disease], Field(validate_default=True)] = []
    """
    What they may show.
    """


class StudyLife(BaseModel):
    """
    All of a study's life, and what can be done about it.
    """

    study_instance_uid: str
    patient_name: str
    patient_id: str
    accession_number: str
    description: str
    study_date: str
    modalities: list[str]
    state: str
    priority: str
    completion_reason: str
    where: Whereabouts
    lanes: list[Lane]
    events: list[LifeEvent]
    runs: list[RunInLife]
    can_be_completed: bool
    can_be_run_again: bool


class StudyView(BaseModel):
    """
    All of it.
    """

    study_instance_uid: str
    patient: PatientView
    accession_number: str
    description: str
    study_date: str
    study_time: str
    modalities: list[str]
    calling_ae_title: str
    state: str
    completion_reason: str
    status: StudyStatus
    is_flagged: bool
    priority: Literal["low", "routine", "high", "stat"]
    order_priority: Literal["low", "routine", "high", "stat"]
    ai_priority: Literal["low", "routine", "high", "stat"] | None
    reason: str
    notices: list[str]
    first_instance_at: AwareDatetime
    last_instance_at: AwareDatetime
    completed_at: AwareDatetime | None
    read_at: AwareDatetime | None
    purged_at: AwareDatetime | None = None
    purge_reason: str = ""
    priority_notices: Annotated[list[DeliveryView], Field(validate_default=True)] = []
    waiting_s: float
    claimed_by: str = ""
    location: str = ""
    patient_class: str = ""
    order_reason: str = ""
    raised_by: str = ""
    series: list[SeriesView]
    opening: OpeningView | None = None
    findings: list[FindingView]
    runs: list[RunView]
    is_prior: bool
    priors: list[PriorView]
    priors_search: str
    comparisons: Annotated[list[ComparisonView], Field(validate_default=True)] = []
    answers: AnswersView
    history: list[TriageWorklistStudyViewEventView]


class Tried(BaseModel):
    """
    A model was run on a study. Findings, objects and pictures are files of the job.
    """

    kind: Literal["try"] = "try"
    model: str
    notice: str
    findings: list[TriedFinding]
    remarks: list[str]
    timings_s: dict[str, float]
    pictures: list[str]
    objects: list[str]


class View(BaseModel):
    """
    A saved way of looking at the list; a search for a patient is never part of it.
    """

    name: str
    filter: WorklistFilter
    is_default: bool


class WantedThrough(BaseModel):
    """
    The same, through a program such as the reporting system.
    """

    reason: Literal[
        "wrong-result",
        "poor-images",
        "wrong-images",
        "software-failure",
        "wrong-patient",
        "patient-safety",
        "other",
        "superseded",
    ]
    """
    Why a result is taken back. SUPERSEDED is Triage's own; the others a person chooses.
    """
    text: str = ""
    who: str = ""


class WithdrawalKept(BaseModel):
    """
    What was kept of it; the archives are told by the worker.
    """

    run_id: int
    who: str
    reason: Literal[
        "wrong-result",
        "poor-images",
        "wrong-images",
        "software-failure",
        "wrong-patient",
        "patient-safety",
        "other",
        "superseded",
    ]
    """
    Why a result is taken back. SUPERSEDED is Triage's own; the others a person chooses.
    """
    text: str
    at: AwareDatetime


class Worklist(BaseModel):
    """
    A part of the reading list, in reading order.

    `counts` are of the whole list; `matching` is how many studies the filter leaves, counted no
    further than 1000 where a search, a status or a person is asked for.
    """

    generated_at: AwareDatetime
    counts: WorklistCounts
    matching: int
    offset: int
    entries: list[WorklistEntry]


class AuditPage(BaseModel):
    """
    Entries, the newest first; `before` asks for those that follow, null where none do.
    """

    entries: list[AuditView]
    before: int | None


class CodeApproval(BaseModel):
    """
    The code in packages of one digest. As long as `who` is empty it is not run.

    `at` is when it was approved or, where it waits, when the package was registered.
    """

    package_sha256: str
    models: list[ModelWithCode]
    who: str
    at: AwareDatetime
    reason: str
    code: list[CodePlace]
    problem: str


class Comparison(BaseModel):
    """
    Both versions on the same studies; the studies where they differ come first.
    """

    name: str
    version_a: str
    version_b: str
    studies: int
    agreements: list[Agreement]
    differences: list[Difference]


class FoundStudies(BaseModel):
    """
    The newest studies that match, whether there are more, and what was ordered and not sent.
    """

    studies: list[FoundStudy]
    is_cut_off: bool
    expected: Annotated[list[ExpectedStudy], Field(validate_default=True)] = []


class Intake(BaseModel):
    """
    What comes in.
    """

    senders: list[SenderView]
    refused: list[RefusedCallerView]


class JobView(BaseModel):
    """
    A job: what was asked, by whom, how far it is, and what came of it.
    """

    job_id: int
    kind: Literal["init", "check", "try", "evaluate"]
    """
    What is asked for: each is a command of `triage models` of the same name.
    """
    model: str
    version: str
    asked: Annotated[InitOrder | CheckOrder | TryOrder | EvaluateOrder, Field(discriminator="kind")]
    who: str
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    """
    Where a job stands. FAILED says why; CANCELLED is a person's word.
    """
    waits_for: str
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    attempts: int
    cancelled_by: str
    progress: str
    reason: str
    outcome: Scaffolded | Checked | Tried | Evaluated | None
    files: list[JobFile]
    delete_after: AwareDatetime | None


class Model(BaseModel):
    """
    A model: its versions, newest first, what they say of themselves, and their past.
    """

    name: str
    title: str
    versions: list[ModelVersion]
    manifests: dict[str, Any]
    in_words: dict[str, list[str]]
    events: list[ModelEvent]
    evaluations: list[ModelEvaluation]


class PolicyView(BaseModel):
    """
    The policy that holds, and the last that was done with it.

    `ai_counts` is false while AI prioritization is switched off. `who`, `reason` and `at` are of
    the newest event, empty for the shipped policy.
    """

    version: int
    policy: PriorityPolicy
    toml: str
    ai_counts: bool
    who: str
    reason: str
    at: AwareDatetime | None


class Scenario(BaseModel):
    """
    A reading room over some days, with and without the AI.
    """

    name: str = "Reading room"
    arrivals_per_hour: float | list[float] = 4.8
    """
    How many studies come: one rate, or 24, one for each hour of the day from midnight.
    """
    readers: int | list[int] = 1
    """
    How many read: one number, or 24.
    """
    orders: list[OrderShare] | None = None
    """
    How studies are ordered; shares add up to 1.
    """
    studies: list[StudyKind] | None = None
    """
    What is read; shares add up to 1.
    """
    interrupting_from: Literal["low", "routine", "high", "stat"] | None = None
    """
    From this priority on a study interrupts the reading of a less urgent one, which goes on
    later. Without it, what is begun is finished.
    """
    target_min: float = 60
    """
    How long a study should wait at most.
    """
    days: int = 30
    """
    Days that count, in each replication.
    """
    warm_up_days: int = 2
    """
    Days before and after these that do not: the room begins and ends empty.
    """
    replications: int = 20
    """
    How often it is played, each time with other studies.
    """


class Simulation(BaseModel):
    """
    A scenario to be played; the same seed gives the same figures.
    """

    scenario: Scenario | None = None
    seed: int = 1


class WaitComparison(BaseModel):
    """
    A scenario, read with and without the AI.
    """

    scenario: Scenario
    seed: int
    studies: int
    load: float
    curve_min: list[float]
    groups: list[Group]


class Board(BaseModel):
    """
    The state of the machinery.
    """

    intake: Intake
    queues: list[QueueView]
    running: list[RunningView]
    workers: list[WorkerState]
    quarantine: list[QuarantinedView]
    disk: DiskForecast
    clock_says: str
    version: str
    prefect: str
    prefect_is_reached: bool


class FitView(BaseModel):
    """
    A scenario of what this installation saw, to be played or changed first.
    """

    scenario: Scenario
    notes: list[NoteView]
