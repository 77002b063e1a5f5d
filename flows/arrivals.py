"""What a worker does for a study that still arrives: its images are decoded before a run asks."""

from __future__ import annotations

import asyncio

from triage.models.ahead import DecodedAhead
from triage.models.sources import in_parallel
from triage.store.arriving import (
    ArrivingImage,
    arriving_images,
    newest_instance,
    settled_studies,
)
from triage.store.database import Database
from triage.store.files import InstanceFiles

_MOST_AT_ONCE = 64


class Arrivals:
    """Looks again and again which images came since it looked last, and decodes them."""

    def __init__(self, database: Database, files: InstanceFiles, decoded: DecodedAhead) -> None:
        self._database = database
        self._files = files
        self._decoded = decoded
        self._seen: int | None = None

    async def decode(self) -> None:
        """Decode what came, without blocking the event loop."""
        await asyncio.to_thread(self.decode_now)

    def decode_now(self) -> None:
        """Drop what is no longer of use, and decode what came; on the first call, nothing."""
        in_parallel(self._take, self._arrived())

    def _arrived(self) -> list[ArrivingImage]:
        held = self._decoded.study_ids
        with self._database.reading() as session:
            if held:
                self._decoded.forget(settled_studies(session, held))
            if self._seen is None:
                self._seen = newest_instance(session)
            images, self._seen = arriving_images(session, after=self._seen, limit=_MOST_AT_ONCE)
        return list(images)

    def _take(self, image: ArrivingImage) -> None:
        source = (image.sop_instance_uid, self._files.absolute(image.path))
        self._decoded.add(image.study_id, source)
