"""One instance on its way in: checked, written to a durable file, indexed, then acknowledged."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import structlog

from triage.receiver.headers import Header, is_valid_uid, parse_header
from triage.receiver.indexer import Indexer
from triage.receiver.part10 import file_header
from triage.receiver.refusals import RefusedInstanceError, StorageStatus
from triage.store.clock import Clock
from triage.store.disk import DiskFullError, Watermarks
from triage.store.files import InstanceFiles, StoredFile
from triage.store.studies import ReceivedInstance, Recorded

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class IncomingInstance:
    """An encoded data set with what the C-STORE request says of it (DICOM PS3.7 9.1.1.1)."""

    dataset: bytes
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    calling_ae_title: str
    association: str


class Intake:
    """Stores instances as they were sent. Pixel data is never decoded here."""

    def __init__(
        self,
        files: InstanceFiles,
        indexer: Indexer,
        clock: Clock,
        *,
        minimum_free_bytes: int = 0,
        watermarks: Watermarks | None = None,
    ) -> None:
        self._files = files
        self._indexer = indexer
        self._clock = clock
        self._watermarks = watermarks or Watermarks(files.free_bytes, minimum=minimum_free_bytes)

    def store(self, incoming: IncomingInstance) -> Recorded:
        """Return once the file is durable and its index row is committed.

        Raises:
            RefusedInstanceError: the instance is not stored; the error is the answer to the sender.
        """
        if not is_valid_uid(incoming.sop_instance_uid):
            raise RefusedInstanceError(
                StorageStatus.INVALID_SOP_INSTANCE, "Affected SOP Instance UID is not a valid UID"
            )
        header = parse_header(incoming.dataset, incoming.transfer_syntax_uid)
        _check_is_what_was_announced(header, incoming)
        file = self._write(header, incoming)
        received = _received(header, incoming, file, self._clock)
        return self._indexer.record(received, incoming.association)

    def _write(self, header: Header, incoming: IncomingInstance) -> StoredFile:
        meta = file_header(
            sop_class_uid=header.sop_class_uid,
            sop_instance_uid=header.sop_instance_uid,
            transfer_syntax_uid=incoming.transfer_syntax_uid,
        )
        try:
            with self._watermarks.room_for(len(incoming.dataset)):
                return self._files.write(
                    header.study_instance_uid, header.sop_instance_uid, (meta, incoming.dataset)
                )
        except DiskFullError as error:
            raise RefusedInstanceError(StorageStatus.OUT_OF_RESOURCES, str(error)) from error
        except OSError as error:
            log.warning(
                "instance could not be written",
                sop_instance_uid=header.sop_instance_uid,
                error=str(error),
            )
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            comment = "disk is full" if is_full else "instance could not be written to disk"
            raise RefusedInstanceError(StorageStatus.OUT_OF_RESOURCES, comment) from error


def _check_is_what_was_announced(header: Header, incoming: IncomingInstance) -> None:
    """Refuse a data set that is another one than the request names (DICOM PS3.4 B.2.3, A9xx)."""
    if header.sop_class_uid != incoming.sop_class_uid:
        raise RefusedInstanceError(
            StorageStatus.DOES_NOT_MATCH_SOP_CLASS, "SOP Class UID differs from the request's"
        )
    if header.sop_instance_uid != incoming.sop_instance_uid:
        raise RefusedInstanceError(
            StorageStatus.DOES_NOT_MATCH_SOP_CLASS, "SOP Instance UID differs from the request's"
        )


def _received(
    header: Header, incoming: IncomingInstance, file: StoredFile, clock: Clock
) -> ReceivedInstance:
    return ReceivedInstance(
        file=file,
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=incoming.transfer_syntax_uid,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        calling_ae_title=incoming.calling_ae_title,
        received_at=clock(),
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
