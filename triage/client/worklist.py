"""The worklist over the API: what is to be read, by whom, and saved views of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from triage.client import models
from triage.client.connection import Connection
from triage.client.operations import operation

_PAGE = 200
Assigned = Literal["anybody", "me", "nobody", "others", "person"]
StatusChoice = Literal["receiving", "analysing", "analysed", "not-analysed", "not-wanted"]


class WorklistOperations(Connection):
    """The reading list."""

    # The list

    @operation("GET", "/worklist")
    def worklist(
        self,
        *,
        modalities: Sequence[str] = (),
        body_parts: Sequence[str] = (),
        patient_classes: Sequence[str] = (),
        wards: Sequence[str] = (),
        statuses: Sequence[StatusChoice] = (),
        assigned: Assigned = "anybody",
        person: str = "",
        flagged: bool = False,
        limit: int = _PAGE,
        offset: int = 0,
    ) -> models.Worklist:
        """Give the studies to be read, most urgent first; `models.WorklistFilter` says of which."""

    def every_worklist_entry(self) -> Iterator[models.WorklistEntry]:
        """Give all studies to be read, a page at a time; one that moves meanwhile comes once."""
        seen: set[str] = set()
        offset = 0
        while entries := self.worklist(offset=offset).entries:
            yield from (one for one in entries if one.study_instance_uid not in seen)
            seen.update(one.study_instance_uid for one in entries)
            offset += len(entries)

    @operation("POST", "/worklist/search")
    def search_worklist(
        self,
        *,
        text: str = "",
        modalities: Sequence[str] = (),
        body_parts: Sequence[str] = (),
        patient_classes: Sequence[str] = (),
        wards: Sequence[str] = (),
        statuses: Sequence[StatusChoice] = (),
        assigned: Assigned = "anybody",
        person: str = "",
        flagged: bool = False,
        limit: int = _PAGE,
        offset: int = 0,
    ) -> models.Worklist:
        """Give those of the list that `text` finds, such as a patient's name or ID."""

    @operation("GET", "/worklist/choices")
    def worklist_choices(self) -> models.WorklistChoices:
        """Give what the list can be filtered by: what its studies have, and who reads."""

    @operation("GET", "/worklist/next")
    def next_study(self, *, after: str = "") -> models.NextStudy:
        """Give the study to be read next that nobody else reads, `after` left out."""

    @operation("POST", "/worklist/read/search")
    def search_read(
        self, *, text: str = "", limit: int = _PAGE, offset: int = 0
    ) -> models.ReadStudies:
        """Give the studies that were read, the newest first, those that changed since on top."""

    # Who reads

    @operation("PUT", "/studies/{study_instance_uid}/read")
    def mark_as_read(self, study_instance_uid: str) -> None:
        """Take the study off the list: a person has read it."""

    @operation("DELETE", "/studies/{study_instance_uid}/read")
    def mark_as_unread(self, study_instance_uid: str) -> None:
        """Put the study back on the list."""

    @operation("GET", "/studies/{study_instance_uid}/claim")
    def claim(self, study_instance_uid: str) -> models.ClaimView:
        """Say who reads a study."""

    @operation("PUT", "/studies/{study_instance_uid}/claim")
    def claim_study(
        self, study_instance_uid: str, *, take_over_because: str = "", only_renew: bool = False
    ) -> models.ClaimView:
        """Say that one reads a study, renew that, or take it over from somebody else."""

    @operation("DELETE", "/studies/{study_instance_uid}/claim")
    def release_claim(self, study_instance_uid: str) -> None:
        """Say that one does not read a study any more."""

    # Saved views

    @operation("GET", "/worklist/views")
    def views(self) -> list[models.View]:
        """Give the views that the person has saved."""

    @operation("PUT", "/worklist/views/{name}")
    def save_view(
        self,
        name: str,
        *,
        filter: models.WorklistFilter | dict[str, Any],  # noqa: A002 - the API's name
        is_default: bool = False,
    ) -> models.View:
        """Save a view under a name; one of the same name is replaced."""

    @operation("DELETE", "/worklist/views/{name}")
    def delete_view(self, name: str) -> None:
        """Delete a view."""
