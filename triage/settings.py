"""One typed settings object, read from one TOML file and from environment variables.

`TRIAGE_CONFIG` names the file (default `triage.toml` in the working directory, if it exists).
Every key can also be set as an environment variable: `TRIAGE_RECEIVER__PORT=11113` sets
`[receiver] port`. Environment wins over the file. `docs/configuration.md` lists all keys.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from triage.core.errors import TriageError

AETitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[\x21-\x5b\x5d-\x7e ]+$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class SettingsError(TriageError):
    """The configuration is wrong; the message names each key and the fix."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ReceiverSettings(_Section):
    """`[receiver]`: the DICOM storage SCP and completeness of studies."""

    ae_title: AETitle = "TRIAGE"
    """The AE title that senders call."""
    host: str = "127.0.0.1"
    """The address to listen on; `0.0.0.0` is every interface."""
    port: Port = 11112
    """The DICOM port."""
    allowed_calling_ae_titles: tuple[AETitle, ...] = ()
    """The AE titles that may send; empty lets everybody."""
    require_called_ae_title: bool = False
    """Refuse associations that call another AE title than ours."""
    maximum_associations: Annotated[int, Field(ge=1, le=1000)] = 64
    """Associations at once; the next one is refused as transient."""
    maximum_pdu_bytes: Annotated[int, Field(ge=4096, le=16 * 1024 * 1024)] = 262144
    """The largest PDU that we ask for."""
    network_timeout_s: Seconds = 60.0
    """Seconds without a sign of the sender before its association is aborted."""
    minimum_free_mb: Annotated[int, Field(ge=0)] = 512
    """Free disk space, in MB, below which instances are answered with 0xA700."""
    quiet_period_s: Seconds = 30.0
    """Seconds without a new image before a study counts as complete."""
    quiet_period_by_modality_s: dict[str, Seconds] = {"CT": 5.0, "MR": 10.0, "DX": 2.0, "CR": 2.0}
    """The same for single modalities; the longest of a study's modalities counts."""


class DatabaseSettings(_Section):
    """`[database]`: where the truth is kept; empty means SQLite in the data directory."""

    url: str = ""
    """`sqlite:///…` or `postgresql+psycopg://…`; empty is SQLite in the data directory."""

    @field_validator("url")
    @classmethod
    def _supported(cls, url: str) -> str:
        if url and not url.startswith(("sqlite:///", "postgresql+psycopg://")):
            raise ValueError("must begin with sqlite:/// or postgresql+psycopg://")
        return url


class PrefectSettings(_Section):
    """`[prefect]`: where flows are recorded; empty `api_url` starts a server of our own."""

    api_url: str = ""
    """The API of a Prefect server; empty starts one of our own."""
    host: str = "127.0.0.1"
    """The address that our own server listens on."""
    port: Port = 4200
    """The port of our own server."""


class WorkerSettings(_Section):
    """`[worker]`: how runs are claimed and models are hosted."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, …; `auto` takes a GPU where there is one."""
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


class WebSettings(_Section):
    """`[web]`: pages and API.

    `allowed_hosts` are the names under which browsers reach the pages when `host` is not the
    loopback address; a request that names another host is refused (DNS rebinding).
    """

    host: str = "127.0.0.1"
    """The address that the pages listen on."""
    port: Port = 8080
    """Their port."""
    allowed_hosts: tuple[str, ...] = ()
    """Names of this server in browsers, beside loopback; other Host headers are refused."""


class ArchiveSettings(_Section):
    """`[[destinations]]`: an archive that results are delivered to by C-STORE."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    """What the pages and the history call it."""
    kind: Literal["dicom"] = "dicom"
    """How it takes objects: `dicom` is C-STORE."""
    ae_title: AETitle
    """Its AE title."""
    host: str
    """Its address."""
    port: Port
    """Its DICOM port."""
    timeout_s: Seconds = 30.0
    """Seconds that it may take to answer."""
    storage_commitment: bool = False
    """Ask it to commit to the storage of what was delivered; a dead letter if it does not."""


class RemoteSettings(_Section):
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


class QuerySettings(_Section):
    """`[query]`: C-FIND, C-MOVE and C-GET over what Triage holds."""

    enabled: bool = True
    """Offer them at all."""
    allowed_calling_ae_titles: tuple[AETitle, ...] = ()
    """The AE titles that may ask; empty lets everybody who may associate."""


class CommitmentSettings(_Section):
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


class ResultSettings(_Section):
    """`[results]`: how result objects are written and delivered."""

    segmentation_type: Literal["BINARY", "LABELMAP"] = "BINARY"
    """`BINARY` is what every viewer shows; `LABELMAP` is smaller and newer."""
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


class Settings(BaseSettings):
    """All settings of Triage. Unknown keys are errors."""

    model_config = SettingsConfigDict(
        env_prefix="TRIAGE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    data_directory: Path = Path("var")
    """Where the database, the instances and the logs are."""
    model_registry: Path = Path("model_registry")
    """The folder of model packages that `up` and `prepare` register."""
    receiver: ReceiverSettings = ReceiverSettings()
    database: DatabaseSettings = DatabaseSettings()
    prefect: PrefectSettings = PrefectSettings()
    worker: WorkerSettings = WorkerSettings()
    web: WebSettings = WebSettings()
    results: ResultSettings = ResultSettings()
    query: QuerySettings = QuerySettings()
    commitment: CommitmentSettings = CommitmentSettings()
    destinations: tuple[ArchiveSettings, ...] = ()
    remotes: tuple[RemoteSettings, ...] = ()

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
    def web_url(self) -> str:
        """The address of the worklist."""
        return f"http://{self.web.host}:{self.web.port}"

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


_TABLES: dict[str, type[_Section]] = {"destinations": ArchiveSettings, "remotes": RemoteSettings}
"""The sections that may come many times."""


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
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        known = _keys_beside(path)
        near = difflib.get_close_matches(path[-1], known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"{key}: unknown key; {advice}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{key}: {message} (found {error['input']!r})"


def _keys_beside(path: list[str]) -> list[str]:
    model: Any = Settings
    for part in path[:-1]:
        if part.isdigit():
            continue
        model = _TABLES.get(part) or model.model_fields[part].annotation
    return sorted(model.model_fields)


def settings_reference() -> str:
    """Return all settings as a Markdown table for each section of the file."""
    sections = [("", Settings.model_fields)]
    for name, field in Settings.model_fields.items():
        section = _TABLES.get(name) or field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            heading = f"[[{name}]]" if name in _TABLES else f"[{name}]"
            sections.append((heading, section.model_fields))
    return "\n\n".join(_section_reference(heading, fields) for heading, fields in sections)


def _section_reference(heading: str, fields: Mapping[str, FieldInfo]) -> str:
    title = f"## `{heading}`" if heading else "## At the top"
    rows = [
        f"| `{name}` | {_default(field)} | {field.description} |"
        for name, field in fields.items()
        if field.description
    ]
    return "\n".join([title, "", "| key | default | meaning |", "|---|---|---|", *rows])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = str(field.default) if isinstance(field.default, Path) else field.default
    return f"`{json.dumps(default)}`"
