"""The training images, their labels and the split by patient.

Data: the 497 images of `cxr-nih` in the shared data, a selection from NIH ChestX-ray14 (Wang et
al., CVPR 2017, https://nihcc.app.box.com/v/ChestXray-NIHCC).
"""

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

PROJECT_ROOT = Path(__file__).resolve().parents[4]
# What the model answers, in the order of its outputs; URGENT is any of the first four.
FINDINGS = ("Pneumothorax", "Effusion", "Consolidation", "Edema", "Cardiomegaly")
URGENT_FINDINGS = FINDINGS[:4]
URGENT = "Urgent"
# Learnt beside them because they share features with them; never reported.
AUXILIARY = (
    "Atelectasis",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "No Finding",
    "AP view",
    "Age 55 or more",
    "Female",
)
TARGETS = (*FINDINGS, URGENT, *AUXILIARY)
FOLDS = 5
# The fold whose patients the shipped model never saw; fixed before anything was trained.
HELD_OUT_FOLD = 0


@dataclass(frozen=True)
class Radiographs:
    """Images and targets in the order of the labels file.

    `pixels` is (n, 1, size, size) float32 in [0, 1]; `targets` (n, len(TARGETS)) of 0 and 1.
    """

    names: tuple[str, ...]
    patients: tuple[str, ...]
    pixels: Tensor
    targets: Tensor


def data_folder() -> Path:
    """Return the folder `cxr-nih` of the shared data."""
    shared = os.environ.get("TRIAGE_SHARED_DATA", str(PROJECT_ROOT.parent / "shared" / "data"))
    folder = Path(shared) / "cxr-nih"
    if not (folder / "labels.csv").is_file():
        raise SystemExit(f"{folder}/labels.csv is missing: set TRIAGE_SHARED_DATA to its parent.")
    return folder


def preprocess(pixels: NDArray[np.generic], size: int) -> Tensor:
    """Scale a (rows, columns) image, bright where dense, to (1, size, size) float32 in [0, 1].

    The 0.5th and 99.5th percentiles become 0 and 1, so bit depth and the burnt-in markers do not
    matter; the image is then stretched to a square (bilinear, antialiased), which is what the
    publisher of the training images did to the radiographs.
    """
    values = pixels.astype(np.float32)
    low, high = np.percentile(values, (0.5, 99.5))
    scaled = np.clip((values - low) / max(float(high - low), 1e-6), 0.0, 1.0).astype(np.float32)
    image = torch.from_numpy(scaled)[None, None]
    resized = functional.interpolate(
        image, size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0].clamp(0.0, 1.0)


def _targets(row: dict[str, str]) -> list[float]:
    present = set(row["finding_labels"].split("|"))
    if present & set(URGENT_FINDINGS):
        present.add(URGENT)
    if row["view_position"] == "AP":
        present.add("AP view")
    if int(row["age"]) >= 55:
        present.add("Age 55 or more")
    if row["sex"] == "F":
        present.add("Female")
    return [float(target in present) for target in TARGETS]


def load(folder: Path, size: int) -> Radiographs:
    """Read the labels and images of `folder` (`labels.csv` and `images/`)."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = [
        preprocess(np.asarray(Image.open(folder / "images" / row["image"]).convert("L")), size)
        for row in rows
    ]
    return Radiographs(
        names=tuple(row["image"] for row in rows),
        patients=tuple(row["patient_id"] for row in rows),
        pixels=torch.stack(images),
        targets=torch.tensor([_targets(row) for row in rows]),
    )


def fold_of_patients(radiographs: Radiographs, seed: int) -> dict[str, int]:
    """Deal the patients into `FOLDS` folds in which every reported finding is equally frequent.

    Iterative stratification (Sechidis et al., ECML 2011): the rarest finding is dealt first, each
    patient to the fold that lacks most of it, so the 11 edema patients are not left to chance.
    """
    generator = np.random.default_rng(seed)
    patients = list(dict.fromkeys(radiographs.patients))
    generator.shuffle(patients)
    labels = {patient: np.zeros(len(FINDINGS) + 1) for patient in patients}
    for patient, targets in zip(radiographs.patients, radiographs.targets.numpy(), strict=True):
        labels[patient] = np.maximum(labels[patient], targets[: len(FINDINGS) + 1])
    wanted = np.tile(sum(labels.values()) / FOLDS, (FOLDS, 1))
    room = np.full(FOLDS, len(patients) / FOLDS)
    folds: dict[str, int] = {}
    while len(folds) < len(patients):
        left = [patient for patient in patients if patient not in folds]
        counts = np.sum([labels[patient] for patient in left], axis=0)
        rarest = int(np.argmin(np.where(counts > 0, counts, np.inf)))
        chosen = [p for p in left if counts[rarest] == 0 or labels[p][rarest] > 0]
        for patient in chosen:
            need = wanted[:, rarest] if counts[rarest] > 0 else room
            fold = max(range(FOLDS), key=lambda f: (need[f], room[f]))
            folds[patient] = fold
            wanted[fold] -= labels[patient]
            room[fold] -= 1
    return folds
