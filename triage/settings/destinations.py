"""`[[destinations]]`: who gets results, what of them, and how.

Objects (SEG, SR and the others) go to archives and folders; notices, which say the same in words
and codes, go to the other systems. Each destination has its own part of the outbox.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from triage.core.manifest import ResultKind
from triage.core.runs import DeliveryKind
from triage.core.segmentation import SegmentationForm, SegmentationType
from triage.settings.parts import (
    AETitle,
    Port,
    Retained,
    Seconds,
    Section,
    TlsPeer,
    TlsSettings,
)

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
StudyStage = Literal["arriving", "unread", "read"]
FILE_PLACEHOLDERS = (
    "patient_id",
    "accession_number",
    "study_date",
    "modality",
    "role",
    "study_instance_uid",
    "series_instance_uid",
    "sop_instance_uid",
)
"""What the `template` of a folder may hold in braces; `role` is the kind of object."""

_SIGNING_SECRET = "whsec_"  # noqa: S105 - how the Standard Webhooks specification marks one
_SHORTEST_SECRET = 16


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
    concurrency: Annotated[int, Field(ge=1, le=16)] = 1
    """How many deliveries a worker sends it at the same time; what belongs together stays in
    order."""
    route: RouteSettings = RouteSettings()
    """Which results go there: `{models = […], findings = […], …}`; see `[destinations.route]`."""
    deidentify: Literal["none", "basic"] = "none"
    """`basic`: nothing that says who the patient is goes there (DICOM PS3.15 Annex E, Basic
    Profile)."""
    retain: tuple[Retained, ...] = ()
    """Of that, what is kept: `uids`; `modified-dates`, moved by the same days for all of a patient;
    `patient-characteristics` (sex, age up to 89, size, weight and the like); `descriptors`, the
    series descriptions that Triage wrote."""

    @model_validator(mode="after")
    def _retains_of_something(self) -> Self:
        if self.retain and self.deidentify == "none":
            raise ValueError(
                f"destinations {self.name!r}: retain is for deidentify = 'basic'; set it or "
                "remove retain"
            )
        return self


class _TakesObjects(_Routed):
    """A destination of DICOM objects."""

    objects: tuple[ResultKind, ...] = ()
    """Kinds of objects that it gets, of those that the model makes; empty is all."""
    segmentation_type: SegmentationType | None = None
    """How its SEG is encoded; none is `results.segmentation_type`."""
    compressed: bool | None = None
    """Whether that encoding is compressed; none compresses all but `BINARY`."""

    @property
    def segmentation_form(self) -> SegmentationForm | None:
        """The form of SEG that it asks for; None where that is the store's own."""
        if self.segmentation_type is None:
            return None
        return SegmentationForm.of(self.segmentation_type, self.compressed)

    @property
    def variant(self) -> str:
        """The name of that form; empty where it is the store's own."""
        return self.segmentation_form.name if self.segmentation_form else ""


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
    certificate: Path | None = None
    """Our certificate with its chain, as PEM, for one that asks for it (mutual TLS)."""
    private_key: Path | None = None
    """Its private key, as PEM."""
    private_key_password: str = ""
    """The password of the private key, where it has one."""

    @property
    def own_tls(self) -> TlsSettings | None:
        """Our side of its TLS; None where we show no certificate."""
        if self.certificate is None:
            return None
        return TlsSettings(
            certificate=self.certificate,
            private_key=self.private_key,
            private_key_password=self.private_key_password,
        )

    @model_validator(mode="after")
    def _shows_a_certificate_over_tls(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("destinations: certificate and private_key belong together; set both")
        if self.certificate is not None and not self.url.lower().startswith("https:"):
            raise ValueError(
                "destinations: certificate is shown over TLS only; let url begin with https"
            )
        return self

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        # Of the whole section, so that the message does not repeat a secret.
        try:
            place = urlsplit(self.url)
            is_place = bool(place.hostname) and place.port != 0
        except ValueError:
            is_place = False
        if not is_place:
            raise ValueError(f"destinations: url {self.url!r} must name a host, and a port if any")
        if "@" in place.netloc:
            raise ValueError(
                f"destinations: the url of {place.hostname} holds a password, which messages would "
                "show; put it into authorization"
            )
        if not (self.authorization.isascii() and self.authorization.isprintable()):
            raise ValueError("destinations: authorization must be one line of ASCII characters")
        return self


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

    @model_validator(mode="after")
    def _commits_to_what_it_knows(self) -> DicomDestination:
        if self.storage_commitment and self.deidentify != "none":
            raise ValueError(
                f"destinations {self.name!r}: what is de-identified has other UIDs there, so "
                "storage_commitment cannot be asked for; remove one of the two"
            )
        return self


class StowDestination(_TakesObjects, _OverHttp):
    """`kind = "stow"`: an archive that takes objects by STOW-RS (DICOM PS3.18 10.5)."""

    kind: Literal["stow"]
    """`stow`. `url` is the root of the DICOMweb services, to which `/studies` is added."""


class FolderDestination(_TakesObjects):
    """`kind = "folder"`: a folder that objects are written to as files."""

    kind: Literal["folder"]
    """`folder`."""
    path: Path
    """The folder; it may be on a network share, and must be there."""
    template: str = "{study_instance_uid}/{sop_instance_uid}.dcm"
    """The file in it, with `{patient_id}`, `{accession_number}`, `{study_date}`, `{modality}`,
    `{role}`, `{study_instance_uid}`, `{series_instance_uid}`, and always `{sop_instance_uid}`."""

    @field_validator("template")
    @classmethod
    def _names_one_file(cls, template: str) -> str:
        try:
            parts = [(name, spec, how) for _, name, spec, how in Formatter().parse(template)]
        except ValueError as error:
            raise ValueError(f"the braces do not match: {error}") from error
        fields = [name for name, _, _ in parts if name is not None]
        if any(name not in FILE_PLACEHOLDERS or spec or how for name, spec, how in parts if name):
            known = ", ".join(f"{{{name}}}" for name in FILE_PLACEHOLDERS)
            raise ValueError(f"only these may stand in braces: {known}")
        if "" in fields or "sop_instance_uid" not in fields:
            raise ValueError("must hold {sop_instance_uid}, or objects would overwrite one another")
        steps = template.split("/")
        if PurePosixPath(template).is_absolute() or {"", ".", ".."} & set(steps):
            raise ValueError("must lead to a file inside the folder: no '/' at an end, no '..'")
        return template


Hl7Text = Annotated[str, Field(max_length=180, pattern=r"^[^\x00-\x1f]*$")]


class Hl7Destination(_TakesNotices, TlsPeer):
    """`kind = "hl7"`: a system that is told by HL7 v2 messages over MLLP."""

    kind: Literal["hl7"]
    """`hl7`."""
    host: str
    """Its address."""
    port: Port
    """Its MLLP port."""
    version: Literal["2.5.1", "2.3.1"] = "2.5.1"
    """The version of HL7 that it reads."""
    messages: Annotated[tuple[Literal["oru", "omi", "orm"], ...], Field(min_length=1)] = (
        "oru",
        "orm",
    )
    """What it is sent: results as ORU^R01 (`oru`); changes of priority as OMI^O23 (`omi`) or as
    ORM^O01 (`orm`). `notices` follow from it where they are left out."""
    sending_application: Hl7Text = "TRIAGE"
    """MSH-3."""
    sending_facility: Hl7Text = ""
    """MSH-4."""
    receiving_application: Hl7Text = ""
    """MSH-5."""
    receiving_facility: Hl7Text = ""
    """MSH-6."""
    processing_id: Literal["P", "T", "D"] = "P"
    """MSH-11: production, training or debugging."""
    character_set: Literal["UNICODE UTF-8", "8859/1", "8859/2", "8859/15", "ASCII"] = (
        "UNICODE UTF-8"
    )
    """MSH-18; what it has not is sent as a question mark."""
    acknowledgement: Literal["application", "accept"] = "application"
    """`application` waits for AA (original mode); `accept` asks for CA by MSH-15."""
    retry_errors: bool = True
    """Send again, as often as other failures, what was answered with AE or CE."""
    connection: Literal["persistent", "per-message"] = "persistent"
    """Keep the connection open, or make one for each message."""
    assigning_authority: Hl7Text = ""
    """PID-3.4 where the images name no issuer of the Patient ID."""
    templates: Path | None = None
    """Folder of templates (`oru.j2`, `omi.j2`, `orm.j2`) that replace the segments after MSH; none
    sends ours. See docs/hl7.md."""

    @model_validator(mode="before")
    @classmethod
    def _told_by_messages(cls, values: Any) -> Any:
        if isinstance(values, dict) and "messages" in values and "notices" not in values:
            return {**values, "notices": _notices_of(values["messages"])}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Hl7Destination:
        if {"omi", "orm"} <= set(self.messages):
            raise ValueError(
                f"destinations {self.name!r}: messages has omi and orm, which say the same; "
                "choose one"
            )
        if "omi" in self.messages and self.version == "2.3.1":
            raise ValueError(
                f"destinations {self.name!r}: there is no OMI^O23 in version 2.3.1; choose orm"
            )
        untold = sorted(set(self.notices) - set(_notices_of(self.messages)))
        if untold:
            raise ValueError(
                f"destinations {self.name!r}: no message of {', '.join(self.messages)} tells "
                f"{' and '.join(untold)}; add one to messages, or take it out of notices"
            )
        return self

    @property
    def order_message(self) -> Literal["omi", "orm"] | None:
        """The message by which it is told a change of priority."""
        return "omi" if "omi" in self.messages else "orm" if "orm" in self.messages else None


def _notices_of(messages: Any) -> tuple[DeliveryKind, ...]:
    results = (DeliveryKind.RESULT, DeliveryKind.WITHDRAWAL) if "oru" in messages else ()
    is_told = "omi" in messages or "orm" in messages
    return (*results, DeliveryKind.PRIORITY) if is_told else results


class FhirDestination(_TakesNotices, _OverHttp):
    """`kind = "fhir"`: a FHIR R4 server that gets a transaction bundle."""

    kind: Literal["fhir"]
    """`fhir`. `url` is the base of the server."""
    patients: Literal["identifier", "reference", "create"] = "identifier"
    """How it is told who the patient is. `identifier`: by the Patient ID, whether it has the
    patient or not. `reference`: by a link to its own Patient, which must be there. `create`: the
    same, and one is created where there is none."""
    patient_system: str = ""
    """The system (a URI) of Patient IDs that come without an issuer."""
    patient_systems: dict[str, str] = {}  # noqa: RUF012
    """The systems of those with an issuer, by Issuer of Patient ID (0010,0021); one that is an OID
    needs none."""
    accession_system: str = ""
    """The system (a URI) of Accession Numbers."""

    @model_validator(mode="after")
    def _finds_patients(self) -> FhirDestination:
        if self.patients != "identifier" and not (self.patient_system or self.patient_systems):
            raise ValueError(
                f"destinations {self.name!r}: patients = {self.patients!r} needs patient_system, "
                "so that a Patient ID finds nobody else"
            )
        return self


class WebhookDestination(_TakesNotices, _OverHttp):
    """`kind = "webhook"`: an address that gets signed JSON by POST."""

    kind: Literal["webhook"]
    """`webhook`."""
    secret: str
    """What the request is signed with: `whsec_` and 24 to 64 bytes in base64, or any text of at
    least 16 characters."""
    patient_data: bool = False
    """Whether it says who the patient is, and the accession number."""

    @model_validator(mode="after")
    def _secret_is_long_enough(self) -> WebhookDestination:
        # Of the whole section, so that the message does not repeat the secret.
        if len(self.signing_key) < _SHORTEST_SECRET:
            raise ValueError(
                f"destinations {self.name!r}: secret must be {_SIGNING_SECRET} and base64, or at "
                f"least {_SHORTEST_SECRET} characters; make one with `openssl rand -base64 32`"
            )
        return self

    @property
    def signing_key(self) -> bytes:
        """The bytes of the secret; empty where it is not base64 and should be."""
        if not self.secret.startswith(_SIGNING_SECRET):
            return self.secret.encode()
        encoded = self.secret.removeprefix(_SIGNING_SECRET)
        try:
            return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except binascii.Error:
            return b""


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
    authorities: Path | None = None
    """Who signs the server's certificate, as PEM, and nobody else; empty trusts the system's."""
    patient_data: bool = False
    """Whether it may say who the patient is, and the accession number. E-mail is read on many
    screens and is kept for years."""
    template: Path | None = None
    """Text of the message, its first line the subject, as a Jinja template; empty is ours."""

    @model_validator(mode="after")
    def _password_is_not_sent_in_the_clear(self) -> EmailDestination:
        if self.username and self.security == "none":
            raise ValueError(
                f'destinations {self.name!r}: with security = "none" the password would be sent '
                "in the clear; use starttls or tls, or remove username"
            )
        return self


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
