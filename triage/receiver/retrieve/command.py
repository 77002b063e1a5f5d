"""`triage pull`: studies, and if wanted their priors, by a person's order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from triage.core.priors import Comparable
from triage.receiver.entrance import Entrance
from triage.receiver.priors import Fetched, PriorsFetcher, rule_of
from triage.receiver.retrieve.archive import RetrieveError, StudyQuery
from triage.receiver.retrieve.pull import Archive, OnProgress, Puller, PullReport
from triage.settings import Settings
from triage.store.clock import Clock, system_clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.priors import ask_to_read, held_study


@dataclass(frozen=True, slots=True)
class Pulled:
    """What became of one study, and of its priors where they were wanted."""

    report: PullReport
    priors: Fetched | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all that was wanted is here."""
        return self.report.is_whole and (self.priors is None or self.priors.is_whole)


@dataclass(frozen=True, slots=True)
class PullOrder:
    """What a person wants from which entry of `[[remotes]]`.

    `via` forces one way; `priors` is how many of each study's are wanted.
    """

    remote: str
    query: StudyQuery
    via: str | None = None
    priors: int = 0


class PullCommand:
    """Carries out an order; a context manager gives it and closes what it needs."""

    def __init__(
        self, settings: Settings, database: Database, order: PullOrder, clock: Clock
    ) -> None:
        """Prepare.

        Raises:
            SettingsError: the order names no entry of `[[remotes]]`.
        """
        self._database = database
        self._clock = clock
        self._order = order
        self._archive = Archive(
            settings.remote(order.remote), calling_ae_title=settings.receiver.ae_title
        )
        files = InstanceFiles(settings.data_directory)

        def entrance(kind: str, *, as_priors: bool) -> Entrance:
            return Entrance(
                database, files, settings.receiver, clock, kind=kind, as_priors=as_priors
            )

        self._entrances = [
            entrance("pull", as_priors=False),
            entrance("priors", as_priors=True),
        ]
        self._puller = Puller(database, self._entrances[0], as_priors=False)
        self._fetcher = PriorsFetcher(
            database,
            Puller(database, self._entrances[1], as_priors=True),
            replace(rule_of(settings.priors), count=order.priors),
            clock,
        )

    def find(self) -> list[Comparable]:
        """Return the studies that are meant.

        Raises:
            RetrieveError: the archive cannot be asked, or holds none.
        """
        found = self._archive.find_studies(self._order.query)
        if not found:
            raise RetrieveError(f"{self._order.remote} holds nothing for {self._order.query}")
        return found

    def pull(self, study: Comparable, on_progress: OnProgress) -> Pulled:
        """Pull one study, to be analysed and read as if it had been sent.

        Raises:
            RetrieveError: the archive cannot be asked.
        """
        uid = study.study_instance_uid
        report = self._puller.pull(self._archive, uid, via=self._order.via, on_progress=on_progress)
        with self._database.transaction() as session:
            # Where it was here as a prior already, nothing may have come.
            ask_to_read(session, uid, f"pulled from {self._order.remote}", self._clock())
            held = held_study(session, uid)
        if held is None or not self._order.priors:
            return Pulled(report)
        return Pulled(report, self._fetcher.fetch(self._archive, held.study_id))

    def close(self) -> None:
        """Close what held the studies open."""
        for entrance in self._entrances:
            entrance.close()


@contextmanager
def pulling(settings: Settings, order: PullOrder) -> Iterator[PullCommand]:
    """Give what carries out `order` on the configured database.

    Raises:
        SettingsError: the order names no entry of `[[remotes]]`.
        DatabaseError: the schema is not the one that this version needs.
    """
    database = Database(settings.database_url)
    try:
        database.check_schema()
        command = PullCommand(settings, database, order, system_clock)
        try:
            yield command
        finally:
            command.close()
    finally:
        database.close()
