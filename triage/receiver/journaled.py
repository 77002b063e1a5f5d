"""Instances that become durable in the receiver's journal, and what is read back from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from datetime import datetime
from mmap import mmap

import structlog

from triage.store.files import GrowingFile, InstanceFiles, StoredFile
from triage.store.journal import Entry, Held, Journal, JournalError

log = structlog.get_logger(__name__)

# Of each association so much may be in memory. CT and MR slices fit; what is larger is written to
# its file while it arrives, and synced there.
_LARGEST_IN_MEMORY = 1024 * 1024
# What arrives in smaller ones is joined, so that they are not many.
_SMALL_PIECE = 16 * 1024


@dataclass(frozen=True, slots=True)
class AnnouncedInstance:
    """What a C-STORE request says of the data set that follows it (DICOM PS3.7 9.1.1.1)."""

    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    calling_ae_title: str
    association: str


_ANNOUNCED = tuple(field.name for field in fields(AnnouncedInstance))


@dataclass(frozen=True, slots=True)
class Arrival:
    """What the journal says of an instance beside the content of its file.

    Attributes:
        announced: as its sender said.
        study_instance_uid: whose file it is.
        data_set_offset: where in the file the data set begins, behind the file header.
        received_at: when it was whole.
        is_prior: it was fetched for comparison.
    """

    announced: AnnouncedInstance
    study_instance_uid: str
    data_set_offset: int
    received_at: datetime
    is_prior: bool

    @property
    def sop_instance_uid(self) -> str:
        """The SOP Instance UID."""
        return self.announced.sop_instance_uid

    def encoded(self) -> bytes:
        """Return it as the description of an entry of the journal."""
        announced = {name: getattr(self.announced, name) for name in _ANNOUNCED}
        values = {
            "announced": announced,
            "study_instance_uid": self.study_instance_uid,
            "data_set_offset": self.data_set_offset,
            "received_at": self.received_at.isoformat(),
            "is_prior": self.is_prior,
        }
        return json.dumps(values).encode()

    @classmethod
    def of(cls, entry: Entry) -> Arrival:
        """Return what an entry of the journal says."""
        values = json.loads(entry.description)
        values["announced"] = AnnouncedInstance(**values["announced"])
        values["received_at"] = datetime.fromisoformat(values["received_at"])
        return cls(**values)


class IncomingFile:
    """The file of an instance that arrives: in memory while it is small, then on the disk.

    What ended small becomes durable in the journal, the rest as a file.
    """

    def __init__(self, files: InstanceFiles, journal: Journal | None) -> None:
        self._files = files
        self._journal = journal
        self._pieces = [bytearray()]
        self._size_bytes = 0
        self._content = hashlib.sha256()
        self._growing: GrowingFile | None = None
        self._beside: GrowingFile | None = None
        self._held: Held | None = None
        if journal is None or not journal.is_open:
            self._growing = files.begin()

    @property
    def is_journaled(self) -> bool:
        """Whether the journal makes it durable, and with it the row that follows."""
        return self._held is not None

    def write(self, chunk: bytes | memoryview) -> None:
        """Append `chunk`.

        Raises:
            OSError: the disk refused.
        """
        self._size_bytes += len(chunk)
        if self._growing is None and self._size_bytes > _LARGEST_IN_MEMORY:
            self._go_to_disk()
        if self._growing is not None:
            self._growing.write(chunk)
            return
        self._content.update(chunk)
        if len(self._pieces[-1]) < _SMALL_PIECE:
            self._pieces[-1] += chunk
        else:
            self._pieces.append(bytearray(chunk))

    def whole(self) -> bytes | mmap:
        """Return all that was written."""
        return b"".join(self._pieces) if self._growing is None else self._growing.mapped()

    def _go_to_disk(self) -> None:
        self._growing = self._files.begin()
        for piece in self._pieces:
            self._growing.write(piece)
        self._pieces.clear()

    def keep(self, arrival: Arrival) -> StoredFile:
        """Name the file after its instance and return once it is durable, here or in the journal.

        Raises:
            OSError: the disk refused.
        """
        uids = arrival.study_instance_uid, arrival.sop_instance_uid
        if self._growing is None and not self._is_in_journal(arrival):
            self._go_to_disk()
        if self._growing is not None:
            return self._growing.keep(*uids)
        assert self._beside is not None
        # Not while the disk writes the entry, which would then take twice as long.
        self._beside.begin_writing()
        # Not before it is in the journal: a file of this name may be one that was acknowledged.
        return self._beside.name(*uids, self._content.hexdigest())

    def _is_in_journal(self, arrival: Arrival) -> bool:
        assert self._journal is not None
        try:
            self._held = self._journal.append(
                arrival.encoded(),
                self._pieces,
                self._content.digest(),
                meanwhile=self._write_beside,
            )
        except JournalError as error:
            log.warning("instance goes the way without a journal", reason=str(error))
            return False
        return True

    def _write_beside(self) -> None:
        self._beside = self._files.begin()
        self._beside.append(self._pieces)

    def close(self) -> None:
        """Remove what was not kept, and let the journal forget what is now where it belongs."""
        for file in (self._growing, self._beside):
            if file is not None:
                file.discard()
        if self._held is not None:
            self._held.release()
