"""Results and changes of priority as HL7 v2 messages."""
