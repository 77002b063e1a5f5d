"""What the API answers and takes; made by `make client` from its OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, Field, RootModel


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


class CodePlace(BaseModel):
    """
    A piece of code: the file of the package, the place in it, and its text.
    """

    file: str
    place: str
    text: str


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


class EventView(BaseModel):
    """
    A line of the study's history.
    """

    at: AwareDatetime
    kind: str
    text: str


class FeedbackView(BaseModel):
    """
    What a person says of a finding.
    """

    who: str
    verdict: str
    reason: str
    at: AwareDatetime


class PixelSpacingMm(RootModel[tuple[float, float]]):
    root: Annotated[tuple[float, float], Field(max_length=2, min_length=2)]


class ImageView(BaseModel):
    """
    An image, or a multi-frame image with all its frames.
    """

    sop_instance_uid: str
    number: int | None
    frames: int
    pixel_spacing_mm: PixelSpacingMm | None


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


class ListedDelivery(BaseModel):
    """
    A delivery in a list, with its study and what is to be done about it.
    """

    delivery: DeliveryView
    study_instance_uid: str
    next_step: str


class MessageView(BaseModel):
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


class NoteView(BaseModel):
    """
    Where a field of a scenario comes from: history, or an assumption.
    """

    field: str
    text: str
    is_known: bool


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


class Reason(BaseModel):
    """
    Who decides, and why; both stay in the model's history.
    """

    who: str = ""
    """
    Where `web.user_header` names the person, that name counts instead; else it is required.
    """
    reason: str


class ReceivedMessages(BaseModel):
    """
    The newest messages, newest first, and how many are kept of each state.
    """

    counts: dict[str, int]
    messages: list[MessageView]


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
    images: list[ImageView]


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


class WorkerView(BaseModel):
    """
    A worker that is alive.
    """

    name: str
    device: str
    warm_models: str
    prefect_error: str
    alive_at: AwareDatetime


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
    """

    place: int
    study_instance_uid: str
    priority: str
    order_priority: str
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


class FindingView(BaseModel):
    """
    A finding as the study page states it.
    """

    finding_id: int
    key: str
    title: str
    present: bool
    confidence: float
    measurements: list[str]
    site: str
    priority: str
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
    heat_map_series_uid: str
    withdrawn: str = ""
    feedback: list[FeedbackView]


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
    priority: str
    order_priority: str
    ai_priority: str | None
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
    location: str = ""
    patient_class: str = ""
    order_reason: str = ""
    series: list[SeriesView]
    findings: list[FindingView]
    runs: list[RunView]
    is_prior: bool
    priors: list[PriorView]
    priors_search: str
    history: list[EventView]


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
    """

    generated_at: AwareDatetime
    counts: WorklistCounts
    offset: int
    entries: list[WorklistEntry]


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


class FitView(BaseModel):
    """
    A scenario of what this installation saw, to be played or changed first.
    """

    scenario: Scenario
    notes: list[NoteView]
