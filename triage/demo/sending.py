"""Sends a study as a scanner does: one association, one C-STORE per image."""

from __future__ import annotations

import time
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID
from pynetdicom import AE

from triage.core.errors import TriageError
from triage.demo.hospital import datasets_in
from triage.pausing import lose_no_answer
from triage.settings import ReceiverSettings


class SendError(TriageError):
    """A study could not be sent; the message says which and what the receiver answered."""


def send_study(folder: Path, receiver: ReceiverSettings, *, calling_ae_title: str) -> float:
    """Send the files of `folder` by C-STORE (DICOM PS3.4 Annex B).

    Returns:
        the moment of the last success, in seconds since the epoch.

    Raises:
        SendError: the association or an image was refused.
    """
    files = list(datasets_in(folder))
    entity = AE(ae_title=calling_ae_title)
    for sop_class_uid, transfer_syntax_uid in sorted(_contexts(files)):
        entity.add_requested_context(UID(sop_class_uid), UID(transfer_syntax_uid))
    association = entity.associate(receiver.host, receiver.port, ae_title=receiver.ae_title)
    if not association.is_established:
        raise SendError(f"{receiver.ae_title} refused the association for {folder.name}")
    lose_no_answer(association)
    try:
        for file in files:
            status = association.send_c_store(file)
            code = getattr(status, "Status", None)
            if code != 0x0000:
                raise SendError(f"{receiver.ae_title} answered {code!r} to {file}")
    finally:
        association.release()
    return time.time()


def _contexts(files: list[Path]) -> set[tuple[str, str]]:
    contexts = set()
    for file in files:
        dataset = dcmread(file, stop_before_pixels=True, specific_tags=["SOPClassUID"])
        contexts.add((str(dataset.SOPClassUID), str(dataset.file_meta.TransferSyntaxUID)))
    return contexts
