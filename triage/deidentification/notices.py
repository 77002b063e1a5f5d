"""Notices that do not say who the patient is."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

from triage.core.findings import Finding
from triage.core.notices import (
    Notice,
    NoticeObject,
    NoticePatient,
    NoticeRun,
    NoticeStudy,
)
from triage.deidentification.profile import Method


def deidentify_notice(notice: Notice, method: Method) -> Notice:
    """Return `notice` with pseudonyms for identifiers, and without what people wrote.

    All moments are moved by the patient's shift: the moment at which a study was analysed is
    nearly that of the study. Reasons that a model gave are made of codes and stay.
    """
    patient = notice.study.patient
    bond = patient.patient_id or notice.study.study_instance_uid
    issuer = patient.issuer if patient.patient_id else ""
    shift = method.pseudonyms.shift(bond, issuer)
    change = notice.change
    if change is not None and change.source != "ai":
        change = replace(change, reason="")
    withdrawal = notice.withdrawal
    if withdrawal is not None:
        withdrawal = replace(withdrawal, who="", reason="")
    return replace(
        notice,
        occurred_at=notice.occurred_at + shift,
        study=_study(notice.study, method, shift, method.pseudonyms.patient_id(bond, issuer)),
        run=_run(notice.run, method, shift) if notice.run else None,
        change=change,
        withdrawal=withdrawal,
    )


def _study(study: NoticeStudy, method: Method, shift: timedelta, pseudonym: str) -> NoticeStudy:
    keeps_sex = "patient-characteristics" in method.retain
    keeps_dates = "modified-dates" in method.retain
    return replace(
        study,
        study_instance_uid=_uid(study.study_instance_uid, method),
        accession_number="",
        description="",
        study_date=_moved(study.study_date, shift) if keeps_dates else "",
        study_time=study.study_time if keeps_dates else "",
        calling_ae_title="",
        first_instance_at=study.first_instance_at + shift,
        patient=NoticePatient(
            patient_id=pseudonym,
            issuer="",
            name=pseudonym,
            birth_date="",
            sex=study.patient.sex if keeps_sex else "",
        ),
    )


def _moved(value: str, shift: timedelta) -> str:
    try:
        moved = date(int(value[:4]), int(value[4:6]), int(value[6:8])) + shift
    except ValueError:
        return ""
    return f"{moved:%Y%m%d}"


def _run(run: NoticeRun, method: Method, shift: timedelta) -> NoticeRun:
    return replace(
        run,
        finished_at=run.finished_at + shift,
        source_series_uid=_uid(run.source_series_uid, method),
        findings=tuple(_finding(finding, method) for finding in run.findings),
        objects=tuple(_object(each, method) for each in run.objects),
    )


def _object(each: NoticeObject, method: Method) -> NoticeObject:
    return replace(
        each,
        sop_instance_uid=_uid(each.sop_instance_uid, method),
        series_instance_uid=_uid(each.series_instance_uid, method),
    )


def _finding(finding: Finding, method: Method) -> Finding:
    boxes = tuple(
        box.model_copy(update={"sop_instance_uid": _uid(box.sop_instance_uid, method)})
        for box in finding.boxes
    )
    images = tuple(_uid(uid, method) for uid in finding.key_image_uids)
    return finding.model_copy(update={"boxes": boxes, "key_image_uids": images})


def _uid(uid: str, method: Method) -> str:
    if not uid or "uids" in method.retain:
        return uid
    return method.pseudonyms.uid(uid)
