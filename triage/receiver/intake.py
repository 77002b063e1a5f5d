"""One instance on its way in: checked, written to a durable file, indexed, then acknowledged."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import structlog

from triage.receiver.headers import Header, is_valid_uid, parse_head, parse_header
from triage.receiver.indexer import Indexer
from triage.receiver.journaled import AnnouncedInstance, Arrival, IncomingFile
from triage.receiver.part10 import file_header
from triage.receiver.refusals import RefusedInstanceError, StorageStatus
from triage.settings import ReceiverSettings
from triage.store.clock import Clock
from triage.store.disk import DiskFullError, Watermarks
from triage.store.files import InstanceFiles, StoredFile
from triage.store.journal import Journal
from triage.store.studies import ReceivedInstance, Recorded

log = structlog.get_logger(__name__)

# The header of nearly every image is in its first kilobytes. It is parsed while the rest arrives.
_HEAD_BYTES = 64 * 1024
_MIB = 1024 * 1024
_ROOM_BYTES = 4 * _MIB
_NO_LIMIT = 2**63


@dataclass(frozen=True, slots=True)
class IncomingInstance(AnnouncedInstance):
    """An encoded data set with what is said of it."""

    dataset: bytes


class Intake:
    """Stores instances as they were sent. Pixel data is never decoded here."""

    def __init__(
        self,
        files: InstanceFiles,
        indexer: Indexer,
        clock: Clock,
        *,
        watermarks: Watermarks | None = None,
        maximum_instance_bytes: int = _NO_LIMIT,
        journal: Journal | None = None,
    ) -> None:
        """Prepare an intake.

        Args:
            files: where the instances go.
            indexer: records them.
            clock: the time.
            watermarks: how much of the disk is kept free; None takes all of it.
            maximum_instance_bytes: the largest data set that is taken.
            journal: makes small instances durable; without one each is synced by itself.
        """
        self._files = files
        self._indexer = indexer
        self._clock = clock
        self._watermarks = watermarks or Watermarks(files.free_bytes, minimum=0)
        self._maximum_instance_bytes = maximum_instance_bytes
        self._journal = journal

    @classmethod
    def configured(
        cls,
        settings: ReceiverSettings,
        files: InstanceFiles,
        indexer: Indexer,
        clock: Clock,
        watermarks: Watermarks,
        *,
        journal: Journal | None = None,
    ) -> Self:
        """Return an intake with the limits that the settings name."""
        return cls(
            files,
            indexer,
            clock,
            watermarks=watermarks,
            maximum_instance_bytes=settings.maximum_instance_mb * _MIB,
            journal=journal,
        )

    def store(self, incoming: IncomingInstance) -> Recorded:
        """Return once the file is durable and its index row is committed.

        Raises:
            RefusedInstanceError: the instance is not stored; the error is the answer to the sender.
        """
        arriving = self.begin(incoming)
        try:
            arriving.write(memoryview(incoming.dataset))
            return arriving.finish()
        finally:
            arriving.discard()

    def begin(self, announced: AnnouncedInstance) -> ArrivingInstance:
        """Return an instance that takes its data set piece by piece.

        Raises:
            RefusedInstanceError: the instance cannot be stored, whatever its data set is.
        """
        if not is_valid_uid(announced.sop_instance_uid):
            raise RefusedInstanceError(
                StorageStatus.INVALID_SOP_INSTANCE, "Affected SOP Instance UID is not a valid UID"
            )
        if not is_valid_uid(announced.sop_class_uid):
            raise RefusedInstanceError(
                StorageStatus.DOES_NOT_MATCH_SOP_CLASS, "Affected SOP Class UID is not a valid UID"
            )
        return ArrivingInstance(
            announced,
            self._indexer,
            self._clock,
            open_file=self._open_file,
            watermarks=self._watermarks,
            maximum_bytes=self._maximum_instance_bytes,
        )

    def _open_file(self) -> IncomingFile:
        return IncomingFile(self._files, self._journal)


class ArrivingInstance:
    """An instance whose data set goes to its file while it arrives."""

    def __init__(
        self,
        announced: AnnouncedInstance,
        indexer: Indexer,
        clock: Clock,
        *,
        open_file: Callable[[], IncomingFile],
        watermarks: Watermarks,
        maximum_bytes: int,
    ) -> None:
        self._announced = announced
        self._open_file = open_file
        self._indexer = indexer
        self._clock = clock
        self._watermarks = watermarks
        self._maximum_bytes = maximum_bytes
        self._header: Header | None = None
        self._head = bytearray()
        self._received_bytes = 0
        self._held_bytes = 0
        self._room_until = 0
        self._take_room()
        meta = file_header(
            sop_class_uid=announced.sop_class_uid,
            sop_instance_uid=announced.sop_instance_uid,
            transfer_syntax_uid=announced.transfer_syntax_uid,
        )
        self._offset = len(meta)
        self._file = self._open(meta)

    @property
    def received_bytes(self) -> int:
        """How many bytes of the data set have come."""
        return self._received_bytes

    def write(self, fragment: memoryview) -> None:
        """Take the next bytes of the data set.

        Raises:
            RefusedInstanceError: it is too large, or the disk refuses it.
        """
        received = self._received_bytes = self._received_bytes + len(fragment)
        if received > self._maximum_bytes:
            raise RefusedInstanceError(
                StorageStatus.OUT_OF_RESOURCES, "larger than the receiver's limit for an instance"
            )
        if received > self._room_until:
            self._take_room()
        try:
            self._file.write(fragment)
        except OSError as error:
            raise self._not_written(error) from error
        if self._header is None and len(self._head) < _HEAD_BYTES:
            self._head += fragment[: _HEAD_BYTES - len(self._head)]
            if len(self._head) == _HEAD_BYTES:
                self._header = self._parsed_head()

    def finish(self) -> Recorded:
        """Return once the file is durable and its index row is committed.

        Raises:
            RefusedInstanceError: the instance is not stored; the error is the answer to the sender.
        """
        header = self._header or self._parsed_whole()
        _check_is_what_was_announced(header, self._announced)
        arrival = Arrival(
            self._announced,
            header.study_instance_uid,
            self._offset,
            self._clock(),
            is_prior=self._indexer.is_for_priors,
        )
        try:
            file = self._file.keep(arrival)
        except OSError as error:
            raise self._not_written(error) from error
        self._free_room()
        received = received_instance(header, self._announced, file, arrival.received_at)
        recorded = self._indexer.record(
            received, self._announced.association, is_journaled=self._file.is_journaled
        )
        self._file.close()
        return recorded

    def discard(self) -> None:
        """Remove what was written, unless the instance was stored."""
        self._free_room()
        self._file.close()

    def _open(self, meta: bytes) -> IncomingFile:
        try:
            file = self._open_file()
            file.write(meta)
        except OSError as error:
            self._free_room()
            raise self._not_written(error) from error
        return file

    def _parsed_head(self) -> Header | None:
        try:
            return parse_head(bytes(self._head), self._announced.transfer_syntax_uid)
        except RefusedInstanceError:
            return None  # judged again when all of it is there

    def _parsed_whole(self) -> Header:
        syntax = self._announced.transfer_syntax_uid
        if self._received_bytes < _HEAD_BYTES:
            return self._parsed_head() or parse_header(bytes(self._head), syntax)
        # Not closed here: while an error is under way, its traceback may still look into it.
        return parse_header(self._file.whole(), syntax, start=self._offset)

    def _take_room(self) -> None:
        """Hold room on the disk for what comes next; how much that is, nobody has said."""
        self._free_room()
        self._room_until = self._received_bytes + _ROOM_BYTES
        try:
            self._watermarks.hold_room(_ROOM_BYTES)
        except DiskFullError as error:
            raise RefusedInstanceError(StorageStatus.OUT_OF_RESOURCES, str(error)) from error
        self._held_bytes = _ROOM_BYTES

    def _free_room(self) -> None:
        held, self._held_bytes = self._held_bytes, 0
        if held:
            self._watermarks.free_room(held)

    def _not_written(self, error: OSError) -> RefusedInstanceError:
        log.warning(
            "instance could not be written",
            sop_instance_uid=self._announced.sop_instance_uid,
            error=error.strerror,
        )
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        comment = "disk is full" if is_full else "instance could not be written to disk"
        return RefusedInstanceError(StorageStatus.OUT_OF_RESOURCES, comment)


def _check_is_what_was_announced(header: Header, announced: AnnouncedInstance) -> None:
    """Refuse a data set that is another one than the request names (DICOM PS3.4 B.2.3, A9xx)."""
    if header.sop_class_uid != announced.sop_class_uid:
        raise RefusedInstanceError(
            StorageStatus.DOES_NOT_MATCH_SOP_CLASS, "SOP Class UID differs from the request's"
        )
    if header.sop_instance_uid != announced.sop_instance_uid:
        raise RefusedInstanceError(
            StorageStatus.DOES_NOT_MATCH_SOP_CLASS, "SOP Instance UID differs from the request's"
        )


def received_instance(
    header: Header, announced: AnnouncedInstance, file: StoredFile, received_at: datetime
) -> ReceivedInstance:
    """Return what the index keeps of an instance."""
    return ReceivedInstance(
        file=file,
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=announced.transfer_syntax_uid,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        calling_ae_title=announced.calling_ae_title,
        received_at=received_at,
        patient_id=header.text("PatientID"),
        issuer_of_patient_id=header.text("IssuerOfPatientID"),
        patient_name=header.text("PatientName"),
        patient_birth_date=header.text("PatientBirthDate"),
        patient_sex=header.text("PatientSex"),
        accession_number=header.text("AccessionNumber"),
        study_description=header.text("StudyDescription"),
        study_date=header.text("StudyDate"),
        study_time=header.text("StudyTime"),
        requested_procedure_priority=header.text("RequestedProcedurePriority"),
        modality=header.text("Modality"),
        series_number=header.number("SeriesNumber"),
        series_description=header.text("SeriesDescription"),
        body_part=header.text("BodyPartExamined"),
        instance_number=header.number("InstanceNumber"),
        headers=header.image_headers(),
    )
