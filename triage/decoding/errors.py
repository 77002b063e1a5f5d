"""Why an encoded object is not read."""

from triage.core.errors import TriageError


class DecodingError(TriageError):
    """The object is malformed, or reading it would take more memory than is safe.

    The message says which, as the end of a sentence, and never quotes the object.
    """
