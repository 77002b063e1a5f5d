"""A bundle's published configuration, turned to images in memory without a change to its files."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import torch
from monai import transforms
from monai.bundle.config_parser import ConfigParser
from monai.networks import nets

from triage.models.packages import BUNDLE_CONFIGS, ModelPackage
from triage.models.predictions import RunnerError

_LOADERS = frozenset({"LoadImaged", "LoadImageD", "LoadImageDict"})
_IN_MEMORY = "triage.models.runners.bundle_images.InMemoryImaged"
# Arguments of older MONAI versions, which published bundles still give and which do nothing more:
# meta dictionaries became part of the tensor, and SwinUNETR takes any size.
_RETIRED = frozenset({"meta_key_postfix", "meta_keys", "img_size"})
_REQUIREMENTS = "triage_requirements"


def read_bundle(package: ModelPackage, device: torch.device) -> ConfigParser:
    """Return the parser of a bundle's inference configuration.

    What loads files is replaced by what takes images from memory, what saves files is disabled,
    and the manifest's overrides are applied. Nothing is instantiated yet.

    Raises:
        RunnerError: there is no configuration, or it lacks what is needed; names the key.
    """
    path = config_path(package)
    parser = ConfigParser()
    parser.read_config(path)
    metadata = package.path / "configs" / "metadata.json"
    if metadata.is_file():
        parser.read_meta(metadata)
    # A bundle's own modules are imported as `scripts.…`, relative to its folder.
    sys.path.insert(0, str(package.path))
    parser["bundle_root"] = str(package.path)
    parser["device"] = device
    for key, value in package.manifest.runner.overrides.items():
        if key not in parser:
            raise RunnerError(
                f"runner.overrides: {path.name} has no {key}; correct its path (parts are joined "
                "by #)"
            )
        parser[key] = value
    for key in ("network_def", "inferer", "preprocessing", "postprocessing"):
        if key not in parser:
            raise RunnerError(
                f"{path}: the key {key} is required; name the bundle's inference configuration "
                "in runner.config if it is another file"
            )
    _turn_to_memory(parser.config)
    # What an evaluator wants done before it runs, such as a detector's settings.
    parser[_REQUIREMENTS] = _requirements(parser.config)
    return parser


def config_path(package: ModelPackage) -> Path:
    """Return the inference configuration that the manifest names, or the usual one.

    Raises:
        RunnerError: there is none.
    """
    named = package.manifest.runner.config
    for candidate in (named,) if named else BUNDLE_CONFIGS:
        if (package.path / candidate).is_file():
            return package.path / candidate
    raise RunnerError(
        f"{package.path}: there is no {named or ' or '.join(BUNDLE_CONFIGS)}, which a "
        "monai-bundle needs"
    )


def fulfil_requirements(parser: ConfigParser) -> None:
    """Do what the bundle's evaluator requires to be done before it runs."""
    parser.get_parsed_content(_REQUIREMENTS)


def asked_channels(parser: ConfigParser) -> int | None:
    """Return how many channels `metadata.json` says that the network takes."""
    try:
        return int(parser["_meta_#network_data_format#inputs#image#num_channels"])
    except (KeyError, TypeError, ValueError):
        return None


def _requirements(config: Any) -> Any:
    evaluator = config.get("evaluator")
    return evaluator.get("_requires_", []) if isinstance(evaluator, dict) else []


def _turn_to_memory(part: Any) -> None:
    """Change every transform below `part` that is about files."""
    if isinstance(part, dict):
        name = str(part.get("_target_", "")).rpartition(".")[2]
        if name in _LOADERS:
            kept = {k: part[k] for k in ("keys", "ensure_channel_first", "_disabled_") if k in part}
            part.clear()
            part |= {"_target_": _IN_MEMORY, **kept}
        elif name.startswith("Save"):
            part["_disabled_"] = True
        else:
            _drop_retired(part, name)
    children = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for child in children:
        _turn_to_memory(child)


def _drop_retired(part: dict[str, Any], name: str) -> None:
    component = getattr(transforms, name, None) or getattr(nets, name, None)
    if component is None:
        return
    known = inspect.signature(component).parameters
    for argument in _RETIRED.intersection(part).difference(known):
        del part[argument]
