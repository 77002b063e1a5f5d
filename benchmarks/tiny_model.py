"""A model so small that its own time does not count, and studies for it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
import yaml

from triage.simulator.dicom import StudyIdentity, head_ct_series, write_series
from triage.simulator.head_ct import SimulatedHeadCT

TINY_MODEL = "tiny"

_CODE = {"value": "50960005", "scheme": "SCT", "meaning": "Hemorrhage"}


def write_tiny_model(registry: Path, marks: Path) -> None:
    """Write a MONAI bundle whose first line of code appends the present moment to `marks`."""
    folder = registry / "tiny" / "1.0.0"
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    weights = folder / "models" / "model.pt"
    torch.save({"weight": torch.ones(1, 1, 1, 1, 1), "bias": torch.zeros(1)}, weights)
    mark = f"$lambda x: (open({str(marks)!r}, 'a').write(repr(time.time()) + chr(10)), x)[1]"
    config = {
        "imports": ["$import time"],
        "network_def": {
            "_target_": "torch.nn.Conv3d",
            "in_channels": 1,
            "out_channels": 1,
            "kernel_size": 1,
        },
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                # Takes the volume from memory, where Triage runs a bundle.
                {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True},
                {"_target_": "Lambdad", "keys": "image", "func": mark},
            ],
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}],
        },
    }
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    manifest = {
        "name": TINY_MODEL,
        "version": "1.0.0",
        "title": "A model for measuring",
        "intended_use": "Benchmarks.",
        "licence": "Apache-2.0",
        "accepts": {"modalities": ["CT"]},
        "runner": {
            "kind": "monai-bundle",
            "weights": "models/model.pt",
            "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "input": {"kind": "volume"},
        },
        "findings": [
            {
                "key": "hemorrhage",
                "code": _CODE,
                "segment": {"label": 1, "type": _CODE},
                "threshold": 1.0,
            }
        ],
        "results": {"objects": ["sr"]},
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest))


def write_tiny_study(number: int, folder: Path, slices: int = 4) -> str:
    """Write a CT study of a few slices of 64 x 64 pixels of air; return its Study Instance UID."""
    volume = SimulatedHeadCT(
        hu=np.full((slices, 64, 64), -1000, np.int16),
        labels=np.zeros((slices, 64, 64), np.uint8),
        lesions=(),
        spacing_mm=(5.0, 3.0, 3.0),
    )
    identity = StudyIdentity(f"Bench{number}^Mark", f"B{number}", f"B{number}")
    datasets = head_ct_series(volume, identity, seed=f"dispatch-{number}")
    write_series(datasets, folder)
    return str(datasets[0].StudyInstanceUID)
