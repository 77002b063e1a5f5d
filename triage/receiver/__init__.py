"""The receiver: instances come in over DICOM, are made durable, and become complete studies."""

from triage.receiver.server import Receiver, ReceiverError, run_receiver

__all__ = ["Receiver", "ReceiverError", "run_receiver"]
