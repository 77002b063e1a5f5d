"""Who sent what of a study, as pages say it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from triage.core.visits import Ending
from triage.store.arrivals import ASSOCIATION_IS_DEAD_AFTER
from triage.store.tables import OpenAssociationRow, StudyRow
from triage.store.visit_tables import VisitRow
from triage.store.visits import visits_of

WAYS = {
    "dicom": "DICOM",
    "dicom-tls": "DICOM over TLS",
    "stow": "STOW-RS",
    "pull": "pulled",
    "priors": "pulled as a prior",
    "folder": "watched folder",
}
_ENDINGS = {
    Ending.OPEN: "still open",
    Ending.RELEASED: "",
    Ending.ABORTED: "aborted",
    Ending.BROKEN: "connection lost",
}


@dataclass(frozen=True, slots=True)
class SeenVisit:
    """A visit, with how it ended as far as is known now."""

    row: VisitRow
    ending: Ending

    @property
    def sender(self) -> str:
        """Who sent, by which way, from where."""
        where = f" from {self.row.address}" if self.row.address else ""
        title = self.row.calling_ae_title or "unnamed sender"
        return f"{title}, {WAYS[self.row.way]}{where}"

    @property
    def words(self) -> str:
        """How much came, and what went wrong."""
        row = self.row
        said = [f"{row.instances} images, {row.size_bytes / 1e6:.1f} MB"]
        if row.associations > 1:
            said.append(f"{row.associations} associations")
        if row.refused:
            said.append(f"{row.refused} refused, the last with {row.last_error}")
        said.append(_ENDINGS[self.ending])
        return "; ".join(filter(None, said))


def seen_visits(session: Session, study: StudyRow, now: datetime) -> list[SeenVisit]:
    """Return the visits; one that a killed receiver has left open is broken off."""
    is_held_open = exists().where(
        OpenAssociationRow.study_id == study.id,
        OpenAssociationRow.alive_at >= now - ASSOCIATION_IS_DEAD_AFTER,
    )
    is_open = session.scalars(select(is_held_open)).one()
    visits = []
    for row in visits_of(session, study.id):
        ending = Ending(row.ended)
        if ending is Ending.OPEN and not is_open:
            ending = Ending.BROKEN
        visits.append(SeenVisit(row, ending))
    return visits
