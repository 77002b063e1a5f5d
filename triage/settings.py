"""One typed settings object, read from one TOML file and from environment variables.

`TRIAGE_CONFIG` names the file (default `triage.toml` in the working directory, if it exists).
Every key can also be set as an environment variable: `TRIAGE_RECEIVER__PORT=11113` sets
`[receiver] port`. Environment wins over the file. `docs/configuration.md` lists all keys.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
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
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReceiverSettings(_Section):
    """`[receiver]`: the DICOM storage SCP and completeness of studies."""

    ae_title: AETitle = "TRIAGE"
    host: str = "127.0.0.1"
    port: Port = 11112
    allowed_calling_ae_titles: tuple[AETitle, ...] = ()
    require_called_ae_title: bool = False
    maximum_associations: Annotated[int, Field(ge=1, le=1000)] = 64
    maximum_pdu_bytes: Annotated[int, Field(ge=4096, le=16 * 1024 * 1024)] = 262144
    network_timeout_s: Seconds = 60.0
    minimum_free_mb: Annotated[int, Field(ge=0)] = 512
    quiet_period_s: Seconds = 30.0
    quiet_period_by_modality_s: dict[str, Seconds] = {"CT": 5.0, "MR": 10.0, "DX": 2.0, "CR": 2.0}


class DatabaseSettings(_Section):
    """`[database]`: where the truth is kept; empty means SQLite in the data directory."""

    url: str = ""

    @field_validator("url")
    @classmethod
    def _supported(cls, url: str) -> str:
        if url and not url.startswith(("sqlite:///", "postgresql+psycopg://")):
            raise ValueError("must begin with sqlite:/// or postgresql+psycopg://")
        return url


class PrefectSettings(_Section):
    """`[prefect]`: where flows are recorded; empty `api_url` starts a server of our own."""

    api_url: str = ""
    host: str = "127.0.0.1"
    port: Port = 4200


class WorkerSettings(_Section):
    """`[worker]`: how runs are claimed and models are hosted."""

    device: str = "auto"
    lease_s: Seconds = 30.0
    maximum_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    poll_interval_s: Seconds = 0.05
    warm_models: bool = True
    host_memory_mb: Annotated[int, Field(ge=256)] = 4096


class WebSettings(_Section):
    """`[web]`: pages and API.

    `allowed_hosts` are the names under which browsers reach the pages when `host` is not the
    loopback address; a request that names another host is refused (DNS rebinding).
    """

    host: str = "127.0.0.1"
    port: Port = 8080
    allowed_hosts: tuple[str, ...] = ()


class ArchiveSettings(_Section):
    """`[[destinations]]`: an archive that results are delivered to by C-STORE."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    kind: Literal["dicom"] = "dicom"
    ae_title: AETitle
    host: str
    port: Port
    timeout_s: Seconds = 30.0


class ResultSettings(_Section):
    """`[results]`: how result objects are written and delivered."""

    segmentation_type: Literal["BINARY", "LABELMAP"] = "BINARY"
    maximum_delivery_attempts: Annotated[int, Field(ge=1)] = 20
    first_retry_s: Seconds = 2.0
    longest_retry_s: Seconds = 600.0
    device_uid: str = ""


class Settings(BaseSettings):
    """All settings of Triage. Unknown keys are errors."""

    model_config = SettingsConfigDict(
        env_prefix="TRIAGE_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    data_directory: Path = Path("var")
    model_registry: Path = Path("model_registry")
    receiver: ReceiverSettings = ReceiverSettings()
    database: DatabaseSettings = DatabaseSettings()
    prefect: PrefectSettings = PrefectSettings()
    worker: WorkerSettings = WorkerSettings()
    web: WebSettings = WebSettings()
    results: ResultSettings = ResultSettings()
    destinations: tuple[ArchiveSettings, ...] = ()

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
        model = ArchiveSettings if part == "destinations" else model.model_fields[part].annotation
    return sorted(model.model_fields)
