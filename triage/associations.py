"""Associations that Triage opens towards other application entities (DICOM PS3.7 annex D)."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from triage.core.errors import TriageError
from triage.pausing import lose_no_answer
from triage.tls import ClientContext, TlsError, TlsPeer, client_context, failure_in_words


class Peer(TlsPeer, Protocol):
    """An application entity at an address, as the settings name it."""

    @property
    def name(self) -> str: ...
    @property
    def ae_title(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def timeout_s(self) -> float: ...


class AssociationError(TriageError):
    """No association came about; the message names the peer and says why.

    Attributes:
        no_context: the peer was there, and accepted none of the presentation contexts.
    """

    def __init__(self, message: str, *, no_context: bool = False) -> None:
        super().__init__(message)
        self.no_context = no_context


@contextmanager
def associate(
    peer: Peer,
    contexts: Sequence[PresentationContext],
    *,
    calling_ae_title: str,
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    handlers: Sequence[Any] = (),
) -> Iterator[Association]:
    """Give an established association with `peer`; release it at the end, abort it on an error.

    Args:
        peer: whom to call; `peer.timeout_s` bounds connecting and each answer.
        contexts: the presentation contexts to propose.
        calling_ae_title: our own AE title.
        roles: role selection, for C-GET (PS3.7 D.3.3.4).
        handlers: pynetdicom's (event, handler[, arguments]), for what the peer asks of us.

    Raises:
        AssociationError: the peer cannot be reached, refuses, or accepts no context.
    """
    entity = AE(ae_title=calling_ae_title)
    entity.connection_timeout = peer.timeout_s
    entity.acse_timeout = peer.timeout_s
    entity.dimse_timeout = peer.timeout_s
    entity.network_timeout = peer.timeout_s
    connected: list[evt.Event] = []
    security = _security(peer)
    association = entity.associate(
        peer.host,
        peer.port,
        contexts=list(contexts),
        ae_title=peer.ae_title,
        ext_neg=list(roles),
        tls_args=(security, peer.tls_name or peer.host) if security is not None else None,
        evt_handlers=[(evt.EVT_CONN_OPEN, _on_connected, [connected, peer.timeout_s]), *handlers],
    )
    if not association.is_established:
        failure = security.failure if security is not None else None
        error = _why_not_established(
            association, peer, is_connected=bool(connected), tls_failure=failure
        )
        _end(association)
        raise error
    lose_no_answer(association)
    try:
        yield association
    except BaseException:
        if association.is_established:
            association.abort()
        raise
    # An abort that has come is seen by the association's thread first: no release is answered then.
    association._reactor_checkpoint.clear()
    _end(association)


def _security(peer: Peer) -> ClientContext | None:
    if not peer.tls:
        return None
    try:
        return client_context(peer)
    except TlsError as error:
        raise AssociationError(f"{peer.name} cannot be called over TLS: {error}") from error


def _on_connected(event: evt.Event, connected: list[evt.Event], timeout_s: float) -> None:
    connected.append(event)
    # Small PDUs would wait for the peer's delayed acknowledgement (Nagle's algorithm).
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Over TLS, what select() announces need not be data (a session ticket, say): a read for it
        # would wait without an end for a peer that says nothing more.
        transport.socket.settimeout(timeout_s)


def _why_not_established(
    association: Association, peer: Peer, *, is_connected: bool, tls_failure: OSError | None
) -> AssociationError:
    where = f"{peer.name} ({peer.ae_title} at {peer.host}:{peer.port})"
    if association.rejected_contexts and not association.accepted_contexts:
        return AssociationError(
            f"{where} accepts none of the proposed presentation contexts", no_context=True
        )
    if association.is_rejected:
        answer: Any = association.acceptor.primitive
        if answer is None:
            return AssociationError(f"{where} refused the association")
        return AssociationError(
            f"{where} refused the association: {answer.reason_str} "
            f"({answer.result_str}, {answer.source_str})"
        )
    if tls_failure is not None:
        return AssociationError(f"{where} refused TLS: {failure_in_words(tls_failure)}")
    if is_connected and peer.tls:
        return AssociationError(
            f"{where} did not answer the association request over TLS, or ended the connection; "
            "it may not accept our certificate"
        )
    if is_connected:
        return AssociationError(f"{where} did not answer the association request, or aborted it")
    return AssociationError(f"{where} cannot be reached")


def _end(association: Association) -> None:
    if association.is_established:
        association.release()
    elif not (association.is_released or association.is_aborted or association.is_rejected):
        association.abort()
