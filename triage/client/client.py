"""Every operation of the JSON API as a method.

To add one: declare it here with its signature, and run `make client` for its models. A test names
what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any, Literal

from triage.client import models
from triage.client.connection import Connection
from triage.client.operations import File, operation

_PAGE = 200


class TriageClient(Connection):
    """The JSON API of a Triage server; `Connection` says how it is reached.

    `who` names the person for whom a program acts; where `web.user_header` names one, that counts.
    """

    # The worklist

    @operation("GET", "/worklist")
    def worklist(self, *, limit: int = _PAGE, offset: int = 0) -> models.Worklist:
        """Give the studies to be read, most urgent first."""

    def every_worklist_entry(self) -> Iterator[models.WorklistEntry]:
        """Give all studies to be read, a page at a time; one that moves meanwhile comes once."""
        seen: set[str] = set()
        offset = 0
        while entries := self.worklist(offset=offset).entries:
            yield from (one for one in entries if one.study_instance_uid not in seen)
            seen.update(one.study_instance_uid for one in entries)
            offset += len(entries)

    @operation("GET", "/studies/{study_instance_uid}")
    def study(self, study_instance_uid: str) -> models.StudyView:
        """Give everything that is known about one study."""

    @operation("PUT", "/studies/{study_instance_uid}/read")
    def mark_as_read(self, study_instance_uid: str) -> None:
        """Take the study off the list: a person has read it."""

    @operation("DELETE", "/studies/{study_instance_uid}/read")
    def mark_as_unread(self, study_instance_uid: str) -> None:
        """Put the study back on the list."""

    @operation("POST", "/findings/{finding_id}/feedback")
    def give_feedback(
        self,
        finding_id: int,
        *,
        verdict: Literal["agree", "disagree", "unsure"],
        reason: str = "",
        who: str = "",
    ) -> models.FeedbackKept:
        """Keep what a person says of a finding."""

    @operation("POST", "/runs/{run_id}/withdraw")
    def withdraw(
        self, run_id: int, *, reason: str, text: str = "", who: str = ""
    ) -> models.WithdrawalKept:
        """Take the result of a run back, for a `triage.core.withdrawals.WithdrawalReason`."""

    # Operations

    @operation("GET", "/status")
    def status(self) -> models.Operations:
        """Give the counts of runs and deliveries, the workers, and what is stuck."""

    @operation("GET", "/deliveries")
    def deliveries(
        self,
        *,
        destination: str = "",
        state: str = "not-arrived",
        study: str = "",
        limit: int = _PAGE,
        offset: int = 0,
    ) -> models.Deliveries:
        """Give deliveries of objects and notices: dead ones first, and of each kind the newest."""

    def every_delivery(
        self, *, destination: str = "", state: str = "not-arrived", study: str = ""
    ) -> Iterator[models.ListedDelivery]:
        """Give all of them, a page at a time."""
        offset = 0
        while entries := self.deliveries(
            destination=destination, state=state, study=study, offset=offset
        ).entries:
            yield from entries
            offset += len(entries)

    @operation("POST", "/deliveries/{delivery_id}/resend")
    def resend_delivery(self, delivery_id: int, *, who: str = "") -> None:
        """Give a dead delivery another round of attempts."""

    @operation("POST", "/deliveries/{delivery_id}/give-up")
    def give_up_delivery(self, delivery_id: int, *, reason: str, who: str = "") -> None:
        """Decide that a dead delivery need not arrive."""

    @operation("GET", "/destinations")
    def destinations(self) -> list[models.DestinationView]:
        """Give the destinations, what waits for each, and which are paused."""

    @operation("POST", "/destinations/{name}/pause")
    def pause_destination(self, name: str, *, reason: str, who: str = "") -> None:
        """Send nothing to a destination until it is resumed."""

    @operation("POST", "/destinations/{name}/resume")
    def resume_destination(self, name: str, *, who: str = "") -> None:
        """Let what waits for a destination go on."""

    @operation("POST", "/destinations/{name}/resend")
    def resend_all(self, name: str, *, who: str = "") -> models.Done:
        """Send all dead letters of a destination again."""

    @operation("POST", "/destinations/{name}/give-up")
    def give_up_all(self, name: str, *, reason: str, who: str = "") -> models.Done:
        """Give up all dead letters of a destination."""

    @operation("GET", "/hl7/messages")
    def hl7_messages(self, *, state: str = "") -> models.ReceivedMessages:
        """Give the newest HL7 messages that came."""

    @operation("POST", "/hl7/messages/{message_id}/again")
    def process_again(self, message_id: int) -> models.ProcessedAgain:
        """Process an HL7 message again that could not be."""

    # Models

    @operation("GET", "/models")
    def model_versions(self) -> list[models.ModelVersion]:
        """Give the registered versions."""

    @operation("POST", "/models", is_form=True)
    def register_model(self, *, package: File, reason: str, who: str = "") -> models.StagedVersion:
        """Register the package in an archive."""

    @operation("GET", "/models/{name}")
    def model(self, name: str) -> models.Model:
        """Give a model: its versions and their history."""

    @operation("GET", "/models/{name}/evaluations")
    def evaluations(self, name: str) -> list[models.ModelEvaluation]:
        """Give the evaluations of a model's versions."""

    @operation("GET", "/models/{name}/comparison")
    def compare_versions(
        self,
        name: str,
        *,
        version_a: str,
        version_b: str,
        studies: int = 200,
        since: date | None = None,
    ) -> models.Comparison:
        """Compare two versions over the studies that both answered."""

    @operation("POST", "/models/{name}/versions/{version}/promote")
    def promote(
        self,
        name: str,
        version: str,
        *,
        to: str,
        reason: str,
        share: float | None = None,
        who: str = "",
    ) -> models.StagedVersion:
        """Put a version into another stage."""

    @operation("POST", "/models/{name}/versions/{version}/retire")
    def retire(
        self, name: str, version: str, *, reason: str, who: str = ""
    ) -> models.StagedVersion:
        """Let a version analyse nothing more."""

    @operation("POST", "/models/{name}/versions/{version}/resume")
    def resume_model(
        self, name: str, version: str, *, reason: str, who: str = ""
    ) -> models.StagedVersion:
        """Let a parked version go on."""

    @operation("POST", "/models/{name}/rollback")
    def roll_back(self, name: str, *, reason: str, who: str = "") -> models.StagedVersion:
        """Put the version back into production that was there before."""

    @operation("GET", "/code-approvals")
    def code_approvals(self) -> list[models.CodeApproval]:
        """Give the packages with code, and who approved them."""

    @operation("POST", "/code-approvals/{package_sha256}")
    def approve_code(
        self, package_sha256: str, *, reason: str, who: str = ""
    ) -> models.CodeApproval:
        """Let the code of a package run."""

    # Jobs

    @operation("GET", "/model-jobs")
    def jobs(self) -> list[models.JobView]:
        """Give the newest hundred jobs, the newest first."""

    @operation("GET", "/model-jobs/{job_id}")
    def job(self, job_id: int) -> models.JobView:
        """Give a job: how far it is, and what came of it."""

    @operation("DELETE", "/model-jobs/{job_id}")
    def delete_job(self, job_id: int) -> None:
        """Delete a job that is over, and its files."""

    @operation("POST", "/model-jobs/{job_id}/cancel")
    def cancel_job(self, job_id: int, *, who: str = "") -> models.JobView:
        """End a job."""

    @operation("GET", "/model-jobs/{job_id}/files/{file_name}")
    def job_file(self, job_id: int, file_name: str) -> bytes:
        """Give a file that a job left."""

    @operation("GET", "/model-jobs/{job_id}/files")
    def job_files(self, job_id: int) -> bytes:
        """Give all files that a job left, as a ZIP archive."""

    @operation("POST", "/model-jobs/init", is_form=True)
    def make_package(
        self,
        *,
        source: File,
        name: str | None = None,
        version: str | None = None,
        modality: str | None = None,
        size: str | None = None,
        labels: str | None = None,
        keep: bool = False,
        who: str = "",
    ) -> models.JobView:
        """Make a package of a bundle or a network."""

    @operation("POST", "/model-jobs/check", is_form=True)
    def check_package(self, *, package: File, who: str = "") -> models.JobView:
        """Check the package in an archive."""

    @operation("POST", "/models/{name}/versions/{version}/check")
    def check_version(self, name: str, version: str, *, who: str = "") -> models.JobView:
        """Check a registered version."""

    @operation("POST", "/models/{name}/versions/{version}/try", is_form=True)
    def try_version(
        self,
        name: str,
        version: str,
        *,
        study: str | None = None,
        images: File | None = None,
        who: str = "",
    ) -> models.JobView:
        """Run a version on a held study, or on images in an archive."""

    @operation("POST", "/models/{name}/versions/{version}/evaluate", is_form=True)
    def evaluate_version(
        self,
        name: str,
        version: str,
        *,
        labels: File,
        images: File | None = None,
        held_out_only: bool = False,
        who: str = "",
    ) -> models.JobView:
        """Compare a version's answers with a table of labels."""

    # Simulations

    @operation("POST", "/simulations")
    def simulate(
        self,
        *,
        scenario: models.Scenario | dict[str, Any] | None = None,
        seed: int = 1,
    ) -> models.WaitComparison:
        """Play a reading room with and without the AI."""

    @operation("GET", "/simulations/history")
    def simulation_history(self, *, days: int = 30, readers: int | None = None) -> models.FitView:
        """Give the scenario that the last days come to, and what was assumed."""
