"""How many images the archive counts: asked by C-FIND or QIDO-RS, in a thread of its own.

Nothing waits for the archive. Where it is away or slow, studies become complete as they would
without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import httpx
import structlog
from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from sqlalchemy.exc import IntegrityError

from triage.associations import AssociationError, associate
from triage.core.errors import TriageError
from triage.receiver.rounds import Rounds
from triage.settings import RemoteSettings
from triage.store.clock import Clock
from triage.store.counts import (
    Question,
    claim_question,
    has_question,
    record_count,
    record_no_count,
)
from triage.store.database import Database

log = structlog.get_logger(__name__)

_STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_ROUND_S = 0.25
_PENDING = (0xFF00, 0xFF01)
_INSTANCES_OF_STUDY = "00201208"
_INSTANCES_OF_SERIES = "00201209"
_SERIES_INSTANCE_UID = "0020000E"


class CountError(TriageError):
    """The remote gave no count; the message says why."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many instances the archive has of a study, and of each series where it says so.

    `instances` is None where the archive counts neither.
    """

    instances: int | None
    series: Mapping[str, int]

    @classmethod
    def of(cls, instances: int | None, series: Iterable[tuple[str, int | None]]) -> Count:
        """Return what the answers add up to; with one series uncounted, the series do not count."""
        by_series = dict(series)
        known = {uid: count for uid, count in by_series.items() if count is not None}
        if len(known) < len(by_series):
            known = {}
        if instances is None and known:
            instances = sum(known.values())
        return cls(instances, known)


class Counter(Protocol):
    """A way of asking."""

    def count(self, study_instance_uid: str) -> Count:
        """Return the remote's count of a study, 0 where it has no such study.

        Raises:
            CountError: it did not answer, or not with a count.
        """
        ...


def counter_at(remote: RemoteSettings, *, calling_ae_title: str) -> Counter:
    """Return QIDO-RS where the remote has DICOMweb, and C-FIND otherwise."""
    if remote.dicomweb_url:
        return QidoCounter(remote)
    return FindCounter(remote, calling_ae_title=calling_ae_title)


class FindCounter:
    """Asks by C-FIND in the Study Root model (DICOM PS3.4 C.4.1, C.6.2.1)."""

    def __init__(self, remote: RemoteSettings, *, calling_ae_title: str) -> None:
        self._remote = remote
        self._calling_ae_title = calling_ae_title

    def count(self, study_instance_uid: str) -> Count:
        """Return Number of Study Related Instances (0020,1208) and of each series (0020,1209)."""
        study = _identifier("STUDY", study_instance_uid, "NumberOfStudyRelatedInstances")
        series = _identifier("SERIES", study_instance_uid, "NumberOfSeriesRelatedInstances")
        series.SeriesInstanceUID = ""
        with self._associated() as association:
            studies = list(self._matches(association, study))
            if not studies:
                return Count(0, {})
            found = list(self._matches(association, series))
        return Count.of(
            _number(studies[0].get("NumberOfStudyRelatedInstances")),
            [
                (str(f.SeriesInstanceUID), _number(f.get("NumberOfSeriesRelatedInstances")))
                for f in found
                if f.get("SeriesInstanceUID")
            ],
        )

    @contextmanager
    def _associated(self) -> Iterator[Association]:
        contexts: list[PresentationContext] = [build_context(_STUDY_ROOT_FIND)]
        try:
            with associate(
                self._remote, contexts, calling_ae_title=self._calling_ae_title
            ) as association:
                yield association
        except AssociationError as error:
            raise CountError(str(error)) from error

    def _matches(self, association: Association, identifier: Dataset) -> Iterator[Dataset]:
        for status, match in association.send_c_find(identifier, _STUDY_ROOT_FIND):
            value = status.get("Status") if status is not None else None
            if value is None:
                raise CountError(f"{self._remote.name} did not answer a C-FIND request")
            if value in _PENDING:
                if match is not None:
                    yield match
            elif value != 0:
                raise CountError(f"{self._remote.name} answered a C-FIND with 0x{value:04X}")


def _identifier(level: str, study_instance_uid: str, counted: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    identifier.StudyInstanceUID = study_instance_uid
    setattr(identifier, counted, None)
    return identifier


class QidoCounter:
    """Asks by QIDO-RS (DICOM PS3.18 section 10.6)."""

    def __init__(self, remote: RemoteSettings) -> None:
        self._remote = remote

    def count(self, study_instance_uid: str) -> Count:
        """Return Number of Study Related Instances (0020,1208) and of each series (0020,1209)."""
        studies = self._search(
            "/studies", StudyInstanceUID=study_instance_uid, includefield=_INSTANCES_OF_STUDY
        )
        if not studies:
            return Count(0, {})
        found = self._search(
            f"/studies/{study_instance_uid}/series", includefield=_INSTANCES_OF_SERIES
        )
        return Count.of(
            _number(_value(studies[0], _INSTANCES_OF_STUDY)),
            [
                (str(_value(f, _SERIES_INSTANCE_UID)), _number(_value(f, _INSTANCES_OF_SERIES)))
                for f in found
                if _value(f, _SERIES_INSTANCE_UID)
            ],
        )

    def _search(self, path: str, **parameters: str) -> list[Any]:
        headers = {"Accept": "application/dicom+json"}
        if self._remote.dicomweb_authorization:
            headers["Authorization"] = self._remote.dicomweb_authorization
        try:
            answer = httpx.get(
                self._remote.dicomweb_url.rstrip("/") + path,
                params=parameters,
                headers=headers,
                timeout=self._remote.timeout_s,
            )
            if answer.status_code == httpx.codes.NO_CONTENT:
                return []
            found = answer.raise_for_status().json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            # Without the error's text, which quotes the address with what is asked for.
            raise CountError(f"{self._remote.name}: {type(error).__name__}") from error
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise CountError(f"{self._remote.name} did not answer with a list of data sets")
        return found


def _value(match: dict[str, Any], tag: str) -> object:
    values = (match.get(tag) or {}).get("Value") or [None]
    return values[0]


def _number(value: object) -> int | None:
    try:
        number = int(str(value))
    except ValueError:
        return None
    return number if 0 <= number < 2**31 else None


class ArchiveCounts:
    """A thread that asks for the studies which are arriving, and keeps the answers."""

    def __init__(
        self,
        database: Database,
        counter: Counter,
        clock: Clock,
        *,
        pause_s: float,
        timeout_s: float,
    ) -> None:
        self._database = database
        self._counter = counter
        self._clock = clock
        self._pause = timedelta(seconds=pause_s)
        # Connecting, two questions and releasing may each take their time.
        self._lease = timedelta(seconds=4 * timeout_s)
        self._rounds = Rounds(
            "counts",
            self.ask_once,
            pause_s=_ROUND_S,
            pauses_first=True,
            failing="archive cannot be asked",
        )

    def start(self) -> None:
        """Start the thread."""
        self._rounds.start()

    def stop(self) -> None:
        """End the thread; a question that is under way is left to its time limit."""
        self._rounds.end()
        self._rounds.join(2 * _ROUND_S)

    def ask_once(self) -> bool:
        """Ask for the most urgent study that is due; return whether there was one."""
        question = self._claim()
        if question is None:
            return False
        asked_at = self._clock()
        try:
            counted = self._counter.count(question.study_instance_uid)
        except CountError as error:
            log.warning("no count of a study", study_id=question.study_id, reason=str(error))
            with self._database.transaction() as session:
                record_no_count(
                    session, question.study_id, str(error), pause=self._pause, asked_at=asked_at
                )
            return True
        with self._database.transaction() as session:
            record_count(
                session,
                question.study_id,
                instances=counted.instances,
                series=counted.series,
                pause=self._pause,
                asked_at=asked_at,
            )
        return True

    def _claim(self) -> Question | None:
        now = self._clock()
        with self._database.reading() as session:
            if not has_question(session, pause=self._pause, now=now):
                return None
        try:
            with self._database.transaction() as session:
                return claim_question(session, pause=self._pause, lease=self._lease, now=now)
        except IntegrityError:  # another receiver has just claimed it
            return None
