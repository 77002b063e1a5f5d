"""What runs and what is stuck, over the API: intake, runs, quarantine, deliveries and messages."""

from __future__ import annotations

from collections.abc import Iterator

from triage.client import models
from triage.client.connection import Connection
from triage.client.operations import operation

_PAGE = 200


class RunningOperations(Connection):
    """What an administrator sees and does."""

    # What runs

    @operation("GET", "/status")
    def status(self) -> models.Operations:
        """Give the counts of runs and deliveries, the workers, and what is stuck."""

    @operation("GET", "/operations")
    def operations(self) -> models.Board:
        """Give what comes in, what waits, what runs, the workers, the disk, and the quarantine."""

    @operation("POST", "/runs/{run_id}/cancel")
    def cancel_run(self, run_id: int, *, reason: str, who: str = "") -> None:
        """End a pending or running run for good; what it has found already stands."""

    @operation("POST", "/studies/{study_instance_uid}/rerun")
    def rerun(
        self, study_instance_uid: str, *, reason: str, model: str = "", who: str = ""
    ) -> models.RanAgain:
        """Queue new runs of a complete study, of one model or of all."""

    @operation("POST", "/studies/{study_instance_uid}/complete")
    def complete_study(self, study_instance_uid: str, *, reason: str, who: str = "") -> None:
        """Let a study that waits for images be complete with those that are here."""

    @operation("POST", "/quarantine/{object_id}/release")
    def release_quarantined(self, object_id: int, *, reason: str, who: str = "") -> None:
        """Let an object in quarantine be judged anew; it is taken into its study if it fits now."""

    @operation("POST", "/quarantine/{object_id}/delete")
    def delete_quarantined(self, object_id: int, *, reason: str, who: str = "") -> None:
        """Delete an object in quarantine for good."""

    # Deliveries

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

    @operation("POST", "/deliveries/resend")
    def resend_everything(self, *, who: str = "") -> models.Done:
        """Send all dead letters of all destinations again."""

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

    # HL7 messages

    @operation("GET", "/hl7/messages")
    def hl7_messages(self, *, state: str = "") -> models.ReceivedMessages:
        """Give the newest HL7 messages that came."""

    @operation("POST", "/hl7/messages/{message_id}/again")
    def process_again(self, message_id: int) -> models.ProcessedAgain:
        """Process an HL7 message again that could not be."""
