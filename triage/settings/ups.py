"""The section about unified procedure steps."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from triage.settings.parts import AETitle, Days, Seconds, Section


class UpsSettings(Section):
    """`[ups]`: the reading worklist as unified procedure steps, over DICOM and as UPS-RS."""

    enabled: bool = True
    """Offer it at all, on the receiver's port and at `/dicom-web/workitems` of the pages."""
    allowed_calling_ae_titles: tuple[AETitle, ...] = ()
    """The AE titles that may use it over DICOM; empty lets everybody who may associate."""
    authorization: str = ""
    """The value that the Authorization header of UPS-RS must have, such as `Bearer …`; empty lets
    all in."""
    worklist_label: Annotated[str, Field(min_length=1, max_length=64)] = "Triage"
    """Worklist Label (0074,1202) of workitems that bring none."""
    retrieve_ae_title: Annotated[str, Field(max_length=16)] = ""
    """AE title from which workstations are to retrieve the images; empty is our own, if `[query]`
    is enabled."""
    retrieve_url: str = ""
    """Root of the WADO-RS from which they are to retrieve them; empty names none."""
    keep_finished_days: Days = 7.0
    """Days for which ended workitems, and events for subscribers, are kept."""
    maximum_attempts: Annotated[int, Field(ge=1)] = 20
    """Attempts to tell a subscriber of an event before it is given up."""
    first_retry_s: Seconds = 5.0
    """Seconds after the first failed attempt; they double with each."""
    longest_retry_s: Seconds = 600.0
    """The longest pause between two attempts, in seconds."""

    @field_validator("retrieve_url")
    @classmethod
    def _address(cls, url: str) -> str:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("ups.retrieve_url must begin with http:// or https://")
        return url
