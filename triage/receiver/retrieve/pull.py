"""Pulling a study out of an archive, by whichever way it offers, until all of it is here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args

import structlog

from triage.core.priors import Comparable
from triage.receiver.encoded import EncodedInstance
from triage.receiver.entrance import Entrance, Visit
from triage.receiver.refusals import RefusedInstanceError, StorageStatus
from triage.receiver.retrieve.archive import (
    Finder,
    FoundInstance,
    FoundSeries,
    NotOfferedError,
    RetrieveError,
    StudyQuery,
    Way,
)
from triage.receiver.retrieve.dicomweb import DicomwebFinder, DicomwebWay
from triage.receiver.retrieve.dimse import DimseFinder, GetWay, MoveWay
from triage.receiver.retrieve.origin import ORDINARY_MOVE, PRIORS_MOVE
from triage.settings import RemoteSettings
from triage.store.database import Database
from triage.store.priors import sop_instance_uids_of

log = structlog.get_logger(__name__)

ViaName = Literal["dicomweb", "c-get", "c-move"]
VIA: tuple[str, ...] = get_args(ViaName)
Found = TypeVar("Found")
_ATTEMPTS = 3

OnProgress = Callable[[int, int], None]
"""Is told how many of how many instances are here."""


@dataclass(slots=True)
class PullReport:
    """What became of pulling one study.

    Attributes:
        via: the ways that gave something, or were tried last.
        found: how many instances the archive holds.
        known: how many of them were here before.
        failed: why each instance that is still missing is.
        remarks: what a person should know beside that.
    """

    study_instance_uid: str
    remote: str
    via: list[str] = field(default_factory=list)
    found: int = 0
    known: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def new(self) -> int:
        """How many instances came by this pull."""
        return self.found - self.known - len(self.failed)

    @property
    def is_whole(self) -> bool:
        """Whether all that the archive holds is here."""
        return not self.failed

    def in_words(self) -> str:
        """Return the outcome as a sentence without a full stop."""
        here = f"{self.found - len(self.failed)} of {self.found} images are here"
        came = f"{self.new} came from {self.remote} by {' and '.join(self.via) or 'no way'}"
        known = f", {self.known} were here before" if self.known else ""
        return f"{here}: {came}{known}"


class Archive:
    """A remote archive: asked by QIDO-RS where it has it, else by C-FIND."""

    def __init__(self, remote: RemoteSettings, *, calling_ae_title: str) -> None:
        self.remote = remote
        self.calling_ae_title = calling_ae_title
        self._finders: list[Finder] = [
            *([DicomwebFinder(remote)] if remote.dicomweb_url else []),
            DimseFinder(remote, calling_ae_title=calling_ae_title),
        ]

    def find_studies(self, query: StudyQuery) -> list[Comparable]:
        """Return the studies that match.

        Raises:
            RetrieveError: the archive cannot be asked.
        """
        return self._ask(lambda finder: finder.find_studies(query))

    def find_series(self, study_instance_uid: str) -> list[FoundSeries]:
        """Return the series of a study.

        Raises:
            RetrieveError: the archive cannot be asked.
        """
        return self._ask(lambda finder: finder.find_series(study_instance_uid))

    def find_instances(self, study_instance_uid: str) -> list[FoundInstance]:
        """Return the instances of a study.

        Raises:
            RetrieveError: the archive cannot be asked.
        """
        return self._ask(lambda finder: finder.find_instances(study_instance_uid))

    def _ask(self, question: Callable[[Finder], list[Found]]) -> list[Found]:
        for finder in self._finders[:-1]:
            try:
                return question(finder)
            except NotOfferedError as error:
                log.info("asking by C-FIND instead", remote=self.remote.name, because=str(error))
        return question(self._finders[-1])

    def ways(self, via: str | None, *, as_priors: bool) -> list[Way]:
        """Return the ways to try, in order; `via` leaves only one of them.

        Raises:
            RetrieveError: `via` is "dicomweb", and no address is configured for it.
        """
        message_id = PRIORS_MOVE if as_priors else ORDINARY_MOVE
        ours = self.calling_ae_title
        ways: list[Way] = [
            *([DicomwebWay(self.remote)] if self.remote.dicomweb_url else []),
            GetWay(self.remote, calling_ae_title=ours),
            MoveWay(self.remote, calling_ae_title=ours, message_id=message_id),
        ]
        chosen = [way for way in ways if via in (None, way.name)]
        if not chosen:
            raise RetrieveError(
                f"{self.remote.name} has no dicomweb_url; set it in [[remotes]], or choose "
                "another way"
            )
        return chosen


class Puller:
    """Pulls studies into the store.

    What is pulled takes the way of everything that is received, and holds its study open until
    the pull ends.
    """

    def __init__(
        self, database: Database, entrance: Entrance, *, as_priors: bool, attempts: int = _ATTEMPTS
    ) -> None:
        self._database = database
        self._entrance = entrance
        self._as_priors = as_priors
        self._attempts = attempts

    def pull(
        self,
        archive: Archive,
        study_instance_uid: str,
        *,
        via: str | None = None,
        on_progress: OnProgress = lambda _done, _total: None,
    ) -> PullReport:
        """Pull what of a study is not here yet, and say what became of it.

        Raises:
            RetrieveError: the archive cannot be asked, or holds no such study. What fails later is
                in the report.
        """
        instances = archive.find_instances(study_instance_uid)
        if not instances:
            raise RetrieveError(f"{archive.remote.name} holds no study {study_instance_uid}")
        report = PullReport(study_instance_uid, archive.remote.name, found=len(instances))
        missing = self._missing(study_instance_uid, instances)
        report.known = len(instances) - len(missing)
        ways = archive.ways(via, as_priors=self._as_priors)
        with self._entrance.visit() as visit:
            attempt = _Attempt(visit, archive.remote.ae_title, report, on_progress)
            missing = self._try_ways(attempt, ways, instances, missing)
        for one in missing:
            why = attempt.reasons.get(one.sop_instance_uid) or attempt.last_error
            report.failed[one.sop_instance_uid] = why or f"{archive.remote.name} did not send it"
        return report

    def _try_ways(
        self,
        attempt: _Attempt,
        ways: Sequence[Way],
        instances: Sequence[FoundInstance],
        missing: list[FoundInstance],
    ) -> list[FoundInstance]:
        for way in ways:
            for _ in range(self._attempts):
                if not missing:
                    return missing
                is_offered = attempt.go(way, instances, missing)
                now_missing = self._missing(attempt.report.study_instance_uid, instances)
                if len(now_missing) < len(missing) and way.name not in attempt.report.via:
                    attempt.report.via.append(way.name)
                missing = now_missing
                if not is_offered:
                    break
            if all(one.sop_instance_uid in attempt.reasons for one in missing):
                break  # refused here: it would be refused whichever way it came
        return missing

    def _missing(
        self, study_instance_uid: str, instances: Sequence[FoundInstance]
    ) -> list[FoundInstance]:
        with self._database.reading() as session:
            here = sop_instance_uids_of(session, study_instance_uid)
        return [one for one in instances if one.sop_instance_uid not in here]


class _Attempt:
    """One study's attempts: what was refused and why, and what went wrong last."""

    def __init__(
        self, visit: Visit, sender: str, report: PullReport, on_progress: OnProgress
    ) -> None:
        self.report = report
        self.reasons: dict[str, str] = {}
        self.last_error = ""
        self._visit = visit
        self._sender = sender
        self._on_progress = on_progress

    def go(
        self, way: Way, instances: Sequence[FoundInstance], missing: Sequence[FoundInstance]
    ) -> bool:
        """Try one way once and return whether the archive offers it."""
        before = len(instances) - len(missing)
        try:
            way.retrieve(
                self.report.study_instance_uid,
                missing,
                is_whole_study=len(missing) == len(instances),
                take=self._take,
                progress=lambda come: self._on_progress(before + come, len(instances)),
            )
        except NotOfferedError as error:
            self._remark(str(error))
            return False
        except RetrieveError as error:
            self._remark(str(error))
        return True

    def _remark(self, text: str) -> None:
        self.last_error = text
        if text not in self.report.remarks:
            self.report.remarks.append(text)

    def _take(self, instance: EncodedInstance) -> int:
        uid = instance.header.sop_instance_uid
        try:
            self._visit.store(instance, sender=self._sender)
        except RefusedInstanceError as refusal:
            self.reasons[uid] = refusal.comment
            return int(refusal.status)
        self.reasons.pop(uid, None)
        return int(StorageStatus.SUCCESS)
