"""Notices as signed JSON by POST, after the Standard Webhooks specification, version 1."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from standardwebhooks import Webhook

from triage.core.notices import Notice
from triage.results.delivery.over_http import Answer, ask, refusal
from triage.results.delivery.redaction import without_patient
from triage.results.delivery.webhook_message import message_of
from triage.results.errors import DeliveryError
from triage.settings import WebhookDestination
from triage.store.clock import Clock, system_clock
from triage.tls import TlsError, failure_in_words, web_context


def post(
    notice: Notice, destination: WebhookDestination, link: str, clock: Clock = system_clock
) -> None:
    """Send one notice and return once it was taken with a status of 2xx.

    `webhook-id` is the notice's own identity, so whoever gets it twice can tell.
    `webhook-signature` is the HMAC-SHA256 of identity, time and body.

    Raises:
        DeliveryError: the destination did not take it; the message says why.
    """
    said = notice if destination.patient_data else without_patient(notice)
    body = message_of(said, link).model_dump_json()
    post_signed(destination, notice.notice_id, body, clock)


def post_signed(
    destination: WebhookDestination, identity: str, body: str, clock: Clock = system_clock
) -> Answer:
    """Send JSON, signed, and return the answer once it was taken with a status of 2xx.

    Raises:
        DeliveryError: the destination did not take it; the message says why.
    """
    now = clock()
    signature = Webhook(destination.signing_key).sign(identity, now, body)
    answer = ask(
        destination,
        "POST",
        destination.url,
        headers={
            "Content-Type": "application/json",
            "webhook-id": identity,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signature,
        },
        content=body.encode(),
    )
    if not answer.is_success:
        raise refusal(destination, answer)
    return answer


def reach(destination: WebhookDestination) -> str:
    """Open a connection, over TLS where the address says so, and ask for nothing.

    A webhook has no question without an effect.

    Raises:
        DeliveryError: the name is not known, nobody listens, or the certificate is not accepted.
    """
    place = urlsplit(destination.url)
    host = place.hostname or ""
    port = place.port or (443 if place.scheme == "https" else 80)
    try:
        with socket.create_connection((host, port), timeout=destination.timeout_s) as connection:
            if place.scheme == "https":
                context = web_context(destination.authorities, destination.own_tls)
                with context.wrap_socket(connection, server_hostname=host) as secured:
                    return f"{secured.version()} on {host}:{port}; it was not called"
    except (TlsError, OSError) as error:
        why = failure_in_words(error) if isinstance(error, OSError) else str(error)
        raise DeliveryError(
            f"{destination.name} ({host}:{port}) cannot be reached: {why}", is_permanent=False
        ) from error
    return f"{host}:{port} listens; it was not called"
