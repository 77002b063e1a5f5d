"""HL7 v2 messages and the Minimal Lower Layer Protocol, for both directions."""
