"""That a newer analysis takes a result's place, in every language that it is told in."""

from __future__ import annotations

from dataclasses import replace

from tests.results.fhir import notices
from tests.results.fhir.server import fhir_server
from tests.results.hl7 import samples
from tests.results.hl7.samples import destination as ris
from triage.core.notices import NoticeWithdrawal
from triage.results.delivery.email_text import words_of
from triage.results.delivery.fhir import tell
from triage.results.delivery.webhook_message import message_of as webhook_message
from triage.results.hl7.messages import message_of as hl7_message
from triage.settings import EmailDestination

SUPERSEDED = NoticeWithdrawal("", "the study has changed since: 2 images came", is_superseded=True)
NOTICE = replace(notices.withdrawal(), withdrawal=SUPERSEDED)


def test_by_e_mail() -> None:
    team = EmailDestination.model_validate(
        {
            "name": "team",
            "kind": "email",
            "host": "mail",
            "sender": "a@hospital.example",
            "recipients": ["b@hospital.example"],
        }
    )
    subject, text = words_of(NOTICE, team, "")
    assert subject == "AI result superseded (CT)"
    assert f"The result of this analysis no longer holds: {SUPERSEDED.reason}\n" in text
    assert "has withdrawn" not in text
    withdrawn, _ = words_of(notices.withdrawal(), team, "")
    assert withdrawn == "AI result withdrawn (CT)"


def test_by_webhook() -> None:
    told = webhook_message(NOTICE, "").data.withdrawal
    assert told is not None
    assert (told.who, told.reason, told.is_superseded) == ("", SUPERSEDED.reason, True)
    by_person = webhook_message(notices.withdrawal(), "").data.withdrawal
    assert by_person is not None
    assert not by_person.is_superseded


def test_by_hl7() -> None:
    message = hl7_message(replace(samples.WITHDRAWAL, withdrawal=SUPERSEDED), ris())
    last_note = [segment for segment in message.segments if segment.startswith("NTE")][-1]
    assert last_note == f"NTE|3|L|Superseded: {SUPERSEDED.reason}"


def test_by_fhir() -> None:
    with fhir_server() as server:
        there = notices.destination(server.url)
        tell(notices.result(), there)
        tell(NOTICE, there)
        assert server.only("DiagnosticReport")["status"] == "entered-in-error"
        taken_back = server.all_of("Provenance")[1]
    # No person did it: the model speaks for itself.
    assert "display" not in taken_back["agent"][0]["who"]
    assert taken_back["reason"][0]["text"] == SUPERSEDED.reason
