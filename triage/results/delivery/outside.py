"""What goes to destinations outside the trust boundary: without the patient's identity."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import KeyObjectSelectionDocumentStorage

from triage.core.notices import Notice
from triage.core.withdrawals import WITHDRAWAL_ROLES
from triage.deidentification.notices import deidentify_notice
from triage.deidentification.profile import Method, deidentify
from triage.deidentification.pseudonyms import DeidentificationError, Pseudonyms, site_key
from triage.results.context import MANUFACTURER
from triage.results.errors import DeliveryError
from triage.results.key_objects import without_references
from triage.settings import Destination, NoticeDestination, ObjectDestination, Settings
from triage.store.files import InstanceFiles
from triage.store.outbox import DueDelivery


@contextmanager
def leaving(
    due: DueDelivery,
    destination: ObjectDestination,
    files: InstanceFiles,
    settings: Settings,
    absent: Collection[str] = (),
) -> Iterator[DueDelivery]:
    """Give what is sent to `destination`: the object as it is, or a copy without identity.

    The copy is a file of its own, which is gone afterwards; the delivery names it by its path and
    its pseudonymous SOP Instance UID. It has UIDs that exist nowhere else, so that it may also
    leave out what its destination does not get: a key object selection does not name the objects
    in `absent`.

    Raises:
        DeliveryError: the object may not leave, or cannot be read.
    """
    if destination.deidentify == "none":
        yield due
        return
    if not due.path:
        raise DeliveryError("its file was purged by retention", is_permanent=True)
    method = _method(destination, settings)
    with tempfile.TemporaryDirectory(prefix="triage-leaving-") as folder:
        copy = Path(folder) / "object.dcm"
        try:
            dataset = dcmread(files.absolute(due.path))
            # What says that a result is withdrawn holds the words of a person.
            is_own = (
                str(dataset.get("Manufacturer", "")) == MANUFACTURER
                and due.role not in WITHDRAWAL_ROLES
            )
            if due.sop_class_uid == KeyObjectSelectionDocumentStorage:
                without_references(dataset, absent)
            deidentify(dataset, replace(method, is_own=is_own))
        except FileNotFoundError as error:
            raise DeliveryError("its file is no longer in the store", is_permanent=True) from error
        except DeidentificationError as error:
            raise DeliveryError(
                f"not sent to {destination.name}, which gets nothing that says who the patient "
                f"is: {error}",
                is_permanent=True,
            ) from error
        dataset.save_as(copy, enforce_file_format=True)
        yield replace(due, path=str(copy), sop_instance_uid=str(dataset.SOPInstanceUID))


def leaving_notice(notice: Notice, destination: NoticeDestination, settings: Settings) -> Notice:
    """Return what `destination` is told: the notice as it is, or without identity.

    Raises:
        DeliveryError: the site's secret cannot be read.
    """
    if destination.deidentify == "none":
        return notice
    return deidentify_notice(notice, _method(destination, settings))


def _method(destination: Destination, settings: Settings) -> Method:
    try:
        key = site_key(settings.data_directory)
    except DeidentificationError as error:
        raise DeliveryError(str(error), is_permanent=False) from error
    return Method(Pseudonyms(key, destination.name), frozenset(destination.retain))
