"""Data sets of unified procedure steps between pydicom and the DICOM JSON model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydicom.dataset import Dataset

from triage.core.workitems import UpsStatus, WorkitemError

_UTF_8 = "ISO_IR 192"
_LONGEST = 1024 * 1024


def attributes_of(source: Callable[[], Dataset]) -> dict[str, Any]:
    """Return the attributes of a request's data set, text decoded.

    Raises:
        WorkitemError: its bytes are no data set, or it is longer than a workitem may be.
    """
    try:
        dataset = source()
        dataset.decode()
        attributes = dataset.to_json_dict()
        length = len(json.dumps(attributes, allow_nan=False))
    except Exception as error:  # whatever hostile bytes make the parser raise
        text = f"the data set cannot be parsed: {type(error).__name__}"
        raise WorkitemError(UpsStatus.PROCESSING_FAILURE, text) from error
    if length > _LONGEST:
        raise WorkitemError(UpsStatus.RESOURCE_LIMITATION, "the data set is longer than 1 MiB")
    return attributes


def from_json(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a DICOM JSON object of a client, as pydicom writes them.

    Raises:
        WorkitemError: it is no data set, or longer than a workitem may be.
    """
    return attributes_of(lambda: Dataset.from_json(dict(document)))


def dataset_of(attributes: Mapping[str, Any], tags: Iterable[str] | None = None) -> Dataset:
    """Return attributes as a data set, all of them or those of `tags` alone.

    Text goes in UTF-8 where it is not ASCII.
    """
    wanted = attributes if tags is None else {t: attributes[t] for t in tags if t in attributes}
    dataset = Dataset.from_json(dict(wanted))
    if not json.dumps(wanted, ensure_ascii=False).isascii():
        dataset.SpecificCharacterSet = _UTF_8
    return dataset
