"""An archive that answers as a test says: a pynetdicom storage SCP on a free port."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt

from tests.tools import find_free_port
from triage.settings import DicomDestination


@dataclass
class ScriptedArchive:
    """What it is told to answer, and what it got.

    Attributes:
        statuses: the answers to the coming C-STORE requests; then success.
        received: SOP Instance UIDs, in order of arrival, whatever was answered.
        calling_ae_titles: who sent each of them.
        delay_s: how long each answer takes.
    """

    port: int
    statuses: list[int] = field(default_factory=list)
    received: list[str] = field(default_factory=list)
    calling_ae_titles: list[str] = field(default_factory=list)
    transfer_syntaxes: list[str] = field(default_factory=list)
    delay_s: float = 0.0

    def settings(self, timeout_s: float = 10.0) -> DicomDestination:
        """Return how Triage reaches it."""
        return DicomDestination(
            name="archive",
            ae_title="ARCHIVE",
            host="127.0.0.1",
            port=self.port,
            timeout_s=timeout_s,
        )

    def _on_store(self, event: evt.Event) -> Dataset:
        time.sleep(self.delay_s)
        self.received.append(str(event.request.AffectedSOPInstanceUID))
        self.calling_ae_titles.append(event.assoc.requestor.ae_title)
        self.transfer_syntaxes.append(str(event.context.transfer_syntax))
        answer = Dataset()
        answer.Status = self.statuses.pop(0) if self.statuses else 0x0000
        if answer.Status not in (0x0000, 0xB000):
            answer.ErrorComment = "as the test says"
        return answer


@contextmanager
def scripted_archive(
    *,
    sop_class_uids: Sequence[str] | None = None,
    called_ae_title: str = "ARCHIVE",
    required_calling_ae_titles: Sequence[str] = (),
) -> Iterator[ScriptedArchive]:
    """Run an archive that accepts the given SOP classes (by default all)."""
    archive = ScriptedArchive(find_free_port())
    entity = AE(ae_title=called_ae_title)
    entity.require_called_aet = True
    entity.require_calling_aet = list(required_calling_ae_titles)
    uids = sop_class_uids or [str(c.abstract_syntax) for c in AllStoragePresentationContexts]
    for uid in uids:
        entity.add_supported_context(uid)
    server = entity.start_server(
        ("127.0.0.1", archive.port),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, archive._on_store)],
    )
    try:
        yield archive
    finally:
        server.shutdown()  # type: ignore[union-attr]
