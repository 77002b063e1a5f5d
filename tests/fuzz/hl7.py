"""The HL7 listener's intake as a way in: every message is answered, and what is taken is kept."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from tests.hl7.messages import PID, merge, message, orm
from triage.hl7.acknowledgement import read_acknowledgement
from triage.receiver.hl7 import Hl7Intake
from triage.settings import Settings
from triage.store.clock import system_clock
from triage.store.database import Database
from triage.store.order_tables import Hl7MessageRow, MessageState


class Hl7Messages:
    """HL7 v2: an acknowledgement that can be read, and the message kept with its outcome."""

    name = "HL7 message"

    def __init__(self, database: Database) -> None:
        self._database = database
        self._intake = Hl7Intake(Settings(), database, system_clock)

    def originals(self) -> Sequence[bytes]:
        """Return an order of each kind, a correction and a merge."""
        imaging = ["ORC|XO|PL1", "TQ1|1||||||||S", "OBR|1|PL1||X^X", "IPC|A1|RP|1.2.3|SPS"]
        return [
            orm("S", uid="1.2.3"),
            message("OMI^O23^OMI_O23", PID, *imaging),
            message("ADT^A08", PID, "PV1|1|I|WARD^1^A"),
            merge(),
        ]

    def feed(self, content: bytes) -> str:
        """Let it in, and look for what was said to be done."""
        answer = read_acknowledgement(self._intake.take(content, "192.0.2.1"))
        with self._database.reading() as session:
            kept = session.scalars(
                select(Hl7MessageRow).where(Hl7MessageRow.content == content)
            ).all()
        assert kept, f"answered {answer.code} and not kept"
        is_done = any(row.state is MessageState.DONE for row in kept)
        assert is_done is (answer.code == "AA")
        assert "it could not be applied" not in answer.text, answer.text
        return f"answered {answer.code}"

    def close(self) -> None:
        """Nothing is held."""
