"""What destinations and remote models that are called over HTTP have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from triage.settings.parts import Section, TlsSettings


class OverHttp(Section):
    """What is said of somebody who is called over HTTP."""

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
            raise ValueError("certificate and private_key belong together; set both")
        if self.certificate is not None and not self.url.lower().startswith("https:"):
            raise ValueError("certificate is shown over TLS only; let url begin with https")
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
            raise ValueError(f"url {self.url!r} must name a host, and a port if any")
        if "@" in place.netloc:
            raise ValueError(
                f"the url of {place.hostname} holds a password, which messages would "
                "show; put it into authorization"
            )
        if not (self.authorization.isascii() and self.authorization.isprintable()):
            raise ValueError("authorization must be one line of ASCII characters")
        return self
