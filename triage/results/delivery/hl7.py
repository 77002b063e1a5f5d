"""Notices on their way to an HL7 v2 system: sent over MLLP, and answered (HL7 v2.5.1 2.9)."""

from __future__ import annotations

import threading
import time

from triage.core.notices import Notice
from triage.hl7.acknowledgement import (
    REFUSED_FOR_GOOD,
    TAKEN,
    Acknowledgement,
    read_acknowledgement,
)
from triage.hl7.errors import Hl7Error
from triage.hl7.mllp import MllpConnection, MllpError
from triage.results.errors import DeliveryError
from triage.results.hl7.messages import OutgoingMessage, message_of
from triage.results.hl7.templates import TemplateError
from triage.settings import Hl7Destination


class OpenConnections:
    """Connections that are kept between two messages, one for each destination at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Hl7Destination, MllpConnection] = {}

    def take(self, destination: Hl7Destination) -> MllpConnection | None:
        """Return the connection to a destination, which is then the caller's, if there is one."""
        with self._lock:
            return self._kept.pop(destination, None)

    def put(self, destination: Hl7Destination, connection: MllpConnection) -> None:
        """Keep a connection for the next message."""
        with self._lock:
            before = self._kept.pop(destination, None)
            self._kept[destination] = connection
        if before is not None:
            before.close()

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            kept, self._kept = list(self._kept.values()), {}
        for connection in kept:
            connection.close()


CONNECTIONS = OpenConnections()
"""Those of this process; the destination's settings are their key, so changed ones connect anew."""


def tell(notice: Notice, destination: Hl7Destination) -> None:
    """Send one notice and return once it was taken.

    Raises:
        DeliveryError: the destination did not take it; the message says why. AR and CR are
            permanent: the same message would be refused again. So are AE and CE where
            `retry_errors` is off.
    """
    try:
        message = message_of(notice, destination)
    except (TemplateError, ValueError) as error:
        raise DeliveryError(f"{destination.name}: {error}", is_permanent=True) from error
    try:
        answer = _exchange(message, destination)
    except MllpError as error:
        raise DeliveryError(str(error), is_permanent=False) from error
    if answer.code in TAKEN:
        return
    said = f", saying {answer.text!r}" if answer.text else ""
    is_permanent = answer.code in REFUSED_FOR_GOOD or not destination.retry_errors
    raise DeliveryError(
        f"{destination.name} answered {answer.code}{said}", is_permanent=is_permanent
    )


def _exchange(message: OutgoingMessage, destination: Hl7Destination) -> Acknowledgement:
    """Send and return the answer. A kept connection that the peer had closed is made anew once.

    The control id is the same then: a peer that had taken the message recognizes it.
    """
    kept = CONNECTIONS.take(destination)
    if kept is not None:
        try:
            return _ask(kept, message, destination)
        except MllpError as error:
            if not error.is_stale:
                raise
    connection = MllpConnection(
        destination,
        port=destination.port,
        name=destination.name,
        timeout_s=destination.timeout_s,
    )
    return _ask(connection, message, destination)


def _ask(
    connection: MllpConnection, message: OutgoingMessage, destination: Hl7Destination
) -> Acknowledgement:
    """Send on a connection; it is kept where the answer came and the settings say so."""
    is_kept = False
    try:
        deadline = time.monotonic() + destination.timeout_s
        connection.send(message.content)
        answer = _answer_to(connection, message, destination, deadline)
        is_kept = destination.connection == "persistent"
        return answer
    finally:
        if is_kept:
            CONNECTIONS.put(destination, connection)
        else:
            connection.close()


def _answer_to(
    connection: MllpConnection,
    message: OutgoingMessage,
    destination: Hl7Destination,
    deadline: float,
) -> Acknowledgement:
    """Return the acknowledgement that names our message; others may be late ones to earlier ones.

    Raises:
        MllpError: none came in time, or what came is none.
    """
    others: list[str] = []
    while True:
        try:
            answer = read_acknowledgement(connection.receive(deadline))
        except Hl7Error as error:
            raise MllpError(
                f"{destination.name} answered with no acknowledgement: {error}"
            ) from None
        except MllpError as error:
            if not others:
                raise
            raise MllpError(
                f"{destination.name} acknowledged {others[0]!r} (MSA-2), not {message.control_id!r}"
            ) from error
        if answer.control_id == message.control_id:
            return answer
        others.append(answer.control_id[:32])
