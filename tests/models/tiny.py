"""Tiny model packages whose answer is known, and small series of images for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from triage.models.packages import ModelPackage, load_package

LESION_FROM_HU = 100.0
"""The tiny segmentation marks every voxel above this."""

CRASH_HU, KILL_HU, HANG_HU, NAN_HU, FULL_HU = 2001.0, 2002.0, 2003.0, 2004.0, 2005.0
STUCK_HU, FLOOD_HU, JUNK_HU, LEAK_HU, LARGE_HU = 2006.0, 2007.0, 2008.0, 2009.0, 2010.0
"""A volume with this greatest value makes the tiny segmentation misbehave."""

LEAKED_BYTES = 400 << 20
LAST_WORDS = "no kernel image is available"

WRONG_SHAPE_SLICES = 7
"""A volume of so many slices makes it give one slice too few."""

_MISBEHAVE = (
    f"$lambda x: os._exit(3) if x.max() == {CRASH_HU}"
    f" else os.kill(os.getpid(), 9) if x.max() == {KILL_HU}"
    f" else time.sleep(600) if x.max() == {HANG_HU}"
    f" else (_ for _ in ()).throw(MemoryError('CUDA out of memory')) if x.max() == {FULL_HU}"
    # Holds Python's lock as native code does.
    f" else ctypes.PyDLL(None).sleep(600) if x.max() == {STUCK_HU}"
    f" else [print('flood ' * 200000), print('{LAST_WORDS}'), os._exit(4)]"
    f" if x.max() == {FLOOD_HU}"
    f" else [os.write(int(sys.argv[2]), b'junk'), x][1] if x.max() == {JUNK_HU}"
    f" else [setattr(sys, 'kept', b'x' * {LEAKED_BYTES}), x][1] if x.max() == {LEAK_HU}"
    # Too large for every device but the plain CPU.
    f" else (_ for _ in ()).throw(MemoryError('CUDA out of memory'))"
    f" if x.max() == {LARGE_HU} and str(@device) != 'cpu'"
    f" else x * float('nan') if x.max() == {NAN_HU} else x"
)
_SHORTEN = f"$lambda x: x[..., :-1] if x.shape[-1] == {WRONG_SHAPE_SLICES} else x"
_CODE = {"value": "50960005", "scheme": "SCT", "meaning": "Hemorrhage"}


def manifest_of(weights: Path, **changes: Any) -> dict[str, Any]:
    """Return a manifest of a segmenting model; `changes` replace its keys."""
    content: dict[str, Any] = {
        "name": "tiny-segmentation",
        "version": "1.0.0",
        "title": "Marks what is bright",
        "intended_use": "Tests.",
        "licence": "Apache-2.0",
        "accepts": {"modalities": ["CT"]},
        "runner": {
            "kind": "monai-bundle",
            "weights": f"models/{weights.name}",
            "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "time_limit_s": 60,
            "input": {"kind": "volume"},
        },
        "findings": [
            {
                "key": "hemorrhage",
                "code": _CODE,
                "segment": {"label": 1, "type": _CODE},
                "priority": "stat",
            }
        ],
    }
    return content | changes


def write_manifest(folder: Path, content: Mapping[str, Any]) -> ModelPackage:
    (folder / "model.yaml").write_text(yaml.safe_dump(dict(content)))
    return load_package(folder)


def make_segmentation(
    folder: Path,
    *,
    preprocessing: Sequence[Mapping[str, Any]] = (),
    postprocessing: Sequence[Mapping[str, Any]] = (),
    runner_input: Mapping[str, Any] | None = None,
    runner: Mapping[str, Any] | None = None,
    **changes: Any,
) -> ModelPackage:
    """Make a MONAI bundle whose probability is above 0.5 where HU are above LESION_FROM_HU.

    `runner` replaces keys of the manifest's runner, `changes` those of the manifest.
    """
    (folder / "models").mkdir(parents=True)
    (folder / "configs").mkdir()
    weights = folder / "models" / "model.pt"
    torch.save(
        {"weight": torch.ones(1, 1, 1, 1, 1), "bias": torch.tensor([-LESION_FROM_HU])}, weights
    )
    image = {"keys": "image"}
    config = {
        "imports": ["$import ctypes", "$import os", "$import sys", "$import time"],
        "device": "$torch.device('cuda')",  # the engine says which
        "network_def": {
            "_target_": "torch.nn.Conv3d",
            "in_channels": 1,
            "out_channels": 1,
            "kernel_size": 1,
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **image},
                {"_target_": "EnsureChannelFirstd", **image},
                {"_target_": "Orientationd", **image, "axcodes": "RAS", "labels": None},
                {"_target_": "Lambdad", **image, "func": _MISBEHAVE},
                *preprocessing,
            ],
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": False,
                },
                {"_target_": "Lambdad", "keys": "pred", "func": _SHORTEN},
                *postprocessing,
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "/nowhere"},
            ],
        },
    }
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    content = manifest_of(weights, **changes)
    if runner_input is not None:
        content["runner"]["input"] = dict(runner_input)
    content["runner"] |= runner or {}
    return write_manifest(folder, content)


class _Classifier(torch.nn.Module):
    """Says how bright the left and the right half of an image are, and where."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        half = image.shape[-1] // 2
        left, right = image[..., :half].mean(dim=(1, 2, 3)), image[..., half:].mean(dim=(1, 2, 3))
        seen = torch.nn.functional.avg_pool2d(image, 8)
        return torch.stack([left, right], dim=1), torch.cat([seen, 1 - seen], dim=1)


def make_classification(folder: Path, *, size: int = 32, **changes: Any) -> ModelPackage:
    """Make an exported program: channel 0 is the mean of the left half, 1 of the right half."""
    (folder / "models").mkdir(parents=True)
    weights = folder / "models" / "model.pt2"
    torch.export.save(torch.export.export(_Classifier(), (torch.rand(1, 1, size, size),)), weights)
    content = manifest_of(
        weights,
        name="tiny-classification",
        accepts={"modalities": ["DX", "CR"], "view_positions": ["PA", "AP"]},
        findings=[
            {"key": "left", "code": _CODE, "channel": 0, "priority": "high"},
            {"key": "right", "code": _CODE, "channel": 1, "threshold": 0.75},
        ],
    )
    content["runner"] |= {
        "kind": "torch-export",
        "input": {"kind": "image", "size": size, "scaling": "bits"},
    }
    return write_manifest(folder, content | changes)


def slice_dataset(
    pixels: NDArray[np.int16], position: Sequence[float], number: int, **changes: Any
) -> Dataset:
    """Return a CT image of stored values (rows, columns) that need no rescale."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
    uid = f"1.2.3.{number + 1}"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = uid
    ds.Modality = "CT"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.InstanceNumber = number
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 1
    ds.RescaleSlope, ds.RescaleIntercept = "1", "0"
    ds.PixelSpacing = ["0.5", "0.5"]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [f"{v:.6f}" for v in position]
    ds.PixelData = pixels.astype("<i2").tobytes()
    for keyword, value in changes.items():
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    return ds


def axial_series(
    values: NDArray[np.int16], *, depths_mm: Sequence[float] | None = None
) -> list[Dataset]:
    """Return the slices of a volume (slices, rows, columns), 5 mm apart unless said otherwise."""
    depths = depths_mm or [5.0 * i for i in range(len(values))]
    pairs = zip(values, depths, strict=True)
    return [slice_dataset(v, (-10, -20, z), n) for n, (v, z) in enumerate(pairs, start=1)]


def write_all(datasets: Sequence[Dataset], folder: Path) -> list[tuple[str, Path]]:
    """Write the datasets and return them as sources, in an order that is not theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = []
    for index, ds in enumerate(datasets):
        path = folder / f"{index:04d}.dcm"
        ds.save_as(path, enforce_file_format=True)
        sources.append((str(ds.SOPInstanceUID), path))
    return sorted(sources, key=lambda source: hashlib.sha256(source[0].encode()).digest())


def head_with_lesion(
    slices: int = 6, rows: int = 24, columns: int = 20
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Return values of a block of tissue with a bright lesion, and where the lesion is."""
    values = np.full((slices, rows, columns), -1000, np.int16)
    values[:, 2:-2, 2:-2] = 40
    lesion = np.zeros(values.shape, np.bool_)
    lesion[2:4, 5:9, 4:7] = True
    lesion[3, 9, 4] = True
    values[lesion] = 170
    return values, lesion
