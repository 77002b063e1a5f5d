"""Result objects on their way to an archive over HTTP: STOW-RS (DICOM PS3.18 10.5)."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import structlog

from triage.results.delivery.over_http import Answer, ask, refusal
from triage.results.delivery.statuses import in_words
from triage.results.errors import DeliveryError
from triage.settings import StowDestination
from triage.store.files import InstanceFiles
from triage.store.outbox import DueDelivery

log = structlog.get_logger()

_FAILED_SOP_SEQUENCE = "00081198"
_OTHER_FAILURES_SEQUENCE = "0008119A"
_REFERENCED_SOP_SEQUENCE = "00081199"
_FAILURE_REASON = "00081197"
_WARNING_REASON = "00081196"
_DUPLICATES = frozenset({0x0111, 0xB00E})  # the second is what Microsoft's DICOM service says
_PROCESSING_FAILURE = 0x0110
_OK, _ACCEPTED, _CONFLICT = 200, 202, 409
_CHUNK_BYTES = 256 * 1024
_NO_STUDY = "2.25.0"  # nobody's: the question is what matters
_DICOM_JSON = "application/dicom+json"


def store(due: DueDelivery, destination: StowDestination, files: InstanceFiles) -> None:
    """Send one object to `destination` and return once it was taken, see `store_file`."""
    if not due.path:
        raise DeliveryError("its file was purged by retention", is_permanent=True)
    store_file(files.absolute(due.path), destination)


def store_file(path: Path, destination: StowDestination) -> None:
    """Send the instance in a file to `destination` and return once it was taken.

    One instance for each request, byte for byte as its file is, which is never whole in memory. A
    warning means that it is stored (PS3.18 I.2.2), a duplicate that it was stored before.

    Raises:
        DeliveryError: the destination did not take it; the message says why. HTTP 401 and 403,
            and whatever else is about configurations and not about the object, is not permanent.
    """
    boundary = uuid.uuid4().hex
    with _opened(path) as file:
        before, after = _frame(boundary)
        size = len(before) + os.fstat(file.fileno()).st_size + len(after)
        answer = ask(
            destination,
            "POST",
            f"{destination.url.rstrip('/')}/studies",
            headers={
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                "Content-Length": str(size),
                "Accept": _DICOM_JSON,
            },
            content=_streamed(before, file, after),
        )
    _check(answer, destination)


def reach(destination: StowDestination) -> str:
    """Ask it for the study that nobody has (QIDO-RS, PS3.18 10.6), and return what it says.

    Raises:
        DeliveryError: it does not answer, or does not know us.
    """
    url = f"{destination.url.rstrip('/')}/studies?StudyInstanceUID={_NO_STUDY}&limit=1"
    answer = ask(destination, "GET", url, headers={"Accept": _DICOM_JSON})
    if answer.status in (401, 403, 404, 407) or answer.status >= 500:
        raise refusal(destination, answer)
    return f"answers at {destination.url}"


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise DeliveryError("its file is no longer in the store", is_permanent=True) from error
    except OSError as error:
        raise DeliveryError(f"its file cannot be read: {error}", is_permanent=False) from error


def _frame(boundary: str) -> tuple[bytes, bytes]:
    before = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n"
    return before.encode(), f"\r\n--{boundary}--\r\n".encode()


def _streamed(before: bytes, file: BinaryIO, after: bytes) -> Iterator[bytes]:
    yield before
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
    yield after


def _check(answer: Answer, destination: StowDestination) -> None:
    """Raise unless `answer` says that the object is stored (PS3.18 table 10.5.3-1)."""
    reasons = _failure_reasons(answer)
    if reasons and all(reason in _DUPLICATES for reason in reasons):
        return
    failures = [reason for reason in reasons if reason not in _DUPLICATES]
    if failures and answer.status in (_OK, _ACCEPTED, 400, _CONFLICT):
        words, is_permanent = in_words(failures[0])
        raise DeliveryError(
            f"{destination.name} answered HTTP {answer.status}, Failure Reason "
            f"0x{failures[0]:04X}: {words}",
            is_permanent=is_permanent,
        )
    if not answer.is_success:
        raise refusal(destination, answer)
    if answer.status == _ACCEPTED and not _content(answer):
        raise DeliveryError(
            f"{destination.name} answered HTTP 202, and not what became of the object",
            is_permanent=False,
        )
    for item in _items(answer, _REFERENCED_SOP_SEQUENCE):
        if warning := _number(item, _WARNING_REASON):
            # Stored, but not as sent: it may have coerced the Patient ID, for example.
            log.warning("stow.warning", destination=destination.name, reason=f"0x{warning:04X}")


def _failure_reasons(answer: Answer) -> list[int]:
    """Return the Failure Reasons (0008,1197) of the answer, 0x0110 where one says none."""
    failed = (*_items(answer, _FAILED_SOP_SEQUENCE), *_items(answer, _OTHER_FAILURES_SEQUENCE))
    return [_number(item, _FAILURE_REASON) or _PROCESSING_FAILURE for item in failed]


def _items(answer: Answer, tag: str) -> list[Any]:
    element = _content(answer).get(tag)
    items = element.get("Value") if isinstance(element, dict) else None
    return items if isinstance(items, list) else []


def _number(item: Any, tag: str) -> int | None:
    try:
        return int(item[tag]["Value"][0])
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _content(answer: Answer) -> dict[str, Any]:
    """Return the Store Instances Response Module (PS3.18 I.2), empty where it cannot be read."""
    try:
        content = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    return content if isinstance(content, dict) else {}
