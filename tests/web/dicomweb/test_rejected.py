"""What was taken back: programs that read over DICOMweb do not find it any more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from pydicom.dataset import Dataset

from tests.web.dicomweb.conftest import ROOT, address_of, search, value
from tests.web.hospital import Hospital, hemorrhage, segmentation
from triage.core.withdrawals import WithdrawalReason
from triage.results.withdrawal import withdraw_next
from triage.settings import Settings
from triage.store.studies import supersede_run
from triage.store.tables import AnalysisRunRow
from triage.store.withdrawals import record_withdrawal

AS_STORED = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
JSON = {"Accept": "application/dicom+json"}


class Analysed:
    """A study with a segmentation that a run left."""

    def __init__(self, hospital: Hospital, folder: Path) -> None:
        self.hospital, self.settings = hospital, Settings(data_directory=folder)
        hospital.register_model()
        self.images = hospital.head_ct()
        self.uid = hospital.receive(*self.images)
        hospital.complete(self.uid)
        run = hospital.claim()
        self.run_id = run.run_id
        masks = np.zeros((len(self.images), 64, 64), np.uint8)
        masks[1, 20:30, 20:30] = 1
        self.segmentation: Dataset = segmentation(self.images, masks)
        hospital.finish(run, hemorrhage(), objects=[self.segmentation])

    def withdraw(self, reason: WithdrawalReason) -> None:
        """Take the result back, as a person."""
        with self.hospital.database.transaction() as session:
            record_withdrawal(
                session, self.run_id, who="reader", reason=reason, now=self.hospital.clock()
            )

    def supersede(self) -> None:
        """Let a late image supersede the run."""
        with self.hospital.database.transaction() as session:
            run = session.get_one(AnalysisRunRow, self.run_id)
            supersede_run(session, run, "a late image", self.hospital.clock())

    def tell_archives(self) -> None:
        """Build the rejection note, as the worker does."""
        hospital = self.hospital
        assert withdraw_next(hospital.database, self.settings, hospital.files, hospital.clock)


@pytest.fixture
def analysed(hospital: Hospital, tmp_path: Path) -> Analysed:
    """A study that was analysed."""
    return Analysed(hospital, tmp_path / "data")


def modalities(client: TestClient, analysed: Analysed) -> list[str]:
    """Return the modalities of the study's series, as QIDO-RS finds them."""
    return sorted(value(s, "00080060") for s in search(client, f"studies/{analysed.uid}/series"))


def classes_in(client: TestClient, analysed: Analysed) -> set[str]:
    """Return the SOP classes of all that a retrieval of the study's metadata gives."""
    answer = client.get(f"{ROOT}/studies/{analysed.uid}/metadata", headers=JSON)
    assert answer.status_code == 200
    return {value(one, "00080016") for one in answer.json()}


def test_what_a_person_took_back_is_neither_found_nor_given_with_its_study(
    client: TestClient, analysed: Analysed
) -> None:
    seg = analysed.segmentation
    assert modalities(client, analysed) == ["CT", "SEG"]
    analysed.withdraw(WithdrawalReason.WRONG_RESULT)
    assert modalities(client, analysed) == ["CT"]
    [study] = search(client, "studies", StudyInstanceUID=analysed.uid)
    assert study["00080061"]["Value"] == ["CT"]
    assert value(study, "00201208") == len(analysed.images)
    assert search(client, "studies", ModalitiesInStudy="SEG") == []
    assert search(client, "instances", SOPInstanceUID=seg.SOPInstanceUID) == []
    assert seg.SOPClassUID not in classes_in(client, analysed)
    whole = client.get(f"{ROOT}/studies/{analysed.uid}", headers=AS_STORED)
    assert whole.status_code == 200
    assert str(seg.SOPInstanceUID).encode() not in whole.content
    refused = client.get(address_of(seg, level="series"), headers=AS_STORED)
    assert refused.status_code == 404
    assert "was withdrawn; its rejection note says why" in refused.text
    # A report that takes its place names it: one who asks for it itself may still look at it.
    assert client.get(address_of(seg), headers=AS_STORED).status_code == 200


def test_the_rejection_note_is_found_in_its_place(client: TestClient, analysed: Analysed) -> None:
    analysed.withdraw(WithdrawalReason.SOFTWARE_FAILURE)
    analysed.tell_archives()
    assert modalities(client, analysed) == ["CT", "KO"]
    assert "1.2.840.10008.5.1.4.1.1.88.59" in classes_in(client, analysed)


@pytest.mark.parametrize(
    "reason", [WithdrawalReason.PATIENT_SAFETY, WithdrawalReason.WRONG_PATIENT]
)
def test_what_may_harm_is_not_given_to_one_who_names_it(
    client: TestClient, analysed: Analysed, reason: WithdrawalReason
) -> None:
    analysed.withdraw(reason)
    for path in ("", "/metadata", "/frames/1", "/rendered"):
        accept = {"": AS_STORED, "/metadata": JSON}.get(path, {})
        answer = client.get(f"{address_of(analysed.segmentation)}{path}", headers=accept)
        assert answer.status_code == 404, path


def test_what_was_superseded_stays_until_its_rejection_note_is_there(
    client: TestClient, analysed: Analysed
) -> None:
    analysed.supersede()
    assert modalities(client, analysed) == ["CT", "SEG"]
    analysed.tell_archives()
    assert modalities(client, analysed) == ["CT", "KO"]
