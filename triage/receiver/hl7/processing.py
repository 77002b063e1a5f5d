"""One message after another: understood, applied and kept in one transaction, then answered."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from triage.core.errors import TriageError
from triage.core.orders import PatientMerge
from triage.hl7.acknowledgement import acknowledge
from triage.hl7.errors import ErrorCode, Hl7Error, Place
from triage.hl7.message import Message, parse_message
from triage.receiver.hl7.reading import read_merges, read_orders, read_update
from triage.settings import Hl7Destination, Settings
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.hl7_messages import ReceivedMessage, find_same, keep_message
from triage.store.order_tables import Hl7MessageRow, MessageState
from triage.store.orders import keep_order
from triage.store.patients import merge_patients, update_patient

log = structlog.get_logger(__name__)

_ORDERS = frozenset({("ORM", "O01"), ("OMI", "O23"), ("OMG", "O19")})
_UPDATES = frozenset({("ADT", event) for event in ("A01", "A02", "A04", "A05", "A08", "A31")})
_MERGE = ("ADT", "A40")
_KNOWN_TYPES = frozenset({"ORM", "OMI", "OMG", "ADT"})


class UnknownMessageError(TriageError):
    """There is no such message, or none that could be processed again."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a message."""

    state: MessageState
    said: str
    error: Hl7Error | None = None


class Hl7Intake:
    """Takes messages: what is answered with AA is applied and durable."""

    def __init__(self, settings: Settings, database: Database, clock: Clock) -> None:
        self._settings = settings.hl7
        self._corrected_at = tuple(
            d.name
            for d in settings.destinations
            if isinstance(d, Hl7Destination) and "oru" in d.messages
        )
        self._database = database
        self._clock = clock

    def take(self, content: bytes, address: str) -> bytes:
        """Return the acknowledgement of a message, without its frame."""
        message, error = self._parsed(content)
        received = ReceivedMessage(content, address, self._clock())
        if message is not None:
            received = replace(
                received,
                sender=message.sender,
                control_id=message.control_id,
                message_type=f"{message.message_type}^{message.trigger_event}",
            )
        outcome = _refused(error) if error else self._applied(received, message)
        if outcome.state is MessageState.REFUSED:
            outcome = self._keep(received, outcome)
        self._say(received, outcome)
        return acknowledge(
            message,
            control_id=uuid.uuid4().hex[:20].upper(),
            at=received.received_at,
            error=outcome.error,
            application=self._settings.application,
        )

    def take_again(self, message_id: int) -> str:
        """Process a message that was refused once more, and return what became of it.

        Raises:
            UnknownMessageError: there is no such message, or it is done.
        """
        with self._database.reading() as session:
            row = session.get(Hl7MessageRow, message_id)
        if row is None or row.state is MessageState.DONE:
            raise UnknownMessageError(f"there is no refused message {message_id}")
        message, error = self._parsed(row.content)
        received = ReceivedMessage(
            row.content, row.address, row.received_at, row.sender, row.control_id, row.message_type
        )
        outcome = _refused(error) if error else self._applied(received, message)
        if outcome.state is MessageState.REFUSED:
            outcome = self._keep(received, outcome)
        self._say(received, outcome)
        return outcome.said

    def _parsed(self, content: bytes) -> tuple[Message | None, Hl7Error | None]:
        try:
            return parse_message(content, default_character_set=self._settings.character_set), None
        except Hl7Error as error:
            return None, error
        except Exception as error:  # noqa: BLE001 - whatever a stranger's bytes do to the parser
            log.warning("hl7.unreadable", error=type(error).__name__)
            return None, Hl7Error(
                "the message cannot be read",
                Place("MSH"),
                ErrorCode.SEGMENT_SEQUENCE,
                is_rejected=True,
            )

    def _applied(self, received: ReceivedMessage, message: Message | None) -> _Outcome:
        """Apply and keep the message in one transaction, or leave everything as it was."""
        assert message is not None
        try:
            with self._database.transaction() as session:
                same = find_same(session, received)
                if same is not None and same.state is MessageState.DONE:
                    return _Outcome(MessageState.DONE, "came again; it was done before")
                self._check_header(message)
                work = self._work_of(message)
                if work is None:
                    outcome = _Outcome(MessageState.IGNORED, "of no concern here")
                else:
                    said = work(session, received.received_at)
                    outcome = _Outcome(MessageState.DONE, said)
                keep_message(session, received, outcome.state, outcome.said, now=self._clock())
                return outcome
        except Hl7Error as error:
            return _refused(error)
        except SQLAlchemyError as error:
            log.error("hl7.database", error=type(error).__name__)
            return _refused(_internal("the database did not take it; send it again"))
        except Exception as error:
            log.exception("hl7.failed", error=type(error).__name__)
            return _refused(_internal("it could not be applied; see the log of the receiver"))

    def _keep(self, received: ReceivedMessage, outcome: _Outcome) -> _Outcome:
        try:
            with self._database.transaction() as session:
                same = find_same(session, received)
                if same is None or same.state is not MessageState.DONE:
                    keep_message(session, received, outcome.state, outcome.said, now=self._clock())
        except SQLAlchemyError as error:
            log.error("hl7.database", error=type(error).__name__)
            return _refused(_internal("the database does not answer; send it again"))
        return outcome

    def _check_header(self, message: Message) -> None:
        header = message.header
        header.required(10, "the message control id")
        header.required(9, "the message type")
        version = header.text(12)
        if not version.startswith("2."):
            raise _rejected(
                "versions 2.x are read", header.place(12), ErrorCode.UNSUPPORTED_VERSION
            )
        if header.text(11).upper() not in self._settings.processing_ids:
            raise _rejected(
                f"of processing ids, {', '.join(self._settings.processing_ids)} is taken "
                "(hl7.processing_ids)",
                header.place(11),
                ErrorCode.UNSUPPORTED_PROCESSING_ID,
            )
        allowed = self._settings.allowed_applications
        if allowed and header.text(3) not in allowed:
            raise _rejected(
                "this application may not send here (hl7.allowed_applications)",
                header.place(3),
                ErrorCode.TABLE_VALUE,
            )

    def _work_of(self, message: Message) -> Callable[[Session, datetime], str] | None:
        """Return what is to be done, or None where the message is of no concern here."""
        kind = (message.message_type, message.trigger_event)
        if kind in _ORDERS:
            return lambda session, at: self._keep_orders(session, message, at)
        authority = self._settings.assigning_authority
        if kind in _UPDATES:
            update = read_update(message)
            return lambda session, at: update_patient(
                session, update, assigning_authority=authority, now=at
            )
        if kind == _MERGE:
            merges = read_merges(message)
            return lambda session, at: self._merge(session, merges, at)
        if self._settings.other_messages == "ignore":
            return None
        is_event = message.message_type in _KNOWN_TYPES
        raise _rejected(
            "taken are ORM^O01, OMI^O23, OMG^O19 and ADT^A01, A02, A04, A05, A08, A31, A40 "
            "(hl7.other_messages)",
            message.header.place(9),
            ErrorCode.UNSUPPORTED_EVENT if is_event else ErrorCode.UNSUPPORTED_TYPE,
        )

    def _merge(self, session: Session, merges: Sequence[PatientMerge], at: datetime) -> str:
        """Merge all or, as one transaction with the message, none."""
        authority = self._settings.assigning_authority
        said = [
            merge_patients(
                session,
                merge,
                assigning_authority=authority,
                corrected_at=self._corrected_at,
                now=at,
            )
            for merge in merges
        ]
        return "; ".join(said)

    def _keep_orders(self, session: Session, message: Message, at: datetime) -> str:
        orders = read_orders(message, self._settings, received_at=at)
        said = [keep_order(session, order, now=at) for order in orders]
        return "; ".join(dict.fromkeys(said))

    def _say(self, received: ReceivedMessage, outcome: _Outcome) -> None:
        place = str(outcome.error.place) if outcome.error else ""
        say = log.warning if outcome.error else log.info
        say(
            f"hl7.{outcome.state}",
            type=received.message_type,
            control_id=received.control_id,
            place=place,
        )


def _refused(error: Hl7Error) -> _Outcome:
    return _Outcome(MessageState.REFUSED, str(error), error)


def _internal(words: str) -> Hl7Error:
    return Hl7Error(words, Place("MSH"), ErrorCode.INTERNAL)


def _rejected(words: str, place: Place, code: ErrorCode) -> Hl7Error:
    return Hl7Error(words, place, code, is_rejected=True)
