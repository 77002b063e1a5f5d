"""Taking back: the rejection note, and the report that takes the withdrawn one's place.

IHE RAD Imaging Object Change Management (IOCM) rejects objects by a Key Object Selection whose
title says so, and an archive hides or deletes what it names. For archives that do not know the
profile, and for the reader, a report that names its predecessor says the same in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import pydicom
import structlog
from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import (
    CodeContentItem,
    Comprehensive3DSR,
    ComprehensiveSR,
    ContainerContentItem,
    ContentSequence,
    LanguageOfContentItemAndDescendants,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ComprehensiveSRStorage, ExplicitVRLittleEndian

from triage.core.backoff import pause_s
from triage.core.codes import Code
from triage.core.uids import derived_uid
from triage.core.withdrawals import WithdrawalRole, rejection_for
from triage.results.build import BuiltObject, store_results
from triage.results.context import (
    MANUFACTURER,
    PRIMARY_USE_WARNING,
    coded,
    series_number,
    software_versions,
    stamp,
)
from triage.results.errors import ResultError
from triage.results.observers import observing_device, observing_person
from triage.results.sources import as_dataset, repair, use_utf8
from triage.settings import ObjectDestination, ResultSettings, Settings
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.outbox import add_withdrawal_objects
from triage.store.tables import STAND_IN_PREFIX
from triage.store.withdrawals import (
    DocumentReference,
    DueWithdrawal,
    PatientAndStudy,
    claim_due_withdrawal,
    is_withdrawal_due,
    mark_withdrawal_done,
    mark_withdrawal_failed,
)

log = structlog.get_logger()

_LEASE = timedelta(minutes=2)
_LONG_STRING = 64
_TITLE_MODIFIER = Code(value="113011", scheme="DCM", meaning="Document Title Modifier")
_IMAGING_REPORT = Code(value="18748-4", scheme="LN", meaning="Diagnostic imaging report")
_ENGLISH = Code(value="en-US", scheme="RFC5646", meaning="English (United States)")


def withdraw_next(
    database: Database, settings: Settings, files: InstanceFiles, clock: Clock
) -> bool:
    """Build what archives are told of a withdrawal that is due; return whether there was one.

    The objects go into the outbox like every result. What fails stays a row that is tried again,
    later and later, without end: a withdrawal is never lost.
    """
    with database.reading() as session:
        if not is_withdrawal_due(session, clock()):
            return False
    with database.transaction() as session:
        due = claim_due_withdrawal(session, lease=_LEASE, now=clock())
    if due is None:
        return False
    try:
        stored = store_results(files, build_withdrawal(due, settings.results, files))
    except (ResultError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("withdrawal.failed", run=due.run_id, error=f"{type(error).__name__}: {error}")
        pause = pause_s(
            due.attempt,
            first_s=settings.results.first_retry_s,
            longest_s=settings.results.longest_retry_s,
        )
        with database.transaction() as session:
            mark_withdrawal_failed(
                session, due, str(error), retry_after=timedelta(seconds=pause), now=clock()
            )
        return True
    names = [
        d.name
        for d in settings.destinations
        if isinstance(d, ObjectDestination) and d.name in due.destinations
    ]
    with database.transaction() as session:
        now = clock()
        if mark_withdrawal_done(session, due, _in_words(due, names), now=now):
            add_withdrawal_objects(
                session,
                run_id=due.run_id,
                objects=stored,
                destinations=names,
                now=now,
            )
    log.info("withdrawal.queued", run=due.run_id, objects=len(stored), destinations=names)
    return True


def _in_words(due: DueWithdrawal, destinations: list[str]) -> str:
    model = f"{due.model_name} {due.model_version}"
    if not due.objects:
        return f"{model}: it left no object that would have to be rejected"
    where = ", ".join(destinations)
    place = f"its rejection note goes to {where}" if where else "its rejection note is kept here"
    gone = sorted(due.destinations - set(destinations))
    also = f"; no longer configured, so not told: {', '.join(gone)}" if gone else ""
    return f"{model}: {place}{also}"


def build_withdrawal(
    due: DueWithdrawal, settings: ResultSettings, files: InstanceFiles
) -> tuple[BuiltObject, ...]:
    """Return the objects that say that a run's result is withdrawn, in order of delivery.

    The report comes first, so that an archive is never without one; it is left out where the run
    had none, and where a newer run's report names the withdrawn one as its predecessor. Where the
    run left nothing, there is nothing to say.

    Raises:
        ResultError: they cannot be made from what is left of the run.
    """
    if not due.objects:
        return ()
    making = _Making(due, settings, tuple(_rejected(each, due, files) for each in due.objects))
    reports = [d for d, o in zip(making.rejected, due.objects, strict=True) if o.role == "sr"]
    built: list[BuiltObject] = []
    if reports and not due.has_successor:
        built.append(BuiltObject("withdrawal-sr", making.report(reports)))
    built.append(BuiltObject("rejection-note", making.rejection_note()))
    return tuple(built)


@dataclass(frozen=True, slots=True)
class _Making:
    """A withdrawal on its way to objects; `rejected` are the headers of what is withdrawn."""

    due: DueWithdrawal
    settings: ResultSettings
    rejected: tuple[Dataset, ...]

    def rejection_note(self) -> Dataset:
        """Return the Key Object Selection that rejects the objects (IOCM, RAD TF-3 4.66.4.1.3)."""
        rejection = rejection_for(self.due.withdrawal.reason)
        content = KeyObjectSelection(
            document_title=coded(rejection.title),
            referenced_objects=self.rejected,
            observer_person_context=self._person(),
            observer_device_context=self._device(),
            description=self._said(),
        )
        if rejection.quality is not None:
            modifier = CodeContentItem(
                name=coded(_TITLE_MODIFIER),
                value=coded(rejection.quality),
                relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD,
            )
            content[0].ContentSequence.insert(0, modifier)
        dataset = KeyObjectSelectionDocument(
            evidence=self.rejected,
            content=content,
            series_instance_uid=self._uid("rejection-note", "series"),
            series_number=series_number(self.settings, self._identity, "key-objects"),
            sop_instance_uid=self._uid("rejection-note", "instance"),
            instance_number=1,
            manufacturer=MANUFACTURER,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            manufacturer_model_name=self.due.model_name,
            software_versions=software_versions(self.due.model_version),
            device_serial_number=self._device_uid,
            series_description=self._description,
        )
        dataset.copy_patient_and_study_information(self.rejected[0])
        stamp(dataset, self._moment)
        return dataset

    def report(self, predecessors: list[Dataset]) -> Dataset:
        """Return the report that takes the place of `predecessors` (PS3.16 TID 2000)."""
        is_plain = predecessors[0].SOPClassUID == ComprehensiveSRStorage
        dataset = (ComprehensiveSR if is_plain else Comprehensive3DSR)(
            evidence=predecessors,
            content=self._narrative(),
            series_instance_uid=self._uid("withdrawal-sr", "series"),
            series_number=series_number(self.settings, self._identity, "sr"),
            sop_instance_uid=self._uid("withdrawal-sr", "instance"),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=self.due.model_name,
            software_versions=software_versions(self.due.model_version),
            device_serial_number=self._device_uid,
            is_complete=True,
            is_verified=False,
            is_final=False,
            previous_versions=predecessors,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            series_description=self._description,
        )
        stamp(dataset, self._moment)
        return dataset

    def _narrative(self) -> ContentSequence:
        root = ContainerContentItem(name=coded(_IMAGING_REPORT), template_id="2000")
        root.ContentSequence = ContentSequence()
        root.ContentSequence.extend(LanguageOfContentItemAndDescendants(coded(_ENGLISH)))
        observers = ObservationContext(
            observer_person_context=self._person(), observer_device_context=self._device()
        )
        root.ContentSequence.extend(observers)
        section = ContainerContentItem(
            name=codes.DCM.Conclusions, relationship_type=RelationshipTypeValues.CONTAINS
        )
        section.ContentSequence = ContentSequence()
        for text in (self._said(), PRIMARY_USE_WARNING):
            section.ContentSequence.append(
                TextContentItem(
                    name=codes.DCM.Conclusion,
                    value=text,
                    relationship_type=RelationshipTypeValues.CONTAINS,
                )
            )
        root.ContentSequence.append(section)
        return ContentSequence([root], is_root=True)

    def _said(self) -> str:
        withdrawal = self.due.withdrawal
        return f"AI result of {self._identity} {withdrawal.in_words()}. It is not to be used."

    def _person(self) -> ObserverContext | None:
        who = self.due.withdrawal.who
        return observing_person(who) if who else None

    def _device(self) -> ObserverContext:
        return observing_device(self._device_uid, self._identity, self.due.model_name)

    def _uid(self, role: WithdrawalRole, what: str) -> UID:
        """Return a UID of the withdrawal: the same result is never withdrawn twice."""
        model = (self.due.model_name, self.due.model_version)
        study = self.due.study.study_instance_uid
        return UID(derived_uid(study, *model, self.due.input_sha256, role, what))

    @property
    def _device_uid(self) -> str:
        identity = (self.due.model_name, self.due.model_version)
        return self.settings.device_uid or derived_uid("triage", "device", *identity)

    @property
    def _identity(self) -> str:
        return f"{self.due.model_name} {self.due.model_version}"

    @property
    def _description(self) -> str:
        return f"AI: withdrawn ({self._identity})"[:_LONG_STRING]

    @property
    def _moment(self) -> datetime:
        return self.due.withdrawal.at.astimezone().replace(tzinfo=None)


def _rejected(each: DocumentReference, due: DueWithdrawal, files: InstanceFiles) -> Dataset:
    """Return the header of a withdrawn object, or what the database knows where its file is gone.

    Text is turned into UTF-8: who withdrew it, and why, may be written in any letters.
    """
    header = _read(each, files) if each.path else None
    if header is None:
        header = as_dataset(each, due.study.study_instance_uid)
        _identify(header, due.study)
    dataset = repair(header, due.study.study_instance_uid)
    use_utf8(dataset)
    return dataset


def _read(each: DocumentReference, files: InstanceFiles) -> Dataset | None:
    try:
        return pydicom.dcmread(files.absolute(each.path), stop_before_pixels=True)
    except (FileNotFoundError, InvalidDicomError):
        return None
    except OSError as error:
        raise ResultError(f"object {each.sop_instance_uid} cannot be read: {error}") from error


def _identify(dataset: Dataset, study: PatientAndStudy) -> None:
    is_stand_in = study.patient_id.startswith(STAND_IN_PREFIX)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientID = "" if is_stand_in else study.patient_id
    dataset.PatientName = study.patient_name
    dataset.PatientBirthDate = study.patient_birth_date
    dataset.PatientSex = study.patient_sex
    dataset.AccessionNumber = study.accession_number
    dataset.StudyDate = study.study_date
    dataset.StudyTime = study.study_time
