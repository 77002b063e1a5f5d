"""How the Query/Retrieve SCP joins the receiver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import structlog
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE
from sqlalchemy.exc import SQLAlchemyError

from triage.receiver.peers import peer_by_ae_title
from triage.receiver.query.find import FindProvider
from triage.receiver.query.retrieve import Retrieval
from triage.receiver.query.statuses import QueryStatus, may_ask
from triage.receiver.services import DimseService
from triage.settings import Settings
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.query import recent_transfer_syntaxes

log = structlog.get_logger(__name__)

FIND = ("1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.2.1")
MOVE = ("1.2.840.10008.5.1.4.1.2.1.2", "1.2.840.10008.5.1.4.1.2.2.2")
GET = ("1.2.840.10008.5.1.4.1.2.1.3", "1.2.840.10008.5.1.4.1.2.2.3")


def query_retrieve_services(
    settings: Settings, database: Database, files: InstanceFiles
) -> tuple[DimseService, ...]:
    """Return the Query/Retrieve SCP of the patient root and the study root models, if enabled."""
    if not settings.query.enabled:
        return ()
    find = FindProvider(settings, database)
    retrieve = RetrieveProvider(settings, database, files)
    return (
        DimseService(FIND, ((evt.EVT_C_FIND, find.handle),)),
        DimseService(
            (*MOVE, *GET),
            (
                (evt.EVT_REQUESTED, retrieve.prepare_contexts),
                (evt.EVT_ACCEPTED, retrieve.attach),
            ),
        ),
    )


class RetrieveProvider:
    """Serves C-MOVE and C-GET on the associations that negotiate them."""

    def __init__(self, settings: Settings, database: Database, files: InstanceFiles) -> None:
        self._settings = settings
        self._database = database
        self._files = files

    def prepare_contexts(self, event: Event) -> None:
        """Order the transfer syntaxes on which a C-GET will send; the first one is accepted.

        It is the one in which all recent instances of the SOP class are stored, and where they
        differ an uncompressed one, into which every instance can be converted.
        """
        request = cast(A_ASSOCIATE, event.assoc.requestor.primitive)
        contexts = request.presentation_context_definition_list
        if not any(context.abstract_syntax in GET for context in contexts):
            return
        roles = event.assoc.requestor.role_selection
        sending = [
            context
            for context in contexts
            if context.abstract_syntax in roles and len(context.transfer_syntax) > 1
        ]
        stored = self._stored({str(context.abstract_syntax) for context in sending})
        for context in sending:
            held = stored.get(str(context.abstract_syntax), set())
            wanted = next(iter(held)) if len(held) == 1 else ExplicitVRLittleEndian
            context.transfer_syntax = sorted(
                context.transfer_syntax,
                key=lambda uid: (uid != wanted, uid != ExplicitVRLittleEndian),
            )

    def _stored(self, sop_class_uids: set[str]) -> dict[str, set[str]]:
        try:
            with self._database.reading() as session:
                return recent_transfer_syntaxes(session, sop_class_uids)
        except SQLAlchemyError as error:
            log.warning("stored transfer syntaxes not known", error=type(error).__name__)
            return {}

    def attach(self, event: Event) -> None:
        """Let this provider take the C-MOVE and C-GET requests of an association."""
        association: Any = event.assoc
        if any(c.abstract_syntax in (*MOVE, *GET) for c in association.accepted_contexts):
            serve_others = association._serve_request
            association._serve_request = lambda message, context_id: self._serve(
                event.assoc, message, context_id, serve_others
            )

    def _serve(
        self,
        association: Association,
        message: Any,
        context_id: int,
        serve_others: Callable[[Any, int], None],
    ) -> None:
        context = {c.context_id: c for c in association.accepted_contexts}.get(context_id)
        is_ours = isinstance(message, (C_MOVE, C_GET)) and message.is_valid_request
        if not is_ours or context is None or context.abstract_syntax not in (*MOVE, *GET):
            serve_others(message, context_id)
            return
        association.dimse.cancel_req = {}
        retrieval = Retrieval(association, message, context, self._database, self._files)
        if not may_ask(self._settings.query, association.requestor.ae_title):
            retrieval.refuse(QueryStatus.NOT_AUTHORIZED, "this AE title may not retrieve")
            return
        try:
            retrieval.run(
                lambda ae_title: peer_by_ae_title(self._settings, ae_title),
                self._settings.receiver.ae_title,
            )
        except Exception as error:
            log.exception("retrieval broke off", error=type(error).__name__)
            association.abort()
        finally:
            association.dimse.cancel_req = {}
