"""The receiver: instances come in over DICOM, are made durable, and become complete studies."""

from triage.receiver.refusals import ReceiverError
from triage.receiver.server import Receiver, run_receiver

__all__ = ["Receiver", "ReceiverError", "run_receiver"]
