"""The received images of every complete study, to be committed to by an archive."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from triage.store.clock import Clock
from triage.store.commitments import request_commitment, studies_to_ask_for
from triage.store.database import Database

log = structlog.get_logger(__name__)

_STUDIES_A_ROUND = 50
# A study is marked complete a moment before its transaction can be seen.
_OVERLAP = timedelta(minutes=5)


class SourceRequests:
    """Has one archive asked for the images of each study that has become complete.

    The first rounds go through all studies, later ones only through the new ones.
    """

    def __init__(self, archive: str, database: Database, clock: Clock) -> None:
        self._archive = archive
        self._database = database
        self._clock = clock
        self._since: datetime | None = None

    def go_round(self) -> bool:
        """Request what is missing; return whether there may be more."""
        now = self._clock()
        with self._database.reading() as session:
            studies = studies_to_ask_for(
                session, self._archive, since=self._since, at_most=_STUDIES_A_ROUND
            )
        for study_id in studies:
            with self._database.transaction() as session:
                count = request_commitment(session, study_id, self._archive, now=now)
            log.info("commitment wanted", study_id=study_id, instances=count)
        if studies:
            return True
        self._since = now - _OVERLAP
        return False
