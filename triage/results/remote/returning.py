"""Results of remote models on their way back into the real studies."""

from __future__ import annotations

from datetime import datetime
from io import BytesIO
from pathlib import Path

import structlog
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from sqlalchemy.orm import Session

from triage.decoding.errors import DecodingError
from triage.decoding.files import check_file
from triage.deidentification.pseudonyms import DeidentificationError
from triage.deidentification.reversal import reidentify
from triage.results.remote.findings import UnreadableReportError, read_findings
from triage.results.remote.sending import pseudonyms_of
from triage.results.sources import use_utf8
from triage.settings import RemoteModelSettings, Settings
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.history import note
from triage.store.outbox import NewResultObject, add_returned_object
from triage.store.prioritising import raise_for_findings
from triage.store.remote_findings import keep_remote_findings
from triage.store.remote_models import (
    AskedStudy,
    ReturnedObject,
    asked_study,
    mark_taken,
    next_returned,
    quarantine,
)

log = structlog.get_logger(__name__)

_ROLES = {"SEG": "seg", "SR": "sr", "KO": "key-objects", "PR": "presentation-state"} | {
    "RTSTRUCT": "rtstruct",
    "DOC": "pdf",
}


def take_back_next(
    database: Database, settings: Settings, files: InstanceFiles, clock: Clock
) -> bool:
    """Take the object that came back first into its study; return whether there was one.

    What belongs to no study is kept in quarantine, with the reason.
    """
    with database.reading() as session:
        returned = next_returned(session)
    if returned is None:
        return False
    try:
        model = _model(returned, settings)
        asked = _asked(returned, model, database)
        dataset = _reidentified(returned, asked, model, settings, files)
    except DeidentificationError as error:
        log.warning("returned object quarantined", object=returned.object_id, reason=str(error))
        with database.transaction() as session:
            quarantine(session, returned, str(error))
        return True
    new = _stored(dataset, asked, files)
    with database.transaction() as session:
        add_returned_object(
            session,
            study_id=asked.study_id,
            remote_model=model.name,
            new=new,
            destinations=settings.destinations,
            now=clock(),
        )
        mark_taken(session, returned, asked, model, role=new.role, now=clock())
        if new.role == "sr" and model.findings:
            _take_findings(session, dataset, asked, model, clock())
    return True


def _take_findings(
    session: Session,
    report: Dataset,
    asked: AskedStudy,
    model: RemoteModelSettings,
    now: datetime,
) -> None:
    """Keep what a report found and, of a model in production, raise the priority for it.

    A report that cannot be read changes no priority, and the study's history says why.
    """
    try:
        findings = read_findings(report, model.findings)
    except UnreadableReportError as error:
        text = f"the findings in the report of {model.name} are not read: {error}"
        note(session, asked.study_id, "remote", text, at=now)
        return
    counts = model.stage == "production"
    keep_remote_findings(session, asked.analysis_id, findings, counts=counts)
    said = "; ".join(finding.in_words() for finding in findings)
    note(session, asked.study_id, "remote", f"{model.name}: {said}", at=now)
    if counts:
        named = [(model.name, finding) for finding in findings]
        raise_for_findings(session, asked.study_id, named, at=now)


def _model(returned: ReturnedObject, settings: Settings) -> RemoteModelSettings:
    title = returned.calling_ae_title.strip()
    for model in settings.remote_models:
        if model.results_from.strip() == title:
            return model
    raise DeidentificationError(f"no entry of [[remote_models]] has results_from = {title!r}")


def _asked(returned: ReturnedObject, model: RemoteModelSettings, database: Database) -> AskedStudy:
    with database.reading() as session:
        asked = asked_study(session, model.name, returned.study_instance_uid)
    if asked is None:
        raise DeidentificationError(
            f"its Study Instance UID is no pseudonym that {model.name} was given"
        )
    return asked


def _reidentified(
    returned: ReturnedObject,
    asked: AskedStudy,
    model: RemoteModelSettings,
    settings: Settings,
    files: InstanceFiles,
) -> Dataset:
    pseudonyms = pseudonyms_of(model, settings)
    dataset = _read(files.absolute(returned.path))
    source = _source(asked, files)
    is_kept = "uids" in model.retain
    uids = {uid if is_kept else pseudonyms.uid(uid): uid for uid in asked.uids}
    # As `deidentify` names a patient: by the study, where the images have no Patient ID.
    stated = str(source.get("PatientID") or "").strip()
    issuer = str(source.get("IssuerOfPatientID") or "").strip() if stated else ""
    bond = stated or str(source.StudyInstanceUID)
    use_utf8(dataset)
    source.decode()
    reidentify(
        dataset,
        source,
        uids=uids,
        pseudonym=pseudonyms.patient_id(bond, issuer),
        shift=pseudonyms.shift(bond, issuer) if "modified-dates" in model.retain else None,
    )
    return dataset


def _source(asked: AskedStudy, files: InstanceFiles) -> Dataset:
    for path in asked.paths:
        if files.exists(path):
            file = files.absolute(path)
            return _read(file, stop_before_pixels=True)
    source = Dataset()  # retention has taken the images; the index still knows whose they were
    for keyword, value in asked.attributes.items():
        if value or keyword != "IssuerOfPatientID":
            setattr(source, keyword, value)
    return source


def _read(file: Path, *, stop_before_pixels: bool = False) -> Dataset:
    try:
        check_file(file)
        return dcmread(file, stop_before_pixels=stop_before_pixels)
    except (OSError, InvalidDicomError, DecodingError) as error:
        raise DeidentificationError(f"it cannot be read: {error}") from error


def _stored(dataset: Dataset, asked: AskedStudy, files: InstanceFiles) -> NewResultObject:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    uid = str(dataset.SOPInstanceUID)
    file = files.write(asked.study_instance_uid, uid, [buffer.getbuffer()])
    modality = str(dataset.get("Modality") or "OT")
    is_capture = UID(str(dataset.SOPClassUID)).name.find("Secondary Capture") >= 0
    number = dataset.get("SeriesNumber")
    return NewResultObject(
        role="secondary-capture" if is_capture else _ROLES.get(modality, modality.lower()),
        file=file,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=uid,
        series_instance_uid=str(dataset.SeriesInstanceUID),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        modality=modality[:16],
        series_number=int(number) if number is not None else None,
        series_description=str(dataset.get("SeriesDescription") or ""),
    )
