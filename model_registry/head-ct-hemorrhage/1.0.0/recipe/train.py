"""Train the head CT hemorrhage network from nothing on simulated studies, on two CPU cores.

Run as `python recipe/train.py`. Seeds are fixed. It simulates the studies (a few minutes), trains
the network, writes `models/model.pt`, chooses the operating point on the validation studies and
writes point and digest of the weights into `model.yaml`.
"""

import argparse
import hashlib
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import torch
from bundle import PACKAGE, Bundle, to_meta_tensor
from evaluate import OperatingPoint, choose_operating_point
from monai.transforms import Compose, ScaleIntensityRanged
from numpy.typing import NDArray
from studies import draw_plan, make

PATCH = (64, 64, 16)
BATCH = 4


def prepare(index: int) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Return image and lesion share of a training study on the network's grid, both (x, y, z)."""
    torch.set_num_threads(1)
    bundle = Bundle()
    study = make(draw_plan("train", index))
    image = bundle.preprocessing({"image": to_meta_tensor(study.hu, study.affine)})["image"][0]
    # The mask goes through the same geometry; it becomes the share of each voxel that is blood.
    geometry = Compose(
        [t for t in bundle.preprocessing.transforms if not isinstance(t, ScaleIntensityRanged)]
    )
    mask = (study.labels > 0).astype(np.float32)
    share = geometry({"image": to_meta_tensor(mask, study.affine)})["image"][0]
    return image.numpy().astype(np.float16), share.numpy().astype(np.float16)


def simulate_training_set(count: int) -> list[tuple[NDArray[np.float16], NDArray[np.float16]]]:
    start = time.monotonic()
    studies = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for study in pool.map(prepare, range(count), chunksize=4):
            studies.append(study)
            if len(studies) % 50 == 0:
                print(f"simulated {len(studies)} in {time.monotonic() - start:.0f} s", flush=True)
    return studies


def crop(
    rng: np.random.Generator, image: NDArray[np.float16], share: NDArray[np.float16], seek: bool
) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Return a patch: about a random lesion voxel if `seek` and there is one, else anywhere."""
    size = np.array(image.shape)
    patch = np.array(PATCH)
    if (short := np.maximum(patch - size, 0)).any():
        pad = [(int(n) // 2, int(n) - int(n) // 2) for n in short]
        image, share = np.pad(image, pad), np.pad(share, pad)
        size = np.array(image.shape)
    places = np.flatnonzero(share > 0.5) if seek else np.empty(0, int)
    if places.size:
        centre = np.array(np.unravel_index(rng.choice(places), share.shape))
        centre = centre + rng.integers(-patch // 4, patch // 4 + 1)
    else:
        centre = rng.integers(0, size)
    first = np.clip(centre - patch // 2, 0, size - patch)
    where = tuple(slice(a, a + n) for a, n in zip(first, PATCH, strict=True))
    return image[where], share[where]


def augment(
    rng: np.random.Generator, image: NDArray[np.float32], share: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mirror left and right, and vary scanner calibration, contrast and noise."""
    if rng.random() < 0.5:
        image, share = image[::-1], share[::-1]
    soft = (image > 0.02) & (image < 0.98)
    gain, offset = rng.uniform(0.94, 1.06), rng.normal(0, 0.008)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * abs(rng.normal(0, 0.008))
    image = np.where(soft, (image - 0.35) * gain + 0.35 + offset + noise, image)
    return np.clip(image, 0, 1).astype(np.float32), share


def loss_of(logits: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Return soft Dice over the batch plus cross-entropy, with blood weighted up: it is rare."""
    probability = torch.sigmoid(logits)
    overlap = 2 * (probability * share).sum() + 1
    dice = 1 - overlap / (probability.square().sum() + share.square().sum() + 1)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, share, pos_weight=logits.new_tensor(3.0)
    )
    return dice + 4 * entropy


def train(studies: list[tuple[NDArray[np.float16], NDArray[np.float16]]], steps: int) -> Bundle:
    torch.manual_seed(20)
    rng = np.random.default_rng(20)
    bundle = Bundle()
    network = bundle.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    network.train()
    # Blood is rare: to begin with that saves the steps it takes to learn it.
    torch.nn.init.constant_(network.output_block.conv.conv.bias, -3.0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 4e-3, total_steps=steps, pct_start=0.1
    )
    # Halves the time on processors with bfloat16 instructions; others would emulate it.
    half = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    bleeding = [n for n, (_, share) in enumerate(studies) if (share > 0.5).any()]
    start, running = time.monotonic(), 1.0
    for step in range(1, steps + 1):
        pairs = []
        for slot in range(BATCH):
            # Half of each batch is about a bleeding, or most patches would have none.
            seek = slot < BATCH // 2
            image, share = studies[rng.choice(bleeding) if seek else rng.integers(len(studies))]
            a, b = crop(rng, image, share, seek=seek)
            pairs.append(augment(rng, a.astype(np.float32), b.astype(np.float32)))
        images = torch.from_numpy(np.stack([p[0] for p in pairs])[:, None])
        shares = torch.from_numpy(np.stack([p[1] for p in pairs])[:, None])
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = network(images.to(memory_format=torch.channels_last_3d))
        loss = loss_of(logits.float(), shares)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        running += 0.03 * (loss.item() - running)
        if step % 50 == 0 or step == steps:
            print(f"step {step} loss {running:.3f} {time.monotonic() - start:.0f} s", flush=True)
            bundle.weights.parent.mkdir(exist_ok=True)
            torch.save({k: v.contiguous() for k, v in network.state_dict().items()}, bundle.weights)
    network.eval()
    return bundle


def stamp_manifest(point: OperatingPoint) -> None:
    """Write the operating point and the digest of the weights into `model.yaml`, in place."""
    digest = hashlib.sha256((PACKAGE / "models" / "model.pt").read_bytes()).hexdigest()
    path = PACKAGE / "model.yaml"
    text = path.read_text()
    for key, value in (
        ("weights_sha256", digest),
        ("threshold", f"{point.threshold:g}"),
        ("minimum_volume_ml", f"{point.minimum_volume_ml:g}"),
    ):
        text, count = re.subn(rf"(?m)^(\s+{key}: ).*$", rf"\g<1>{value}", text)
        if count != 1:
            raise ValueError(f"{path}: expected one line for {key}, found {count}")
    path.write_text(text)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--studies", type=int, default=1000)
    arguments.add_argument("--steps", type=int, default=8000)
    arguments.add_argument("--validation", type=int, default=120)
    options = arguments.parse_args()
    torch.set_num_threads(2)
    start = time.monotonic()
    studies = simulate_training_set(options.studies)
    train(studies, options.steps)
    print(f"trained in {(time.monotonic() - start) / 60:.1f} min", flush=True)
    point = choose_operating_point(options.validation)
    stamp_manifest(point)
    print(f"{point}; all in {(time.monotonic() - start) / 60:.1f} min")


if __name__ == "__main__":
    main()
