"""`[[destinations]]`: who gets results, what of them, and how.

Objects (SEG, SR and the others) go to archives and folders; notices, which say the same in words
and codes, go to the other systems. Each destination has its own part of the outbox.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from triage.core.manifest import ResultKind
from triage.core.runs import DeliveryKind
from triage.settings.parts import AETitle, Port, Seconds, Section, TlsPeer

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
SegmentationType = Literal["BINARY", "FRACTIONAL", "LABELMAP"]
StudyStage = Literal["arriving", "unread", "read"]


@dataclass(frozen=True, slots=True)
class RoutedResult:
    """What a route looks at: the result's model, what it found, and where its study stands."""

    model: str
    stage: str
    findings: Collection[str]
    modalities: Collection[str]
    calling_ae_title: str
    study_stage: StudyStage


class RouteSettings(Section):
    """`route` of a destination: which results go there. What is left out is not asked."""

    models: tuple[str, ...] = ()
    """Names of models, any version."""
    stages: tuple[Literal["production", "canary"], ...] = ()
    """Stages of the model."""
    findings: tuple[str, ...] = ()
    """Keys of findings, one of which must be present."""
    modalities: tuple[str, ...] = ()
    """Modalities, one of which the study must have."""
    senders: tuple[AETitle, ...] = ()
    """AE titles that the study came from."""
    study_stages: tuple[StudyStage, ...] = ()
    """Where the study stands: still `arriving`, complete and `unread`, or `read`."""

    def takes(self, result: RoutedResult) -> bool:
        """Return whether `result` goes this way."""
        asked: tuple[tuple[Collection[str], Collection[str]], ...] = (
            (self.models, {result.model}),
            (self.stages, {result.stage}),
            (self.findings, result.findings),
            (self.modalities, result.modalities),
            ([title.strip() for title in self.senders], {result.calling_ae_title}),
            (self.study_stages, {result.study_stage}),
        )
        return all(not wanted or set(wanted) & set(given) for wanted, given in asked)


class _Routed(Section):
    """What every destination has."""

    name: Name
    """What the pages and the history call it."""
    timeout_s: Seconds = 30.0
    """Seconds that it may take to answer."""
    route: RouteSettings = RouteSettings()
    """Which results go there: `{models = […], findings = […], …}`; see `[destinations.route]`."""


class _TakesObjects(_Routed):
    """A destination of DICOM objects."""

    objects: tuple[ResultKind, ...] = ()
    """Kinds of objects that it gets, of those that the model makes; empty is all."""
    segmentation_type: SegmentationType | None = None
    """How its SEG is encoded; none is `results.segmentation_type`."""
    compressed: bool = False
    """Whether its SEG may be compressed."""

    @property
    def variant(self) -> str:
        """The form of SEG that it asks for; empty where that is the store's own."""
        if self.segmentation_type is None:
            return ""
        return self.segmentation_type.lower() + ("-compressed" if self.compressed else "")


class _TakesNotices(_Routed):
    """A destination that is told in words and codes what was found."""

    notices: tuple[DeliveryKind, ...] = tuple(DeliveryKind)
    """What it is told: `result` of an analysis, change of `priority`, `withdrawal` of a result."""


class _OverHttp(Section):
    """A destination with an address of the web."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")]
    """Its address."""
    authorization: str = ""
    """Value of the Authorization header, such as `Bearer …`; empty sends none."""
    authorities: Path | None = None
    """Who signs its certificate, as PEM, and nobody else; empty trusts the system's."""


class DicomDestination(_TakesObjects, TlsPeer):
    """`kind = "dicom"`: an archive that takes objects by C-STORE."""

    kind: Literal["dicom"] = "dicom"
    """`dicom`, also where it is left out."""
    ae_title: AETitle
    """Its AE title."""
    host: str
    """Its address."""
    port: Port
    """Its DICOM port."""
    storage_commitment: bool = False
    """Ask it to commit to the storage of what was delivered; a dead letter if it does not."""


class StowDestination(_TakesObjects, _OverHttp):
    """`kind = "stow"`: an archive that takes objects by STOW-RS (DICOM PS3.18 10.5)."""

    kind: Literal["stow"]
    """`stow`. `url` is the root of the DICOMweb services, to which `/studies` is added."""


class FolderDestination(_TakesObjects):
    """`kind = "folder"`: a folder that objects are written to as files."""

    kind: Literal["folder"]
    """`folder`."""
    path: Path
    """The folder; it may be on a network share."""


class Hl7Destination(_TakesNotices, TlsPeer):
    """`kind = "hl7"`: a system that is told by HL7 v2 messages over MLLP."""

    kind: Literal["hl7"]
    """`hl7`."""
    host: str
    """Its address."""
    port: Port
    """Its MLLP port."""


class FhirDestination(_TakesNotices, _OverHttp):
    """`kind = "fhir"`: a FHIR R4 server that gets a transaction bundle."""

    kind: Literal["fhir"]
    """`fhir`. `url` is the base of the server."""


class WebhookDestination(_TakesNotices, _OverHttp):
    """`kind = "webhook"`: an address that gets signed JSON by POST."""

    kind: Literal["webhook"]
    """`webhook`."""
    secret: Annotated[str, Field(min_length=16)]
    """What the request is signed with."""


class EmailDestination(_TakesNotices):
    """`kind = "email"`: people who are told by e-mail."""

    kind: Literal["email"]
    """`email`."""
    host: str
    """The SMTP server."""
    port: Port = 587
    """Its port."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection is encrypted."""
    username: str = ""
    """The name to log in with; empty logs nobody in."""
    password: str = ""
    """The password to log in with."""
    sender: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]
    """The address that the message is from."""
    recipients: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")], ...], Field(min_length=1)
    ]
    """The addresses that it goes to."""


ObjectDestination = DicomDestination | StowDestination | FolderDestination
NoticeDestination = Hl7Destination | FhirDestination | WebhookDestination | EmailDestination

KINDS: dict[str, type[Section]] = {
    "dicom": DicomDestination,
    "stow": StowDestination,
    "folder": FolderDestination,
    "hl7": Hl7Destination,
    "fhir": FhirDestination,
    "webhook": WebhookDestination,
    "email": EmailDestination,
}
"""The section of each kind, by the value of `kind`."""


def _kind_of(value: Any) -> Any:
    if isinstance(value, dict):
        return value.get("kind", "dicom")
    return getattr(value, "kind", None)


Destination = Annotated[
    Annotated[DicomDestination, Tag("dicom")]
    | Annotated[StowDestination, Tag("stow")]
    | Annotated[FolderDestination, Tag("folder")]
    | Annotated[Hl7Destination, Tag("hl7")]
    | Annotated[FhirDestination, Tag("fhir")]
    | Annotated[WebhookDestination, Tag("webhook")]
    | Annotated[EmailDestination, Tag("email")],
    Discriminator(
        _kind_of,
        custom_error_type="unknown_kind",
        custom_error_message=f"kind must be one of {', '.join(KINDS)}",
    ),
]
