"""`[[remote_models]]`: models that others run, outside the trust boundary."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from triage.core.codes import Code
from triage.core.manifest import InputSpec
from triage.core.manifest.parts import PriorityName
from triage.core.priority import Priority
from triage.settings.destinations import StowDestination
from triage.settings.over_http import OverHttp
from triage.settings.parts import AETitle, Retained, Seconds, Section


class RemoteStowSettings(OverHttp):
    """`stow` of a remote model: images are sent to it by STOW-RS (DICOM PS3.18 10.5)."""

    timeout_s: Seconds = 30.0
    """Seconds that it may take to answer."""


class RemoteFindingSettings(Section):
    """An entry of `findings` of a remote model: a code in its reports, and what it is worth."""

    key: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
    """What it is called here."""
    code: Code
    """The finding, as the report has it: `{value = "…", scheme = "SCT", meaning = "…"}`."""
    priority: PriorityName = Priority.ROUTINE
    """The reading priority that it asks for where it is present: `routine`, `high` or `stat`."""


class RemoteModelSettings(Section):
    """`[[remote_models]]`: gets de-identified images, and its results come back to the receiver."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
    """What the history calls it. Its pseudonyms depend on it: another name is another system."""
    remote: str = ""
    """The `name` of the entry of `[[remotes]]` that images are sent to, by C-STORE; or `stow`."""
    stow: RemoteStowSettings | None = None
    """Where images are sent to by STOW-RS: `{url = "https://…", authorization = "Bearer …"}`, with
    `authorities`, `certificate`, `private_key` and `timeout_s` as of `[[destinations]]`."""
    accepts: InputSpec
    """Which series it gets, as `accepts` of a manifest: `{modalities = ["CT"], images = …}`."""
    results_from: AETitle
    """The AE title that its results come from. Everything that comes from it is taken for a result,
    and nothing of it is a study: it must not send anything else."""
    results_authorization: str = ""
    """The Authorization header by which its results are known that come by STOW-RS, such as
    `Bearer …`; empty takes them by C-STORE only."""
    stage: Literal["shadow", "production"] = "shadow"
    """`production`: what its reports find raises the priority of studies, as what our own models
    find; `shadow`: it does not. Its objects go into the study either way."""
    findings: tuple[RemoteFindingSettings, ...] = ()
    """What is read from its reports (TID 1500): `{key = "…", code = {…}, priority = "stat"}`."""
    retain: tuple[Retained, ...] = ()
    """What is kept of the patient; see `retain` of `[[destinations]]`."""
    results: Annotated[int, Field(ge=1)] = 1
    """How many objects make its answer complete."""
    answer_within_s: Seconds = 3600.0
    """Seconds after which a study without an answer is said to have none."""
    maximum_age_h: Annotated[float, Field(gt=0)] = 24.0
    """Studies that were complete before so many hours are not sent: they are from before it was
    configured, or it was away for long."""
    maximum_attempts: Annotated[int, Field(ge=1)] = 20
    """How often images are sent before it is given up."""

    @model_validator(mode="after")
    def _can_be_meant(self) -> Self:
        if bool(self.remote) == (self.stow is not None):
            raise ValueError(
                f"remote_models {self.name!r}: images go to remote or to stow; set one of the two"
            )
        if self.stage == "production" and not self.findings:
            raise ValueError(
                f"remote_models {self.name!r}: stage = 'production' needs findings, which say what "
                "is read from its reports; add them, or remove stage"
            )
        keys = [finding.key for finding in self.findings]
        if len(set(keys)) < len(keys):
            raise ValueError(f"remote_models {self.name!r}: each of findings needs its own key")
        return self

    @property
    def stow_destination(self) -> StowDestination | None:
        """Where images are sent to by STOW-RS, None where they go by C-STORE."""
        if self.stow is None:
            return None
        return StowDestination(name=self.name, kind="stow", **self.stow.model_dump())
