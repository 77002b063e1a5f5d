"""One typed settings object, read from one TOML file and from environment variables.

`TRIAGE_CONFIG` names the file (default `triage.toml` in the working directory, if it exists).
Every key can also be set as an environment variable: `TRIAGE_RECEIVER__PORT=11113` sets
`[receiver] port`. Environment wins over the file. `docs/configuration.md` lists all keys.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import itertools
import json
import os
import re
import textwrap
import tomllib
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from triage.core.descriptions import check_template
from triage.core.segmentation import SegmentationForm, SegmentationType
from triage.settings.audit import AuditSettings
from triage.settings.destinations import (
    KINDS,
    Destination,
    DicomDestination,
    EmailDestination,
    FhirDestination,
    FolderDestination,
    Hl7Destination,
    NoticeDestination,
    ObjectDestination,
    RoutedResult,
    RouteSettings,
    StowDestination,
    WebhookDestination,
)
from triage.settings.login import LoginSettings, OidcSettings, RoleGroups
from triage.settings.notifications import (
    GroupSettings,
    NotificationRuleSettings,
    NotificationSettings,
    RecipientSettings,
    ShiftSettings,
    StepSettings,
)
from triage.settings.parts import (
    AETitle,
    Days,
    Network,
    Port,
    Retained,
    Seconds,
    Section,
    SettingsError,
    TlsPeer,
    TlsSettings,
)
from triage.settings.reading import ReadingSettings
from triage.settings.remote_models import RemoteModelSettings
from triage.settings.ups import UpsSettings
from triage.settings.worklist import WorklistSettings

__all__ = [
    "AETitle",
    "AuditSettings",
    "Destination",
    "DicomDestination",
    "EmailDestination",
    "FhirDestination",
    "FolderDestination",
    "Hl7Destination",
    "LoginSettings",
    "NoticeDestination",
    "NotificationSettings",
    "ObjectDestination",
    "OidcSettings",
    "ReadingSettings",
    "RemoteModelSettings",
    "Retained",
    "RouteSettings",
    "RoutedResult",
    "Section",
    "SettingsError",
    "StowDestination",
    "TlsPeer",
    "TlsSettings",
    "UpsSettings",
    "WebhookDestination",
]

SandboxMode = Literal["require", "prefer", "off"]


class ReceiverSettings(Section):
    """`[receiver]`: the DICOM storage SCP and completeness of studies."""

    ae_title: AETitle = "TRIAGE"
    """The AE title that senders call."""
    host: str = "127.0.0.1"
    """The address to listen on; `0.0.0.0` is every interface."""
    port: Port = 11112
    """The DICOM port."""
    plain: bool = True
    """Listen without TLS on `port`."""
    tls_port: Port | None = None
    """The port for DICOM over TLS (2762 is the registered one); none is off. See `[tls]`."""
    allowed_calling_ae_titles: tuple[AETitle, ...] = ()
    """The AE titles that may send; empty lets everybody. `[[senders]]` says more of each."""
    close_unknown_addresses: bool = False
    """Close connections from addresses that no sender has, before they say anything."""
    require_called_ae_title: bool = False
    """Refuse associations that call another AE title than ours."""
    processes: Annotated[int, Field(ge=0, le=64)] = 0
    """Receiver processes that share the port; 0 is one for each core, four at most."""
    maximum_associations: Annotated[int, Field(ge=1, le=1000)] = 64
    """Associations at once; the next one is refused as transient."""
    maximum_associations_per_sender: Annotated[int, Field(ge=1)] | None = None
    """The same for each calling AE title; a sender of `[[senders]]` may have its own."""
    maximum_pdu_bytes: Annotated[int, Field(ge=4096, le=16 * 1024 * 1024)] = 262144
    """The largest PDU that we ask for."""
    network_timeout_s: Seconds = 60.0
    """Seconds without a sign of the sender before its association is aborted."""
    association_request_timeout_s: Seconds = 30.0
    """Seconds for a new connection to finish its TLS handshake, and again to ask to associate."""
    message_timeout_s: Seconds = 3600.0
    """Seconds that one message may take to arrive before its association is aborted."""
    maximum_association_s: Seconds = 14400.0
    """Seconds after which an association is aborted between two messages; a study stays open as
    long as an association that sent images of it."""
    maximum_instance_mb: Annotated[int, Field(ge=1)] = 8192
    """The largest instance, in MB; a larger one is answered with 0xA700."""
    journal_mb: Annotated[int, Field(ge=0, le=4096)] = 16
    """Size, in MB, of each of the two parts of a receiver process's journal, which makes images
    durable; 0 is no journal, and each image is synced by itself."""
    minimum_free_mb: Annotated[int, Field(ge=0)] = 512
    """Free disk space, in MB, below which instances are answered with 0xA700; analysis and results
    go on in what is left."""
    resume_free_mb: Annotated[int, Field(ge=0)] = 1024
    """Free disk space, in MB, from which on they are taken again."""
    warning_free_mb: Annotated[int, Field(ge=0)] = 5120
    """Free disk space, in MB, below which the log, `/status` and `triage doctor` warn."""
    quiet_period_s: Seconds = 30.0
    """Seconds without a new image before a study counts as complete."""
    quiet_period_by_modality_s: dict[str, Seconds] = {"CT": 5.0, "MR": 10.0, "DX": 2.0, "CR": 2.0}  # noqa: RUF012
    """The same for single modalities; the longest of a study's modalities counts."""
    quiet_period_by_calling_ae_title_s: dict[str, Seconds] = {}  # noqa: RUF012
    """The same for single senders; it goes before the modalities', and the longest counts."""
    expected_wait_s: Seconds = 60.0
    """Seconds after the last image for which announced images that are missing are waited for."""
    maximum_age_s: Seconds = 1800.0
    """Seconds after which a study counts as complete although its images do not stop coming."""
    wrong_images_in_acquisition_from: tuple[AETitle, ...] = ()
    """AE titles of senders whose Images in Acquisition (0020,1002) is wrong and not waited for."""
    count_at: str = ""
    """Name of the remote that is asked how many images a study has; empty asks nobody."""
    count_pause_s: Seconds = 2.0
    """Seconds without a new image before the remote is asked, and between two questions."""


class SenderSettings(Section):
    """`[[senders]]`: an application entity that may call the receiver; without any, all may."""

    ae_title: AETitle
    """Its AE title."""
    addresses: tuple[Network, ...] = ()
    """Addresses or networks it calls from, such as `10.1.2.0/24`; empty is any."""
    maximum_associations: Annotated[int, Field(ge=1)] | None = None
    """Associations that it may have at once; none is `maximum_associations_per_sender`."""
    require_tls: bool = False
    """Let it in over TLS only."""


class DatabaseSettings(Section):
    """`[database]`: where the truth is kept; empty means SQLite in the data directory."""

    url: str = ""
    """`sqlite:///…` or `postgresql+psycopg://…`; empty is SQLite in the data directory."""

    @field_validator("url")
    @classmethod
    def _supported(cls, url: str) -> str:
        if url and not url.startswith(("sqlite:///", "postgresql+psycopg://")):
            raise ValueError("must begin with sqlite:/// or postgresql+psycopg://")
        return url


class PrefectSettings(Section):
    """`[prefect]`: where flows are recorded; empty `api_url` starts a server of our own."""

    api_url: str = ""
    """The API of a Prefect server; empty starts one of our own."""
    host: str = "127.0.0.1"
    """The address that our own server listens on."""
    port: Port = 4200
    """The port of our own server."""
    ui_url: str = ""
    """Where people reach Prefect's pages, for links from runs. Empty: our own server's, where the
    pages of Triage are served to this machine only, and no links otherwise."""


class WorkerSettings(Section):
    """`[worker]`: how runs are claimed and models are hosted."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda:1`, or several as `cuda:0,cuda:1`; `auto` takes all GPUs there are."""
    lease_s: Seconds = 30.0
    """Seconds after which another worker may take over from one that has died."""
    maximum_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """How often a run is tried before it counts as failed."""
    poll_interval_s: Seconds = 0.05
    """Seconds between two looks at the queue."""
    warm_models: bool = True
    """Load the models before the first study comes."""
    host_memory_mb: Annotated[int, Field(ge=256)] = 4096
    """Memory for warm models; beyond it the least recently used one ends."""
    decode_ahead_mb: Annotated[int, Field(ge=0)] = 512
    """Memory for images that are decoded while their study still arrives; 0 decodes none ahead."""
    studies_in_flight: Annotated[int, Field(ge=0, le=64)] = 0
    """Studies that are decoded, inferred and written side by side; 0 is two more than GPUs."""
    host_growth_factor: Annotated[float, Field(gt=1)] = 3.0
    """A host that takes so many times the memory of its first run is started anew."""
    breaker_failures: Annotated[int, Field(ge=1)] = 5
    """A model that fails so many studies in a row is parked."""
    breaker_pause_s: Seconds = 300.0
    """Seconds after which a parked model is tried again, with one study."""


class PublicKeySettings(Section):
    """An entry of `trust.public_keys`: whose signatures on model packages are believed."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    """Who holds the private key, as the pages say it."""
    path: Path
    """The public key, as PEM."""


class TrustSettings(Section):
    """`[trust]`: whose model packages are taken, and what a model's process may do."""

    public_keys: tuple[PublicKeySettings, ...] = ()
    """Whose signatures are believed: `{name = "…", path = "….pub"}` for each."""
    require_signature: bool = False
    """Refuse packages that none of them signed; those that come with Triage need no signature."""
    sandbox: SandboxMode = "prefer"
    """Confine the processes of models: `prefer` does what the system can, `require` runs no model
    where something cannot be enforced, `off` does nothing."""
    approvers: tuple[Annotated[str, Field(min_length=1, max_length=128)], ...] = ()
    """Who may approve code on the pages and over the API, as `web.user_header` names them. Empty:
    whoever sits at this machine, where the pages are for this machine only; else nobody."""

    @field_validator("public_keys")
    @classmethod
    def _named_once(cls, keys: tuple[PublicKeySettings, ...]) -> tuple[PublicKeySettings, ...]:
        names = [key.name for key in keys]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"the name {', '.join(sorted(twice))} is there twice")
        return keys


class WebSettings(Section):
    """`[web]`: pages and API.

    `allowed_hosts` are the names under which browsers reach the pages when `host` is not the
    loopback address; a request that names another host is refused (DNS rebinding).
    """

    host: str = "127.0.0.1"
    """The address that the pages listen on."""
    port: Port = 8080
    """Their port."""
    public_url: Annotated[str, Field(pattern=r"^(https?://[^\s]*[^\s/])?$")] = ""
    """Address under which people reach the pages, such as `https://triage.hospital.example`, for
    links in messages; empty gives no links."""
    allowed_hosts: tuple[str, ...] = ()
    """Names of this server in browsers, beside loopback; other Host headers are refused."""
    trusted_proxies: tuple[Network, ...] = (ip_network("127.0.0.1/32"), ip_network("::1/128"))
    """Addresses of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed."""
    login: LoginSettings = LoginSettings()
    """Who may use the pages: the section `[web.login]`."""
    user_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]*$")] = ""
    """Header in which the proxy in front names the person who is logged in, such as
    `X-Remote-User`; it must remove what browsers send under that name. Empty: feedback is kept
    under the computer's address, and decisions about models under the name that is typed in."""
    maximum_package_mb: Annotated[int, Field(ge=1)] = 4096
    """The longest upload of a model package or of images for a job, in MB; a longer one is answered
    with 413."""


class JobSettings(Section):
    """`[jobs]`: what engineers ask of models on the pages, done by a worker beside its studies."""

    keep_days: Days = 7.0
    """Days after a job is over before its row and its files go, which may hold patient data."""
    time_limit_s: Seconds = 14400.0
    """Seconds after which a job is ended."""
    niceness: Annotated[int, Field(ge=0, le=19)] = 19
    """How far a job's processes give way to all others (nice(2)); 19 takes next to nothing of the
    processors from studies that come meanwhile."""
    device: str = "cpu"
    """Where its models run, as `worker.device`; the CPU takes no memory of a GPU that a study might
    need."""


class RemoteSettings(TlsPeer):
    """`[[remotes]]`: an application entity that Triage asks, pulls from, or moves images to."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    """What the commands and the history call it."""
    ae_title: AETitle
    """Its AE title."""
    host: str
    """Its address."""
    port: Port
    """Its DICOM port."""
    timeout_s: Seconds = 30.0
    """Seconds that it may take to answer."""
    dicomweb_url: str = ""
    """Root of its DICOMweb services (QIDO-RS, WADO-RS); empty where it has none."""
    dicomweb_authorization: str = ""
    """Value of the Authorization header for them, such as `Bearer …`."""


class StowSettings(Section):
    """`[stow]`: STOW-RS, the way in over HTTP, at `/dicom-web/studies` of the pages."""

    enabled: bool = True
    """Whether instances are taken over HTTP."""
    authorization: str = ""
    """The value that the Authorization header must have, such as `Bearer …`; empty lets all in."""
    maximum_request_mb: Annotated[int, Field(ge=1)] = 16384
    """The longest request, in MB; a longer one is answered with 413."""
    maximum_instance_mb: Annotated[int, Field(ge=1)] = 2048
    """The largest instance, in MB; a larger one of a request is not stored, the others are."""


class DicomwebSettings(Section):
    """`[dicomweb]`: QIDO-RS and WADO-RS, reading over HTTP, at `/dicom-web` of the pages."""

    enabled: bool = True
    """Whether what is held can be searched and retrieved over HTTP."""
    authorization: str = ""
    """The value that the Authorization header must have, such as `Bearer …`; empty is that of
    `[stow]`, and lets all in where that is empty too."""


class ViewerSettings(Section):
    """`[viewer]`: the OHIF viewer, served by `triage web` on a port of its own.

    It is served where its files are, which `make viewer` fetches.
    """

    enabled: bool = True
    """Whether it is served where its files are there."""
    port: Port = 8081
    """Its port, on the address of `[web]`."""
    path: Path = Path("var/viewer")
    """The folder of its files."""
    url: str = ""
    """Its address in browsers, where that is another one than the pages' host with `port`, behind
    a proxy for example. It must be the root of a host name or port."""

    @field_validator("url")
    @classmethod
    def _is_a_root(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+/?", url):
            raise ValueError("must be like https://viewer.example.org, without a path")
        return url.rstrip("/")


class WatchedFolderSettings(Section):
    """`[watched_folder]`: a folder whose DICOM files are taken in; watched by `triage receive`."""

    path: str = ""
    """The folder; empty watches none. It may be on a network share."""
    rest_s: Seconds = 2.0
    """Seconds for which a file's size and time must not have changed before it is taken."""
    poll_s: Seconds = 1.0
    """Seconds between two looks into the folder."""
    keep_done: bool = False
    """Move what is stored to `done/` in the folder instead of deleting it."""
    sender: AETitle = "FOLDER"
    """What the study is said to come from, as an AE title would."""


class PriorsSettings(Section):
    """`[priors]`: earlier studies of the patient that are fetched before the analysis."""

    remote: str = ""
    """The `name` of the entry of `[[remotes]]` that is asked; empty fetches no priors."""
    count: Annotated[int, Field(ge=1, le=20)] = 2
    """How many: the last ones that are relevant."""
    modalities: tuple[str, ...] = ()
    """Modalities that are relevant; empty is the modalities of the study itself."""
    same_body_part: bool = True
    """Leave out studies that are known to be of another part of the body."""
    maximum_age_days: Annotated[int, Field(ge=1)] = 1825
    """How old they may be, in days before the study."""
    wait_s: Annotated[float, Field(ge=0)] = 30.0
    """Seconds that the analysis of a complete study waits for its priors at most."""
    maximum_attempts: Annotated[int, Field(ge=1, le=20)] = 4
    """How often the archive is asked before the search counts as failed."""
    retry_s: Seconds = 5.0
    """The pause after the first failed attempt; it doubles with each."""


class QuerySettings(Section):
    """`[query]`: C-FIND, C-MOVE and C-GET over what Triage holds."""

    enabled: bool = True
    """Offer them at all."""
    allowed_calling_ae_titles: tuple[AETitle, ...] = ()
    """The AE titles that may ask; empty lets everybody who may associate."""


class CommitmentSettings(Section):
    """`[commitment]`: storage commitment, given to senders and asked of archives."""

    sources_at: str = ""
    """Name of the remote or destination asked to commit to the images of each complete study."""
    same_association_s: Seconds = 1.0
    """Seconds after a request during which the report waits for the sender's association to end."""
    report_timeout_s: Seconds = 3600.0
    """Seconds that an archive may take to report, before it is asked again."""
    maximum_attempts: Annotated[int, Field(ge=1)] = 20
    """How often an archive is asked, or a sender told, before it is given up."""
    first_retry_s: Seconds = 5.0
    """The pause after the first failed attempt; it doubles with each."""
    longest_retry_s: Seconds = 600.0
    """The longest pause between two attempts."""


class Hl7Settings(Section):
    """`[hl7]`: HL7 v2 messages that are taken over MLLP, by `triage receive`."""

    port: Port | None = None
    """The port to listen on (2575 is the registered one); none is off."""
    host: str = "127.0.0.1"
    """The address to listen on; `0.0.0.0` is every interface."""
    tls: bool = False
    """Listen with TLS, with the certificate and the trusted authorities of `[tls]`."""
    allowed_addresses: tuple[Network, ...] = ()
    """Addresses or networks that may connect, such as `10.1.2.0/24`; empty lets everybody."""
    allowed_applications: tuple[str, ...] = ()
    """Sending applications (MSH-3) whose messages are taken; empty takes everybody's."""
    application: str = "TRIAGE"
    """Who answers, where a message does not say whom it is for (MSH-5)."""
    processing_ids: tuple[str, ...] = ("P",)
    """Values of MSH-11 that are taken: P is production, T training, D debugging."""
    character_set: str = "UNICODE UTF-8"
    """What messages are read as that name no character set (MSH-18)."""
    assigning_authority: str = ""
    """The namespace (PID-3.4) of the Patient IDs that images give without an issuer; empty takes
    any for it, which is wrong where two hospitals number their patients by themselves."""
    accession_number: Literal["auto", "IPC-1", "OBR-18", "OBR-3", "OBR-2"] = "auto"
    """Where messages have the accession number; `auto` is the first of these that is not empty."""
    priorities: dict[str, Literal["low", "routine", "high", "stat"]] = {  # noqa: RUF012
        "S": "stat",
        "A": "high",
        "R": "routine",
        "P": "routine",
        "C": "routine",
        "T": "high",
    }
    """What codes of TQ1-9, ORC-7 and OBR-27 (table 0485) mean; other codes change nothing."""
    other_messages: Literal["reject", "ignore"] = "reject"
    """Answer messages of other types with AR, or with AA without looking at them."""
    maximum_message_kb: Annotated[int, Field(ge=1, le=65536)] = 1024
    """The longest message, in kB; a longer one ends its connection."""
    message_timeout_s: Seconds = 60.0
    """Seconds that a message which has begun may take to arrive."""
    maximum_connections: Annotated[int, Field(ge=1, le=1000)] = 50
    """Connections at once; further ones are closed."""
    keep_days: Days = 30.0
    """Days that received messages are kept as they came; they hold patient data."""
    keep_orders_days: Days = 90.0
    """Days after its last message that an order is kept of which no study came."""


class ResultSettings(Section):
    """`[results]`: how result objects are written and delivered."""

    segmentation_type: SegmentationType = "BINARY"
    """`BINARY` is what every viewer shows; `FRACTIONAL` says how probable each voxel is; `LABELMAP`
    is smaller and newer."""
    compressed: bool | None = None
    """Compress segmentations without loss: `FRACTIONAL` and `LABELMAP` by RLE, `BINARY` by
    deflating the data set, which fewer archives take. None compresses all but `BINARY`."""
    report_type: Literal["3d", "comprehensive"] = "3d"
    """Reports are Comprehensive 3D SR; `comprehensive` is for an archive that takes only those."""
    empty_segmentations: bool = True
    """Write a SEG without a voxel where a segmenting model found nothing."""
    maximum_delivery_attempts: Annotated[int, Field(ge=1)] = 20
    """Attempts before a delivery becomes a dead letter."""
    first_retry_s: Seconds = 2.0
    """The pause after the first failed attempt; it doubles with each."""
    longest_retry_s: Seconds = 600.0
    """The longest pause between two attempts."""
    device_uid: str = ""
    """Device Observer UID in the reports; empty derives one."""
    series_description: Annotated[str, AfterValidator(check_template)] = (
        "AI: {finding} ({model} {version})"
    )
    """What the series are called; may hold `{finding}`, `{model}`, `{version}` and `{kind}`."""
    first_series_number: Annotated[int, Field(ge=0, le=2_000_000_000)] = 9000
    """The series of results have the thousand numbers from here on."""

    @property
    def segmentation_form(self) -> SegmentationForm:
        """How segmentations are written where a destination asks for nothing else."""
        return SegmentationForm.of(self.segmentation_type, self.compressed)


class RetentionSettings(Section):
    """`[retention]`: which images are deleted, and when; by default none is.

    Never before the study is complete, its runs are over and its results are delivered.
    """

    read_days: Days | None = None
    """Days after completion and reading before the images of an analysed study go; none keeps."""
    unread_days: Days | None = None
    """Days after completion before those of an analysed study that nobody marked as read go."""
    not_routed_read_days: Days | None = None
    """`read_days` for a study that no model wanted; none is the same."""
    not_routed_unread_days: Days | None = None
    """`unread_days` for a study that no model wanted; none is the same."""
    start_below_free_mb: Annotated[int, Field(ge=0)] = 0
    """Free disk space, in MB, below which the oldest images go regardless of days; 0 is off."""
    until_free_mb: Annotated[int, Field(ge=0)] = 0
    """Free disk space, in MB, at which that ends."""
    space_takes_unread: bool = False
    """Let images of unread studies go for space too, after all those of read studies."""
    result_files: bool = False
    """Delete the files of our own results together with the images."""
    require_commitment: bool = False
    """Only where an archive has committed itself to keep the study."""
    forget_patient_days: Days | None = None
    """Days after the images went before patient data and result files go too; none keeps."""
    unindexed_days: Days = 7.0
    """Days before a file that no row names goes: it was never acknowledged, unless the database was
    set back to an older state."""
    interval_s: Seconds = 300.0
    """Seconds between two rounds of deleting."""

    @model_validator(mode="after")
    def _ordered(self) -> RetentionSettings:
        if self.start_below_free_mb and self.until_free_mb < self.start_below_free_mb:
            raise ValueError(
                "retention.until_free_mb must be at least retention.start_below_free_mb"
            )
        return self


WatchMetric = Literal[
    "silence-h",
    "failure-rate",
    "refusal-rate",
    "positive-rate",
    "drift",
    "median-time-s",
    "median-wait-s",
    "ppv",
]


class WatchRuleSettings(Section):
    """`[[watch.rules]]`: what a live model must not do; a broken rule raises an alert."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
    """What the alert is called. The name of a default rule replaces that one."""
    metric: WatchMetric
    """`silence-h`: hours since the first study it accepted after its last result. Shares of the
    runs: `failure-rate`, `refusal-rate`, `positive-rate`. `drift`: significant drift tests.
    `median-time-s`, `median-wait-s`: seconds. `ppv`: share of judged positives that were right."""
    finding: Annotated[str, Field(max_length=64)] = ""
    """Key of the finding that `positive-rate` and `ppv` look at; empty looks at each."""
    comparison: Literal["above", "below", "outside-reference"] = "above"
    """Broken if `above` or `below` the threshold; `outside-reference` (`positive-rate` only) if its
    99 % interval and that of the reference have no value in common."""
    threshold: float = 0.0
    """The limit; `outside-reference` has none."""
    window_h: Annotated[float, Field(gt=0, le=24 * 366)] = 24.0
    """Hours that are looked back."""
    minimum_count: Annotated[int, Field(ge=1)] = 20
    """Runs, or judgements, that the window must hold before the rule says anything."""
    models: tuple[str, ...] = ()
    """Names of the models that it is for; empty is all."""

    @model_validator(mode="after")
    def _meaningful(self) -> WatchRuleSettings:
        if self.comparison == "outside-reference" and self.metric != "positive-rate":
            raise ValueError(
                f"watch.rules {self.name!r}: comparison outside-reference is for positive-rate "
                f"only; use above or below for {self.metric}"
            )
        if self.finding and self.metric not in ("positive-rate", "ppv"):
            raise ValueError(
                f"watch.rules {self.name!r}: {self.metric} is of a whole model; remove finding"
            )
        return self


DEFAULT_WATCH_RULES = (
    WatchRuleSettings(name="no-results", metric="silence-h", threshold=2.0, minimum_count=3),
    WatchRuleSettings(name="failures", metric="failure-rate", threshold=0.1),
    WatchRuleSettings(
        name="positive-rate",
        metric="positive-rate",
        comparison="outside-reference",
        window_h=7 * 24,
        minimum_count=50,
    ),
    WatchRuleSettings(name="drift", metric="drift", window_h=30 * 24),
    WatchRuleSettings(name="slow", metric="median-time-s", threshold=60.0),
)


class WatchSettings(Section):
    """`[watch]`: how live models are watched, by `triage work`."""

    interval_s: Seconds = 60.0
    """Seconds between two looks at the rules."""
    default_rules: bool = True
    """Whether the rules `no-results`, `failures`, `positive-rate`, `drift` and `slow` apply."""
    rules: tuple[WatchRuleSettings, ...] = ()
    """Further rules, each a section `[[watch.rules]]`."""
    reference_runs: Annotated[int, Field(ge=20, le=5000)] = 500
    """Completed runs after a version came into its stage that later ones are compared with; as
    many of the newest are compared at most."""
    minimum_runs: Annotated[int, Field(ge=20)] = 100
    """Runs that the reference and the newest must each have before drift is tested."""
    drift_level: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """The share of false alarms that the drift tests of a model may make (false discovery rate)."""
    minimum_judged: Annotated[int, Field(ge=1)] = 10
    """Judged statements, present and absent, before a sensitivity is estimated from feedback."""

    @model_validator(mode="after")
    def _consistent(self) -> WatchSettings:
        names = [rule.name for rule in self.rules]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"watch.rules: {', '.join(sorted(twice))} is there twice; rename one")
        if self.minimum_runs > self.reference_runs:
            raise ValueError("watch.minimum_runs must be at most watch.reference_runs")
        return self

    @property
    def all_rules(self) -> tuple[WatchRuleSettings, ...]:
        """The rules that apply."""
        named = {rule.name: rule for rule in DEFAULT_WATCH_RULES if self.default_rules}
        return tuple((named | {rule.name: rule for rule in self.rules}).values())


class Settings(BaseSettings):
    """All settings of Triage. Unknown keys are errors."""

    model_config = SettingsConfigDict(
        env_prefix="TRIAGE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    data_directory: Path = Path("var")
    """Where the database, the instances and the logs are."""
    model_registry: Path = Path("model_registry")
    """The folder of model packages that `up` and `prepare` register."""
    receiver: ReceiverSettings = ReceiverSettings()
    database: DatabaseSettings = DatabaseSettings()
    prefect: PrefectSettings = PrefectSettings()
    worker: WorkerSettings = WorkerSettings()
    trust: TrustSettings = TrustSettings()
    web: WebSettings = WebSettings()
    worklist: WorklistSettings = WorklistSettings()
    results: ResultSettings = ResultSettings()
    tls: TlsSettings = TlsSettings()
    retention: RetentionSettings = RetentionSettings()
    stow: StowSettings = StowSettings()
    dicomweb: DicomwebSettings = DicomwebSettings()
    viewer: ViewerSettings = ViewerSettings()
    reading: ReadingSettings = ReadingSettings()
    watched_folder: WatchedFolderSettings = WatchedFolderSettings()
    priors: PriorsSettings = PriorsSettings()
    query: QuerySettings = QuerySettings()
    ups: UpsSettings = UpsSettings()
    audit: AuditSettings = AuditSettings()
    commitment: CommitmentSettings = CommitmentSettings()
    hl7: Hl7Settings = Hl7Settings()
    watch: WatchSettings = WatchSettings()
    jobs: JobSettings = JobSettings()
    notifications: NotificationSettings = NotificationSettings()
    senders: tuple[SenderSettings, ...] = ()
    destinations: tuple[Destination, ...] = ()
    remotes: tuple[RemoteSettings, ...] = ()
    remote_models: tuple[RemoteModelSettings, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.trust.approvers and not self.names_people:
            raise ValueError(
                "trust.approvers needs web.login.mode or web.user_header, which say who somebody is"
            )
        if self.web.login.mode == "proxy" and not self.web.user_header:
            raise ValueError("web.login.mode proxy needs web.user_header, which says who it is")
        if not self.receiver.plain and self.receiver.tls_port is None:
            raise ValueError("receiver.plain is off, so receiver.tls_port must be set")
        if self.viewer.enabled and self.viewer.port == self.web.port:
            raise ValueError("viewer.port and web.port must differ; change one of them")
        if self.receiver.tls_port is not None and self.tls.certificate is None:
            raise ValueError("receiver.tls_port needs tls.certificate and tls.private_key")
        if self.receiver.plain and self.receiver.tls_port == self.receiver.port:
            raise ValueError("receiver.tls_port and receiver.port must differ")
        if self.hl7.tls and self.tls.certificate is None:
            raise ValueError("hl7.tls needs tls.certificate and tls.private_key")
        titles = [sender.ae_title.strip() for sender in self.senders]
        if twice := {title for title in titles if titles.count(title) > 1}:
            raise ValueError(
                f"senders: {', '.join(sorted(twice))} is there twice; one entry may have several "
                "addresses"
            )
        names = [destination.name for destination in self.destinations]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"destinations: {', '.join(sorted(twice))} is there twice; rename one")
        self._check_remote_models()
        self.notifications.check_channels(
            {one.name: one.kind for one in self.destinations},
            {one.name for one in self.destinations if one.deidentify != "none"},
        )
        for peer in (*self.destinations, *self.remotes, self.audit):
            if isinstance(peer, TlsPeer):
                peer._own = self.tls
        return self

    def _check_remote_models(self) -> None:
        known = {remote.name for remote in self.remotes}
        for model in self.remote_models:
            if model.remote and model.remote not in known:
                raise ValueError(
                    f"remote_models {model.name!r}: there is no {model.remote!r} in [[remotes]]; "
                    "add it there"
                )
        secrets = [m.results_authorization for m in self.remote_models if m.results_authorization]
        if len(set(secrets)) < len(secrets):
            raise ValueError(
                "remote_models: two have the same results_authorization; each needs one of its own"
            )
        for key in ("name", "results_from"):
            values = [str(getattr(model, key)).strip() for model in self.remote_models]
            if twice := {value for value in values if values.count(value) > 1}:
                raise ValueError(
                    f"remote_models: {key} {', '.join(sorted(twice))} is there twice; each needs "
                    "one of its own"
                )

    @property
    def names_people(self) -> bool:
        """Whether it is known who is at a browser: they logged in, or a proxy says so."""
        return self.web.login.mode != "off" or bool(self.web.user_header)

    @property
    def packages_directory(self) -> Path:
        """Where registered model packages are kept, each under its digest."""
        return self.data_directory.absolute() / "models" / "sha256"

    @property
    def segmentation_forms(self) -> tuple[SegmentationForm, ...]:
        """The forms of SEG that destinations ask for, beside the store's own."""
        asked = (d.segmentation_form for d in self.destinations if isinstance(d, ObjectDestination))
        return tuple(dict.fromkeys(form for form in asked if form is not None))

    @property
    def dicomweb_authorization(self) -> str:
        """The Authorization header that a program needs to read over HTTP; empty needs none."""
        return self.dicomweb.authorization or self.stow.authorization

    @property
    def archives(self) -> tuple[DicomDestination, ...]:
        """The destinations that are application entities."""
        return tuple(d for d in self.destinations if isinstance(d, DicomDestination))

    def remote(self, name: str) -> RemoteSettings:
        """Return the entry of `[[remotes]]` with this name.

        Raises:
            SettingsError: there is none; the message lists those that there are.
        """
        for remote in self.remotes:
            if remote.name == name:
                return remote
        known = ", ".join(remote.name for remote in self.remotes) or "none is configured"
        raise SettingsError(f"there is no {name!r} in [[remotes]] (known: {known}); add it there")

    @property
    def database_url(self) -> str:
        """The SQLAlchemy address of the database."""
        if self.database.url:
            return self.database.url
        return f"sqlite:///{self.data_directory.absolute() / 'triage.sqlite'}"

    @property
    def prefect_api_url(self) -> str:
        """The address of the Prefect API, our own server's unless one is configured."""
        return self.prefect.api_url or f"http://{self.prefect.host}:{self.prefect.port}/api"

    @property
    def prefect_ui_url(self) -> str:
        """The address of Prefect's pages for people, empty where none is known."""
        if self.prefect.ui_url or self.prefect.api_url:
            return self.prefect.ui_url.rstrip("/")
        is_here = self.web.host in ("127.0.0.1", "localhost", "::1") and not self.web.public_url
        return f"http://{self.prefect.host}:{self.prefect.port}" if is_here else ""

    @property
    def web_url(self) -> str:
        """The address of the worklist."""
        return f"http://{self.web.host}:{self.web.port}"

    def link_to(self, study_instance_uid: str) -> str:
        """Return the address of a study's page, empty where no public one is configured."""
        public = self.web.public_url
        return f"{public}/studies/{study_instance_uid}" if public else ""

    def link_to_notification(self, number: int) -> str:
        """Return the address of a notification's page, empty where no public one is configured."""
        public = self.web.public_url
        return f"{public}/notifications/{number}" if public else ""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, and the environment over the TOML file."""
        del dotenv_settings, file_secret_settings
        file = TomlConfigSettingsSource(settings_cls, toml_file=config_file())
        return init_settings, env_settings, file


_NESTED: dict[str, type[Section]] = {
    "web.login": LoginSettings,
    "web.login.groups": RoleGroups,
    "web.login.oidc": OidcSettings,
}
"""The sections inside of others."""
_TABLES: dict[str, type[Section]] = {
    "senders": SenderSettings,
    "remotes": RemoteSettings,
    "remote_models": RemoteModelSettings,
    "watch.rules": WatchRuleSettings,
    "notifications.recipients": RecipientSettings,
    "notifications.groups": GroupSettings,
    "notifications.groups.shifts": ShiftSettings,
    "notifications.rules": NotificationRuleSettings,
    "notifications.rules.steps": StepSettings,
    **{f"destinations.{kind}": section for kind, section in KINDS.items()},
}
"""The sections that may come many times; of `[[destinations]]` the section of each kind."""


def config_file() -> Path | None:
    """Return the TOML file that is read, if there is one.

    Raises:
        SettingsError: `TRIAGE_CONFIG` names a file that does not exist.
    """
    named = os.environ.get("TRIAGE_CONFIG")
    if named:
        if not Path(named).is_file():
            raise SettingsError(f"TRIAGE_CONFIG names {named}, but there is no such file")
        return Path(named)
    default = Path("triage.toml")
    return default if default.is_file() else None


def load_settings(**overrides: Any) -> Settings:
    """Return the settings of this process.

    Raises:
        SettingsError: a key is unknown or its value is wrong; the message says which and how to
            mend it.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("\n".join(_in_words(e) for e in error.errors())) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{config_file()}: not valid TOML: {error}") from None


def _in_words(error: Any) -> str:
    path = [str(part) for part in error["loc"]]
    is_destination = path[:1] == ["destinations"] and len(path) > 3
    key = ".".join([*path[:2], *path[3:]] if is_destination else path)  # without the kind
    if error["type"] == "extra_forbidden":
        known = _keys_beside(path)
        near = difflib.get_close_matches(path[-1], known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"{key}: unknown key; {advice}"
    if error["type"] == "missing":
        return f"{key}: this key is required; add it"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "value_error" and not isinstance(error["input"], str):
        return message  # of a whole section: it names its keys, and the input may hold secrets
    if isinstance(error["input"], dict):
        return f"{key}: {message}"
    return f"{key}: {message} (found {error['input']!r})"


def _keys_beside(path: list[str]) -> list[str]:
    model: Any = Settings
    names = [part for part in path[:-1] if not part.isdigit()]
    for depth, part in enumerate(names, start=1):
        model = _TABLES.get(".".join(names[:depth])) or model.model_fields[part].annotation
    return sorted(model.model_fields)


def settings_reference() -> str:
    """Return all settings as a Markdown table for each section of the file."""
    sections: list[tuple[str, type[BaseModel]]] = [("", Settings)]
    for name, field in Settings.model_fields.items():
        section = _TABLES.get(name) or field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            heading = f"[[{name}]]" if name in _TABLES else f"[{name}]"
            sections.append((heading, section))
        sections += [
            (_heading(table), rows)
            for table, rows in _TABLES.items()
            if table.startswith(f"{name}.")
        ]
        sections += [
            (f"[{nested}]", rows)
            for nested, rows in _NESTED.items()
            if nested.startswith(f"{name}.")
        ]
        if name == "destinations":
            sections.append(("[destinations.route]", RouteSettings))
    return "\n\n".join(_section_reference(heading, section) for heading, section in sections)


def _heading(table: str) -> str:
    name, _, kind = table.partition(".")
    return f'[[{name}]] kind = "{kind}"' if name == "destinations" else f"[[{table}]]"


def _section_reference(heading: str, section: type[BaseModel]) -> str:
    title = f"## `{heading}`" if heading else "## At the top"
    meanings = _meanings(section)
    rows = [
        f"| `{name}` | {_default(field)} | {' '.join(meanings[name].split())} |"
        for name, field in section.model_fields.items()
        if name in meanings
    ]
    return "\n".join([title, "", "| key | default | meaning |", "|---|---|---|", *rows])


def _meanings(section: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings of the fields of a section.

    Pydantic could keep them as descriptions, but would read all this source at every start.
    """
    found: dict[str, str] = {}
    for model in reversed(section.mro()):
        if not issubclass(model, BaseModel) or not model.__module__.startswith(__name__):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, following in itertools.pairwise(body.body):
            match statement, following:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[name] = text
    return found


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is None:
        return "none"
    default = str(field.default) if isinstance(field.default, Path) else field.default
    if isinstance(default, Section):
        default = default.model_dump(exclude_defaults=True)
    return f"`{json.dumps(default, default=str)}`"
