"""Results and changes of priority as HL7 v2 messages."""

from triage.results.hl7.messages import OutgoingMessage, message_of
from triage.results.hl7.templates import TemplateError

__all__ = ["OutgoingMessage", "TemplateError", "message_of"]
