"""What the sections of the settings are made of."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from triage.core.errors import TriageError

AETitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[\x21-\x5b\x5d-\x7e ]+$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
Days = Annotated[float, Field(ge=0)]

Retained = Literal["uids", "modified-dates", "patient-characteristics", "descriptors"]
"""What may be kept when the patient's identity is removed: options of DICOM PS3.15 E.3."""


def _network(value: object) -> object:
    # Said by ipaddress in one sentence; pydantic would say it once for each kind of network.
    return ipaddress.ip_network(value) if isinstance(value, str) else value


Network = Annotated[ipaddress.IPv4Network | ipaddress.IPv6Network, BeforeValidator(_network)]


class SettingsError(TriageError):
    """The configuration is wrong; the message names each key and the fix."""


class Section(BaseModel):
    """A section of the file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSettings(Section):
    """`[tls]`: our certificate, and whom we trust, for `receiver.tls_port` and peers with TLS."""

    certificate: Path | None = None
    """Our certificate with its chain, as PEM; read again when the file changes."""
    private_key: Path | None = None
    """Its private key, as PEM."""
    private_key_password: str = ""
    """The password of the private key, where it has one."""
    authorities: Path | None = None
    """Certificates of the authorities that we trust, as PEM; empty trusts the system's for peers
    that we call, and nobody's client certificate."""
    client_certificates: Literal["none", "optional", "required"] = "none"
    """Whether senders must show a certificate that `authorities` signed."""

    @model_validator(mode="after")
    def _complete(self) -> TlsSettings:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("tls.certificate and tls.private_key belong together; set both")
        if self.client_certificates != "none" and self.authorities is None:
            raise ValueError(
                "tls.authorities must name who signs the client certificates that "
                "tls.client_certificates asks for"
            )
        return self


class TlsPeer(Section):
    """What a peer's section says about TLS."""

    tls: bool = False
    """Call it over TLS (DICOM PS3.15 B.12)."""
    tls_verify: Literal["name", "authority"] = "name"
    """`name`: its certificate must be trusted and name it; `authority`: must be trusted."""
    tls_name: str = ""
    """The name in its certificate, where that is not `host`."""
    tls_authorities: Path | None = None
    """Who signs its certificate, and nobody else; empty is `tls.authorities`."""

    _own: TlsSettings = PrivateAttr(default_factory=TlsSettings)

    @property
    def own_tls(self) -> TlsSettings:
        """Our side of it: the section `[tls]`."""
        return self._own
