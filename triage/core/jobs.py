"""Jobs: what an engineer asks of a model on a page or over the API, and a worker does later."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class JobKind(StrEnum):
    """What is asked for: each is a command of `triage models` of the same name."""

    INIT = "init"
    CHECK = "check"
    TRY = "try"
    EVALUATE = "evaluate"


class JobState(StrEnum):
    """Where a job stands. FAILED says why; CANCELLED is a person's word."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self not in (JobState.WAITING, JobState.RUNNING)


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InitOrder(_Order):
    """Make a package of an uploaded file or bundle; what is empty is taken from it.

    `source` is the upload's name in the job's folder, `size` rows and columns of a model of images.
    """

    kind: Literal[JobKind.INIT] = JobKind.INIT
    source: str
    name: str = ""
    version: str = ""
    modality: str = ""
    size: int | None = None
    labels: tuple[str, ...] = ()


class CheckOrder(_Order):
    """Check a registered version, or the uploaded archive of a package."""

    kind: Literal[JobKind.CHECK] = JobKind.CHECK
    model: str = ""
    version: str = ""
    package: str = ""


class TryOrder(_Order):
    """Run a registered version on a study that Triage holds, or on uploaded DICOM files."""

    kind: Literal[JobKind.TRY] = JobKind.TRY
    model: str
    version: str
    study_instance_uid: str = ""
    images: str = ""


class EvaluateOrder(_Order):
    """Compare a registered version with labels; without images on studies that Triage holds."""

    kind: Literal[JobKind.EVALUATE] = JobKind.EVALUATE
    model: str
    version: str
    labels: str
    labels_name: str
    images: str = ""
    held_out_only: bool = False


JobOrder = Annotated[InitOrder | CheckOrder | TryOrder | EvaluateOrder, Field(discriminator="kind")]
ORDERS: TypeAdapter[JobOrder] = TypeAdapter(JobOrder)


class _Outcome(BaseModel):
    model_config = ConfigDict(frozen=True)


class CheckedThing(_Outcome):
    """One thing that was looked at: "ok", "look" (a person has to judge) or "wrong"."""

    name: str
    verdict: Literal["ok", "look", "wrong"]
    text: str


class Scaffolded(_Outcome):
    """A package was made; `left_to_say` are the places that only a person can fill."""

    kind: Literal[JobKind.INIT] = JobKind.INIT
    model: str
    left_to_say: tuple[str, ...]


class Checked(_Outcome):
    """A package was checked."""

    kind: Literal[JobKind.CHECK] = JobKind.CHECK
    model: str
    package_sha256: str
    is_ok: bool
    checks: tuple[CheckedThing, ...]
    seconds: float


class TriedFinding(_Outcome):
    """What a model said of a study, in words, and whether it is there."""

    key: str
    present: bool
    confidence: float | None
    text: str


class Tried(_Outcome):
    """A model was run on a study. Findings, objects and pictures are files of the job."""

    kind: Literal[JobKind.TRY] = JobKind.TRY
    model: str
    notice: str
    findings: tuple[TriedFinding, ...]
    remarks: tuple[str, ...]
    timings_s: dict[str, float]
    pictures: tuple[str, ...]
    objects: tuple[str, ...]


class Evaluated(_Outcome):
    """A model was compared with labels; `figures` as `triage models evaluate` writes them."""

    kind: Literal[JobKind.EVALUATE] = JobKind.EVALUATE
    model: str
    figures: dict[str, Any]


JobOutcome = Annotated[Scaffolded | Checked | Tried | Evaluated, Field(discriminator="kind")]
OUTCOMES: TypeAdapter[JobOutcome] = TypeAdapter(JobOutcome)
