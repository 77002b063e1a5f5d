"""What a MONAI bundle says of itself in `configs/metadata.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triage.models.model_files import ScaffoldError

METADATA = "configs/metadata.json"
"""The file of a bundle that says what it is."""

_CONFIGS = ("inference.json", "inference.yaml", "inference.yml")
_WEIGHTS = ("models/model.pt", "models/model.ts", "models/model.pth")
_BACKGROUND = ("background", "bg")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle's folder, and what its metadata say, as far as they do.

    Attributes:
        folder: the bundle.
        config: path of its inference configuration in it.
        weights: path of its weights in it.
        title, version, intended_use, authors: as the metadata have them, or empty.
        modality: Modality of its input, or empty.
        labels: the names of the labels of its segmentation by their numbers.
    """

    folder: Path
    config: str
    weights: str
    title: str
    version: str
    intended_use: str
    authors: str
    modality: str
    labels: Mapping[int, str]


def read_bundle(folder: Path) -> Bundle:
    """Return what the bundle in `folder` says of itself (MONAI bundle specification 0.6).

    Raises:
        ScaffoldError: it has no metadata, no inference configuration or no weights.
    """
    source = folder / METADATA
    try:
        metadata = json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ScaffoldError(
            f"{source}: there is no such file; give the folder of a MONAI bundle, or the file of "
            "a network"
        ) from None
    except ValueError as error:
        raise ScaffoldError(f"{source}: not valid JSON: {error}") from None
    formats = metadata.get("network_data_format") or {}
    first_input = _first(formats.get("inputs"))
    return Bundle(
        folder=folder,
        config=f"configs/{_first_file(folder / 'configs', _CONFIGS, 'an inference configuration')}",
        weights=_first_file(folder, _WEIGHTS, "weights (its large_files.yml says from where)"),
        title=str(metadata.get("name") or metadata.get("task") or ""),
        version=str(metadata.get("version") or ""),
        intended_use=str(metadata.get("intended_use") or ""),
        authors=str(metadata.get("authors") or ""),
        modality=str(first_input.get("modality") or "").upper(),
        labels=_labels(_first(formats.get("outputs"))),
    )


def _first_file(folder: Path, names: tuple[str, ...], what: str) -> str:
    for name in names:
        if (folder / name).is_file():
            return name
    raise ScaffoldError(f"{folder}: there are no {what}: looked for {', '.join(names)}")


def _first(entries: Any) -> dict[str, Any]:
    """Return the first of the inputs or outputs, empty where there is none."""
    found: Any = next(iter(entries.values()), None) if isinstance(entries, dict) else None
    return dict(found) if isinstance(found, dict) else {}


def _labels(output: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of the labels; a single channel that is named 0 is label 1."""
    names = output.get("channel_def") or {}
    numbered = {int(k): str(v) for k, v in names.items() if str(k).isdigit()}
    if len(numbered) == 1:
        return {1: next(iter(numbered.values()))}
    return {k: v for k, v in sorted(numbered.items()) if k and v.lower() not in _BACKGROUND}
