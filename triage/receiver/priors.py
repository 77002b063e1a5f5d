"""Fetching a patient's earlier studies, so that they are there when the study is analysed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from triage.core.backoff import pause_s
from triage.core.priors import (
    Comparable,
    PriorsRule,
    PriorState,
    SearchState,
    in_words,
    is_same_patient,
    relevant_priors,
    wants_description_of_series,
)
from triage.receiver.entrance import Entrance
from triage.receiver.retrieve.archive import RetrieveError, StudyQuery
from triage.receiver.retrieve.pull import Archive, Puller
from triage.settings import PriorsSettings, Settings
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.prior_searches import (
    DueSearch,
    SearchLostError,
    ask_for_priors,
    claim_search,
    finish_search,
    has_due_search,
    put_back_searches,
    renew_searches,
    studies_to_search_for,
    try_search_again,
)
from triage.store.priors import comparable, held_study, set_prior_state, want_priors

log = structlog.get_logger(__name__)

_ROUND_S = 0.25
_AT_ONCE = 2
_LEASE = timedelta(seconds=60)
_RENEW_AFTER = timedelta(seconds=15)
_MOST_LOOKED_INTO = 20
_STOP_WITHIN_S = 3.0
_WORDS = {PriorState.INCOMPLETE: "has come in part", PriorState.FAILED: "has not come"}


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of a study's priors.

    Attributes:
        said: the outcome in words, for the history of the study.
        is_whole: whether everything that is relevant is here.
        here: how many priors have come, be it in part.
    """

    said: str
    is_whole: bool
    here: int


def rule_of(settings: PriorsSettings) -> PriorsRule:
    """Return the rule that the settings describe."""
    return PriorsRule(
        count=settings.count,
        modalities=frozenset(settings.modalities),
        same_body_part=settings.same_body_part,
        maximum_age=timedelta(days=settings.maximum_age_days),
    )


def find_priors(archive: Archive, study: Comparable, rule: PriorsRule) -> tuple[Comparable, ...]:
    """Return the relevant priors that an archive holds, the most relevant first.

    Raises:
        RetrieveError: the archive cannot be asked.
    """
    of_patient = archive.find_studies(StudyQuery(patient_id=study.patient_id))
    candidates = [one for one in of_patient if is_same_patient(study, one)]
    candidates.sort(key=lambda one: (one.study_date, one.study_time), reverse=True)
    described = [
        _described(archive, one)
        if wants_description_of_series(study, one) and place < _MOST_LOOKED_INTO
        else one
        for place, one in enumerate(candidates)
    ]
    return relevant_priors(study, described, rule)


def _described(archive: Archive, study: Comparable) -> Comparable:
    """Return the study with what its series say: many archives describe studies badly."""
    series = archive.find_series(study.study_instance_uid)
    return replace(
        study,
        modalities=study.modalities | {one.modality for one in series if one.modality},
        body_parts=tuple(
            dict.fromkeys(
                text for one in series for text in (one.body_part, one.description) if text
            )
        ),
    )


class PriorsFetcher:
    """Finds and fetches the priors of one study after the other."""

    def __init__(self, database: Database, puller: Puller, rule: PriorsRule, clock: Clock) -> None:
        """Prepare; `puller` stores what it pulls as priors."""
        self._database = database
        self._puller = puller
        self._rule = rule
        self._clock = clock

    def fetch(self, archive: Archive, study_id: int) -> Fetched:
        """Bring the relevant priors of a study into the store.

        Raises:
            RetrieveError: the archive cannot be asked. A prior that does not come is said.
        """
        with self._database.reading() as session:
            study = comparable(session, study_id)
        if not study.patient_id:
            return Fetched("no priors: the study has no Patient ID", is_whole=True, here=0)
        priors = find_priors(archive, study, self._rule)
        if not priors:
            text = f"no relevant priors in {archive.remote.name}"
            return Fetched(text, is_whole=True, here=0)
        with self._database.transaction() as session:
            want_priors(session, study_id, priors, now=self._clock())
        outcomes = [self._fetch_one(archive, study_id, prior) for prior in priors]
        return _summary(priors, outcomes, archive.remote.name)

    def _fetch_one(
        self, archive: Archive, study_id: int, prior: Comparable
    ) -> tuple[PriorState, str]:
        state, said = self._pull(archive, prior.study_instance_uid)
        log.info("prior", study_id=study_id, prior=prior.study_instance_uid, state=state.value)
        with self._database.transaction() as session:
            set_prior_state(
                session, study_id, prior.study_instance_uid, state, said, now=self._clock()
            )
        return state, said

    def _pull(self, archive: Archive, study_instance_uid: str) -> tuple[PriorState, str]:
        with self._database.reading() as session:
            held = held_study(session, study_instance_uid)
        if held is not None and not held.is_prior:
            # Not touched: images that came now would let it be analysed once more.
            return PriorState.HERE, "was received by itself"
        try:
            report = self._puller.pull(archive, study_instance_uid)
        except RetrieveError as error:
            return PriorState.FAILED, str(error)
        if report.is_whole:
            return PriorState.HERE, report.in_words()
        said = f"{report.in_words()}; {next(iter(report.failed.values()))}"
        has_some = len(report.failed) < report.found
        return (PriorState.INCOMPLETE if has_some else PriorState.FAILED), said


def _summary(
    priors: Sequence[Comparable], outcomes: Sequence[tuple[PriorState, str]], remote: str
) -> Fetched:
    pairs = list(zip(priors, outcomes, strict=True))
    here = [prior for prior, (state, _) in pairs if state is PriorState.HERE]
    others = [
        f"{in_words([prior])} {_WORDS[state]} ({said})"
        for prior, (state, said) in pairs
        if state is not PriorState.HERE
    ]
    texts = [f"priors from {remote}: {in_words(here)}"] if here else []
    texts += others
    usable = sum(state is not PriorState.FAILED for state, _ in outcomes)
    return Fetched("; ".join(texts), is_whole=not others, here=usable)


class PriorsRounds:
    """Threads that fetch the priors of arriving studies, from the first image on.

    The searches are rows of the database, so that a restart goes on with them. The analysis waits
    for them no longer than the rule says, whatever happens here.
    """

    def __init__(
        self, settings: Settings, database: Database, files: InstanceFiles, clock: Clock, name: str
    ) -> None:
        """Prepare; `name` is the receiver's, under which it finds its own searches again.

        Raises:
            SettingsError: `priors.remote` names no entry of `[[remotes]]`.
        """
        self._rule = settings.priors
        self._archive = Archive(
            settings.remote(settings.priors.remote),
            calling_ae_title=settings.receiver.ae_title,
        )
        self._database = database
        self._clock = clock
        self._name = name
        self._entrance = Entrance(
            database, files, settings.receiver, clock, kind="priors", as_priors=True
        )
        self._fetcher = PriorsFetcher(
            database, Puller(database, self._entrance, as_priors=True), rule_of(self._rule), clock
        )
        self._stopping = threading.Event()
        self._under_way: dict[int, DueSearch] = {}
        self._renewed_at: datetime | None = None
        self._threads = [
            threading.Thread(target=self._ask, name="triage-priors-ask", daemon=True),
            *(
                threading.Thread(target=self._carry_out, name=f"triage-priors-{n}", daemon=True)
                for n in range(_AT_ONCE)
            ),
        ]

    def start(self) -> None:
        """Begin, with what a killed receiver of this name had left."""
        with self._database.transaction() as session:
            put_back_searches(session, claimer=self._name, now=self._clock())
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; a fetch that does not come to its end soon is put back for the next start."""
        self._stopping.set()
        deadline = time.monotonic() + _STOP_WITHIN_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._database.transaction() as session:
            put_back_searches(session, claimer=self._name, now=self._clock())
        self._entrance.close()

    def _ask(self) -> None:
        while not self._stopping.wait(_ROUND_S):
            try:
                self.ask_for_new()
                self._renew()
            except SQLAlchemyError as error:
                log.warning("priors are not asked for", error=type(error).__name__)

    def _carry_out(self) -> None:
        while not self._stopping.wait(_ROUND_S):
            try:
                while not self._stopping.is_set() and self.carry_out_one():
                    pass
            except SQLAlchemyError as error:
                log.warning("priors are not fetched", error=type(error).__name__)
            except Exception as error:
                # This search's lease runs out, and its analysis does not wait for it.
                log.exception("priors are not fetched", error=type(error).__name__)

    def ask_for_new(self) -> None:
        """Queue a search for each arriving study that has none."""
        with self._database.reading() as session:
            study_ids = studies_to_search_for(session)
        for study_id in study_ids:
            try:
                with self._database.transaction() as session:
                    ask_for_priors(
                        session,
                        study_id,
                        remote=self._archive.remote.name,
                        wait_s=self._rule.wait_s,
                        now=self._clock(),
                    )
            except IntegrityError:
                continue  # another receiver on this database was first

    def carry_out_one(self) -> bool:
        """Carry out the search that is due, if there is one, and return whether there was."""
        now = self._clock()
        with self._database.reading() as session:
            if not has_due_search(session, now):
                return False
        with self._database.transaction() as session:
            due = claim_search(session, claimer=self._name, lease=_LEASE, now=now)
        if due is None:
            return False
        self._under_way[due.study_id] = due
        try:
            self._search(due)
        except SearchLostError as error:
            log.warning("search for priors given up", error=str(error))
        finally:
            del self._under_way[due.study_id]
        return True

    def _search(self, due: DueSearch) -> None:
        try:
            fetched = self._fetcher.fetch(self._archive, due.study_id)
        except RetrieveError as error:
            fetched = Fetched(f"no priors: {error}", is_whole=False, here=0)
        now = self._clock()
        with self._database.transaction() as session:
            if not fetched.is_whole and due.attempt < self._rule.maximum_attempts:
                pause = pause_s(due.attempt, first_s=self._rule.retry_s, longest_s=math.inf)
                again_at = now + timedelta(seconds=pause)
                try_search_again(session, due, fetched.said, at=again_at)
                return
            state = SearchState.DONE if fetched.is_whole or fetched.here else SearchState.FAILED
            finish_search(session, due, state, fetched.said, now=now)

    def _renew(self) -> None:
        now = self._clock()
        study_ids = list(self._under_way)
        is_soon = self._renewed_at is not None and now - self._renewed_at < _RENEW_AFTER
        if is_soon or not study_ids:
            return
        with self._database.transaction() as session:
            renew_searches(session, study_ids, claimer=self._name, lease=_LEASE, now=now)
        self._renewed_at = now
