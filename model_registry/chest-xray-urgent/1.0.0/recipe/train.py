"""Train, evaluate and export `chest-xray-urgent`: `python train.py`, about 20 minutes on 2 cores.

The patients are dealt into five folds. For each of the ten pairs of folds one network is trained
on the other three. The model for fold k is the mean of the four networks that left k out; each of
them also left out one other fold, on which it is calibrated and its thresholds are chosen. So the
figures for fold k come from patients that neither weights nor calibration nor thresholds saw
(nested cross-validation at the price of ten trainings). The model for fold 0 is the one shipped.
"""

import csv
import itertools
import json
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from calibration import apply_platt, fit_platt
from classifier import LateNetwork, UrgentClassifier
from dataset import (
    FINDINGS,
    FOLDS,
    HELD_OUT_FOLD,
    PROJECT_ROOT,
    URGENT,
    URGENT_FINDINGS,
    Radiographs,
    data_folder,
    fold_of_patients,
    load,
)
from efficientnet_lite import load_pretrained
from numpy.typing import NDArray
from torch import Tensor
from training import Settings, cache_views, predict, train_network

sys.path.insert(0, str(PROJECT_ROOT))
from triage.models.evaluation import (
    LabelledImage,
    evaluate_predictions,
    threshold_for_sensitivity,
    threshold_for_specificity,
)

PACKAGE = Path(__file__).resolve().parents[1]
OUTPUTS = (*FINDINGS, URGENT)
KEYS = tuple(name.lower() for name in OUTPUTS)
POSITIVES = {
    key: URGENT_FINDINGS if name == URGENT else (name,)
    for key, name in zip(KEYS, OUTPUTS, strict=True)
}
# "Urgent" moves a study up, so its threshold has to find most; the single findings only explain,
# so theirs have to be rarely wrong.
URGENT_SENSITIVITY = 0.8
FINDING_SPECIFICITY = 0.9
Pair = tuple[int, int]


def train_pair(task: tuple[Pair, str, Settings]) -> tuple[Pair, LateNetwork, Tensor]:
    """Train the network that leaves the pair of folds out; return it and all its logits."""
    pair, cache_path, settings = task
    torch.set_num_threads(1)
    cache = torch.load(cache_path, mmap=True, weights_only=True)
    rows = torch.nonzero((cache["folds"] != pair[0]) & (cache["folds"] != pair[1]))[:, 0]
    backbone = load_pretrained().eval()
    seed = settings.seed + 10 * pair[0] + pair[1]
    started = time.monotonic()
    network = train_network(
        backbone, cache["views"], cache["targets"], rows, settings=settings, seed=seed
    )
    print(f"folds {pair} left out: {time.monotonic() - started:.0f} s", flush=True)
    return pair, network, predict(network, cache["views"])[:, : len(OUTPUTS)]


def train_all_pairs(
    radiographs: Radiographs, folds: Tensor, settings: Settings
) -> dict[Pair, tuple[LateNetwork, Tensor]]:
    """Train the ten networks, two at a time, one thread each: faster than two threads on one."""
    torch.set_num_threads(2)
    backbone = load_pretrained().eval().to(memory_format=torch.channels_last)
    views = cache_views(backbone, radiographs.pixels, settings)
    print(f"cached {tuple(views.shape)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "cache.pt")
        torch.save({"views": views, "targets": radiographs.targets, "folds": folds}, path)
        del views
        tasks = [(pair, path, settings) for pair in itertools.combinations(range(FOLDS), 2)]
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            return {pair: (net, logits) for pair, net, logits in pool.map(train_pair, tasks)}


def validation_logits(logits: dict[Pair, Tensor], folds: Tensor, fold: int) -> Tensor:
    """Return each image's logits from the network that left out its fold and `fold`.

    The rows of `fold` itself stay NaN.
    """
    result = torch.full_like(next(iter(logits.values())), float("nan"))
    for other in range(FOLDS):
        if other != fold:
            rows = folds == other
            result[rows] = logits[min(fold, other), max(fold, other)][rows]
    return result


def calibrate(
    logits: dict[Pair, Tensor], truth: Tensor, folds: Tensor, fold: int
) -> tuple[Tensor, list[float]]:
    """Return the calibration and thresholds of the model for `fold`, from the other folds."""
    rows = folds != fold
    validation = validation_logits(logits, folds, fold)[rows]
    calibration = fit_platt(validation, truth[rows])
    probabilities = apply_platt(validation, calibration).numpy()
    known = truth[rows].numpy()
    thresholds = [
        threshold_for_specificity(known[:, i], probabilities[:, i], FINDING_SPECIFICITY)
        for i in range(len(FINDINGS))
    ]
    last = len(FINDINGS)
    urgent = threshold_for_sensitivity(known[:, last], probabilities[:, last], URGENT_SENSITIVITY)
    return calibration, [*thresholds, urgent]


def held_out_probabilities(
    logits: dict[Pair, Tensor], folds: Tensor, fold: int, calibration: Tensor
) -> Tensor:
    """Return the probabilities of the model for `fold` on the patients of `fold`."""
    members = [values for pair, values in logits.items() if fold in pair]
    return apply_platt(torch.stack(members).mean(0)[folds == fold], calibration)


def _figures(
    radiographs: Radiographs,
    truth: Tensor,
    probabilities: NDArray[np.float32],
    thresholds: dict[str, float],
    rows: NDArray[np.int64],
) -> dict[str, float | int | str | None]:
    labels = [
        LabelledImage(
            radiographs.names[i],
            radiographs.patients[i],
            frozenset(name for j, name in enumerate(FINDINGS) if truth[i, j] > 0),
        )
        for i in rows
    ]
    predictions = {
        radiographs.names[i]: dict(zip(KEYS, map(float, probabilities[i]), strict=True))
        for i in rows
    }
    return evaluate_predictions(labels, predictions, thresholds, POSITIVES)


def evaluate_all(
    radiographs: Radiographs, logits: dict[Pair, Tensor], folds: Tensor
) -> dict[str, float | int | str | None]:
    """Return the figures of the five models, each on the patients that it never saw.

    Thresholds differ from fold to fold, so sensitivity and specificity are counted after shifting
    the log odds of each fold by its threshold: 0.5 then stands for the threshold.
    """
    truth = radiographs.targets[:, : len(OUTPUTS)]
    probabilities = np.zeros(tuple(truth.shape), dtype=np.float32)
    relative = probabilities.copy()
    for fold in range(FOLDS):
        calibration, thresholds = calibrate(logits, truth, folds, fold)
        rows = (folds == fold).numpy()
        values = held_out_probabilities(logits, folds, fold, calibration)
        probabilities[rows] = values.numpy()
        shifted = torch.logit(values) - torch.logit(torch.tensor(thresholds))
        relative[rows] = torch.sigmoid(shifted).numpy()
    everyone = np.arange(len(folds))
    figures = _figures(radiographs, truth, probabilities, {}, everyone)
    halves = dict.fromkeys(KEYS, 0.5)
    at_thresholds = _figures(radiographs, truth, relative, halves, everyone)
    counts = ("sensitivity", "specificity", "true_", "false_")
    figures |= {k: v for k, v in at_thresholds.items() if k.split(".")[-1].startswith(counts)}
    errors = ((probabilities - truth.numpy()) ** 2).mean(0)
    return figures | {f"{key}.brier": float(errors[i]) for i, key in enumerate(KEYS)}


def export(networks: list[LateNetwork], calibration: Tensor, size: int) -> Path:
    """Write the program of the averaged networks to `models/model.pt2`."""
    model = UrgentClassifier(
        load_pretrained().eval(), networks, range(len(OUTPUTS)), calibration
    ).eval()
    with torch.no_grad():
        program = torch.export.export(model, (torch.rand(1, 1, size, size),))
    path = PACKAGE / "models" / "model.pt2"
    path.parent.mkdir(exist_ok=True)
    torch.export.save(program, path)
    return path


def write_split(radiographs: Radiographs, fold_of: dict[str, int]) -> None:
    """Write who was held out from the shipped model, and every patient's fold."""
    with (PACKAGE / "recipe" / "split.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("patient_id", "part", "fold"))
        for patient in dict.fromkeys(radiographs.patients):
            fold = fold_of[patient]
            writer.writerow((patient, "held_out" if fold == HELD_OUT_FOLD else "train", fold))


def shipped_probabilities(path: Path, radiographs: Radiographs, rows: NDArray[np.int64]) -> Tensor:
    """Return what the exported program says of the images `rows`."""
    program = torch.export.load(path).module()
    with torch.no_grad():
        return torch.cat([program(radiographs.pixels[row][None])[0] for row in rows])


def finish(
    trained: dict[Pair, tuple[LateNetwork, Tensor]],
    radiographs: Radiographs,
    folds: Tensor,
    settings: Settings,
) -> dict[str, object]:
    """Calibrate, export and evaluate what was trained; return what goes into `figures.json`."""
    logits = {pair: values for pair, (_, values) in trained.items()}
    truth = radiographs.targets[:, : len(OUTPUTS)]
    calibration, thresholds = calibrate(logits, truth, folds, HELD_OUT_FOLD)
    named = dict(zip(KEYS, (round(value, 4) for value in thresholds), strict=True))
    networks = [network for pair, (network, _) in trained.items() if HELD_OUT_FOLD in pair]
    path = export(networks, calibration, settings.size)
    rows = np.flatnonzero((folds == HELD_OUT_FOLD).numpy())
    shipped = shipped_probabilities(path, radiographs, rows)
    before = held_out_probabilities(logits, folds, HELD_OUT_FOLD, calibration)
    probabilities = np.zeros(tuple(truth.shape), dtype=np.float32)
    probabilities[rows] = shipped.numpy()
    return {
        "nested_cross_validation": evaluate_all(radiographs, logits, folds),
        "held_out_fold": _figures(radiographs, truth, probabilities, named, rows),
        "thresholds": named,
        "settings": asdict(settings),
        # What storing the weights in few bytes changes in a probability, at most.
        "export_difference": float((shipped - before).abs().max()),
    }


def main() -> None:
    """Run the whole recipe and write every file of the package that it makes."""
    started = time.monotonic()
    settings = Settings()
    radiographs = load(data_folder(), settings.size)
    fold_of = fold_of_patients(radiographs, settings.seed)
    folds = torch.tensor([fold_of[patient] for patient in radiographs.patients])
    write_split(radiographs, fold_of)
    trained = train_all_pairs(radiographs, folds, settings)
    figures = finish(trained, radiographs, folds, settings)
    figures["training_seconds"] = round(time.monotonic() - started)
    text = json.dumps(figures, indent=2, allow_nan=False)
    (PACKAGE / "recipe" / "figures.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
