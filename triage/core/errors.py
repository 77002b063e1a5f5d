"""The family of errors that are written for people."""


class TriageError(Exception):
    """Something is wrong that a person can mend: the message says what, where and how.

    Each capability has its own subclasses. Commands print the message; protocols turn it into
    their own status.
    """
