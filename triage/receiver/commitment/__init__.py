"""Storage Commitment, as an SCP for senders and as an SCU of archives (DICOM PS3.4 annex J)."""

from triage.receiver.commitment.service import StorageCommitment

__all__ = ["StorageCommitment"]
