"""Messages to people about critical findings: what they say, and how they go."""
