"""The messages that docs/hl7.md shows, made by the code: run as a program, this writes them."""

from __future__ import annotations

import os
import re
import time

from tests.hl7.messages import merge, orm
from tests.results.hl7.samples import (
    AT,
    CORRECTION,
    PRIORITY,
    RESULT,
    WITHDRAWAL,
    destination,
)
from tests.tools import PROJECT
from triage.hl7.acknowledgement import acknowledge
from triage.hl7.errors import Hl7Error
from triage.hl7.message import parse_message
from triage.receiver.hl7.reading import read_orders
from triage.results.hl7.messages import OutgoingMessage, message_of
from triage.settings import Hl7Settings

PAGE = PROJECT / "docs" / "hl7.md"
_EXAMPLE = re.compile(r"<!-- example: ([\w.-]+) -->\n```text\n.*?```", re.DOTALL)

_ALMOST_AS_RESULT = frozenset({"result-2.3.1", "correction", "withdrawal"})
_SHOWN = 8


def examples() -> dict[str, str]:
    """Return each example by its name, as lines."""
    old = destination(version="2.3.1")
    omi = destination(messages=["oru", "omi"])
    sent = {
        "result": message_of(RESULT, destination()),
        "result-2.3.1": message_of(RESULT, old),
        "correction": message_of(CORRECTION, destination()),
        "withdrawal": message_of(WITHDRAWAL, destination()),
        "priority-orm": message_of(PRIORITY, destination()),
        "priority-omi": message_of(PRIORITY, omi),
    }
    without_patient = orm(pid="PID|1")
    taken = {
        "order": orm("S"),
        "merge": merge(control_id="2"),
        "accepted": _answer(orm("S")),
        "refused": _answer(without_patient, refusal_of(without_patient)),
    }
    shown = {
        name: _differing(one, sent["result"]) if name in _ALMOST_AS_RESULT else one.segments
        for name, one in sent.items()
    }
    return {
        **{name: "\n".join(lines) for name, lines in shown.items()},
        **{name: "\n".join(one.decode().split("\r")[:-1]) for name, one in taken.items()},
    }


def _differing(message: OutgoingMessage, usual: OutgoingMessage) -> list[str]:
    """Return the first segments that are not as in `usual`."""
    differing = [one for one in message.segments if one not in usual.segments]
    return [*differing[:_SHOWN], "…"]


def _answer(content: bytes, error: Hl7Error | None = None) -> bytes:
    return acknowledge(parse_message(content), control_id="4711", at=AT, error=error)


def refusal_of(content: bytes) -> Hl7Error:
    """Return why an order is refused."""
    try:
        read_orders(parse_message(content), Hl7Settings(), received_at=AT)
    except Hl7Error as error:
        return error
    raise AssertionError("the order was taken")


def with_examples(page: str) -> str:
    """Return the page with every example as the code makes it.

    Raises:
        KeyError: the page names an example that there is not.
    """
    made = examples()
    return _EXAMPLE.sub(
        lambda found: f"<!-- example: {found[1]} -->\n```text\n{made[found[1]]}\n```", page
    )


def names_in(page: str) -> set[str]:
    """Return the examples that a page shows."""
    return {found[1] for found in _EXAMPLE.finditer(page)}


if __name__ == "__main__":
    os.environ["TZ"] = "UTC"
    time.tzset()
    PAGE.write_text(with_examples(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
