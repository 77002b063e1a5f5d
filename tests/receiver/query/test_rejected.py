"""What was taken back: C-FIND does not find it, and C-GET does not give it with its study."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SegmentationStorage

from tests.receiver.query.conftest import StartWith
from tests.receiver.query.test_find import find, identifier
from tests.receiver.query.test_retrieve import get
from tests.tools import ManualClock
from tests.web.hospital import Hospital, hemorrhage, segmentation
from triage.core.withdrawals import WithdrawalReason
from triage.receiver import Receiver
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.withdrawals import record_withdrawal

CONTEXTS = [(uid, [ExplicitVRLittleEndian]) for uid in (CTImageStorage, SegmentationStorage)]


def _came(receiver: Receiver, level: str, **keys: str) -> list[str]:
    responses, came = get(receiver, identifier(level, **keys), *CONTEXTS)
    assert responses[-1][0].Status == 0x0000
    return [dataset.Modality for _, dataset in came]


def _analysed(hospital: Hospital) -> tuple[Dataset, int]:
    hospital.register_model()
    images = hospital.head_ct(slices=2)
    hospital.complete(hospital.receive(*images))
    run = hospital.claim()
    masks = np.zeros((2, 64, 64), np.uint8)
    masks[1, 20:30, 20:30] = 1
    made = segmentation(images, masks)
    hospital.finish(run, hemorrhage(), objects=[made])
    return made, run.run_id


def _withdraw(hospital: Hospital, run_id: int, reason: WithdrawalReason) -> None:
    with hospital.database.transaction() as session:
        record_withdrawal(session, run_id, who="reader", reason=reason, now=hospital.clock())


def test_a_withdrawn_object_is_neither_found_nor_retrieved_on_both_databases(
    database: Database, files: InstanceFiles, clock: ManualClock, start_with: StartWith
) -> None:
    hospital = Hospital(database, files, clock)
    made, run_id = _analysed(hospital)
    receiver = start_with(database)
    of_study = {"StudyInstanceUID": str(made.StudyInstanceUID)}
    assert _came(receiver, "STUDY", **of_study) == ["CT", "CT", "SEG"]
    _withdraw(hospital, run_id, WithdrawalReason.POOR_IMAGES)
    series, _ = find(receiver, identifier("SERIES", **of_study, SeriesInstanceUID="", Modality=""))
    assert [match.Modality for match in series] == ["CT"]
    of_series = {**of_study, "SeriesInstanceUID": str(made.SeriesInstanceUID)}
    images, _ = find(receiver, identifier("IMAGE", **of_series, SOPInstanceUID=""))
    assert images == []
    assert _came(receiver, "STUDY", **of_study) == ["CT", "CT"]
    assert _came(receiver, "SERIES", **of_series) == []
    itself = {**of_series, "SOPInstanceUID": str(made.SOPInstanceUID)}
    assert _came(receiver, "IMAGE", **itself) == ["SEG"]


def test_what_may_harm_the_patient_is_retrieved_by_nobody(
    sqlite_database: Database, files: InstanceFiles, clock: ManualClock, start_with: StartWith
) -> None:
    hospital = Hospital(sqlite_database, files, clock)
    made, run_id = _analysed(hospital)
    receiver = start_with(sqlite_database)
    _withdraw(hospital, run_id, WithdrawalReason.PATIENT_SAFETY)
    itself = {
        "StudyInstanceUID": str(made.StudyInstanceUID),
        "SeriesInstanceUID": str(made.SeriesInstanceUID),
        "SOPInstanceUID": str(made.SOPInstanceUID),
    }
    assert _came(receiver, "IMAGE", **itself) == []
