"""Studies over the API: what is known of them, what persons say, and their priority."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Literal

from triage.client import models
from triage.client.connection import Connection
from triage.client.operations import operation

Verdict = Literal["agree", "disagree", "unsure"]


class StudyOperations(Connection):
    """What is known of a study, and what persons say of it."""

    # What is known

    @operation("GET", "/studies/{study_instance_uid}")
    def study(self, study_instance_uid: str) -> models.StudyView:
        """Give everything that is known about one study."""

    @operation("GET", "/studies/{study_instance_uid}/history")
    def study_history(self, study_instance_uid: str) -> models.StudyLife:
        """Give a study's whole life: senders, runs, deliveries, priority, and where it is now."""

    @operation("POST", "/studies/search")
    def search_studies(
        self,
        *,
        text: str = "",
        accession_number: str = "",
        patient_id: str = "",
        patient_name: str = "",
        study_instance_uid: str = "",
        study_date: date | None = None,
        sender: str = "",
    ) -> models.FoundStudies:
        """Find studies that Triage holds or ever held, also those read, purged or only priors."""

    # Priority

    @operation("GET", "/studies/{study_instance_uid}/priority")
    def explain_place(self, study_instance_uid: str) -> models.PlaceExplanation:
        """Say why a study is where it is on the reading list."""

    @operation("PUT", "/studies/{study_instance_uid}/raise")
    def raise_priority(
        self,
        study_instance_uid: str,
        *,
        priority: Literal["low", "routine", "high", "stat"],
        reason: str,
        who: str = "",
    ) -> models.PlaceExplanation:
        """Raise a study because a person says so; it counts as if its order said it."""

    @operation("POST", "/studies/{study_instance_uid}/take-raise-back")
    def take_raise_back(
        self, study_instance_uid: str, *, reason: str, who: str = ""
    ) -> models.PlaceExplanation:
        """Take a person's raise back; what the order and the AI say stays."""

    # Answers of persons

    @operation("GET", "/studies/{study_instance_uid}/answers")
    def answers(self, study_instance_uid: str) -> models.StudyAnswers:
        """Give what persons say of the study's findings, what was missed, and who signed it off."""

    @operation("PUT", "/studies/{study_instance_uid}/answers/{finding_id}")
    def answer(
        self, study_instance_uid: str, finding_id: int, *, verdict: Verdict, reason: str = ""
    ) -> models.FeedbackView:
        """Say what the person thinks of a finding, instead of what they said before."""

    @operation("DELETE", "/studies/{study_instance_uid}/answers/{finding_id}")
    def take_back_answer(self, study_instance_uid: str, finding_id: int) -> None:
        """Take back what the person said of a finding."""

    @operation("GET", "/finding-codes")
    def finding_codes(self) -> list[models.FindingCode]:
        """Give what registered models look for: what can be reported as missed by code."""

    @operation("POST", "/studies/{study_instance_uid}/missed-findings")
    def report_missed_finding(
        self,
        study_instance_uid: str,
        *,
        code: models.Code | dict[str, Any] | None = None,
        words: str = "",
        laterality: Literal["", "left", "right", "both"] = "",
        sop_instance_uid: str = "",
        frame: int | None = None,
        mark: Sequence[float] | None = None,
    ) -> models.MissedView:
        """Report something that the person sees and no model said; see `models.MissedFinding`."""

    @operation("DELETE", "/studies/{study_instance_uid}/missed-findings/{report_id}")
    def take_back_report(self, study_instance_uid: str, report_id: int) -> None:
        """Take back a report of one's own, with the disagreements that came with it."""

    @operation("POST", "/studies/{study_instance_uid}/sign-off")
    def sign_off(self, study_instance_uid: str) -> models.AnswersView:
        """Sign the study off: its answers are closed."""

    @operation("POST", "/studies/{study_instance_uid}/addenda")
    def add_addendum(self, study_instance_uid: str, *, reason: str = "") -> models.AnswersView:
        """Open the answers of a study that is signed off; it stays off the list."""

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
