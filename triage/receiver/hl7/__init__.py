"""Orders, corrections and merges of patients, taken as HL7 v2 messages over MLLP."""

from triage.receiver.hl7.listener import Hl7Listener
from triage.receiver.hl7.processing import Hl7Intake, UnknownMessageError

__all__ = ["Hl7Intake", "Hl7Listener", "UnknownMessageError"]
