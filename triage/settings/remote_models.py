"""`[[remote_models]]`: models that others run, outside the trust boundary."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from triage.core.manifest import InputSpec
from triage.settings.parts import AETitle, Retained, Seconds, Section


class RemoteModelSettings(Section):
    """`[[remote_models]]`: gets de-identified images, and its results come back to the receiver."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
    """What the history calls it. Its pseudonyms depend on it: another name is another system."""
    remote: str
    """The `name` of the entry of `[[remotes]]` that images are sent to, by C-STORE."""
    accepts: InputSpec
    """Which series it gets, as `accepts` of a manifest: `{modalities = ["CT"], images = …}`."""
    results_from: AETitle
    """The AE title that its results come from. Everything that comes from it is taken for a result,
    and nothing of it is a study: it must not send anything else."""
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
