"""What of a notice says who the patient is, and how it is left out."""

from __future__ import annotations

from dataclasses import replace

from triage.core.notices import Notice, NoticePatient

_NOBODY = NoticePatient(patient_id="", issuer="", name="", birth_date="", sex="")


def without_patient(notice: Notice) -> Notice:
    """Return `notice` without the patient's data and the accession number.

    The Study Instance UID stays: without it nobody could find the study, and with it only who has
    access to the archive or to Triage.
    """
    return replace(notice, study=replace(notice.study, patient=_NOBODY, accession_number=""))
