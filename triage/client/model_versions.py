"""Models over the API: registered versions, their stages, and the jobs about them."""

from __future__ import annotations

from datetime import date

from triage.client import models
from triage.client.connection import Connection
from triage.client.operations import File, operation


class ModelOperations(Connection):
    """What an ML engineer sees and does."""

    # Versions

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
