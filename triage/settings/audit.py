"""The section about the audit trail."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from triage.settings.parts import Port, Seconds, TlsPeer


class AuditSettings(TlsPeer):
    """`[audit]`: who saw and changed what, and the Audit Record Repository that is told of it.

    The trail itself is always kept. Messages are those of DICOM PS3.15 A.5, over syslog (RFC 5424).
    """

    host: str = ""
    """The address of the Audit Record Repository; empty tells nobody."""
    port: Port = 6514
    """Its port: 6514 for TLS (RFC 5425), usually 514 for UDP (RFC 5426)."""
    tls: bool = True
    """Tell it over TLS; off is UDP, which may lose messages and is read by all on the way."""
    source_id: Annotated[str, Field(min_length=1, max_length=128)] = "triage"
    """AuditSourceID: what the repository calls this installation."""
    enterprise_site_id: Annotated[str, Field(max_length=128)] = ""
    """AuditEnterpriseSiteID: where in the hospital it is; empty leaves it out."""
    timeout_s: Seconds = 10.0
    """Seconds that it may take to answer."""
    retry_s: Seconds = 10.0
    """Seconds after which a repository that was away is tried again."""
    same_access_minutes: Annotated[float, Field(ge=0)] = 5.0
    """Minutes in which further images of a study, or further looks at a list, by the same person
    are the same access and not another event."""
