"""How long a model waits for its volume after the last image of a CT, and what shortens that.

    python benchmarks/decode.py --slices 300 --repeats 3 --json decode.json

A simulated CT (512 x 512, 16 bits) is written as files, uncompressed and as JPEG-LS, and loaded

- by a loop that reads and decodes with pydicom, sorts, and stacks (what many pipelines do),
- by `load_volume` with one thread,
- by `load_volume` as it is,
- by `load_volume` where the images were decoded while they arrived, as the worker does.

Each figure is the median of the repeats, in which the four follow one another, and everything is
in the file cache. Compare the ratios; seconds are those of the machine and of what else it does.
Seconds of processors tell what a way costs also on a machine that is busy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import compress
from pydicom.uid import JPEGLSLossless

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from benchmarks.figures import write_figures  # noqa: E402
from tests.models.tiny import slice_dataset  # noqa: E402
from triage.models.ahead import DecodedAhead  # noqa: E402
from triage.models.sources import Source, in_parallel  # noqa: E402
from triage.models.volume import load_volume  # noqa: E402

_ROOM_BYTES = 1024**3
_WAYS = ("pydicom loop", "serial", "parallel", "decoded ahead")


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds by the clock, and of all processors together."""

    clock_s: float
    processor_s: float


def main() -> None:
    """Measure and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write one flat object of the figures")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{arguments.slices} slices, {os.cpu_count()} cores, median of {arguments.repeats}")
    for name, syntax in (("uncompressed", None), ("JPEG-LS", JPEGLSLossless)):
        with tempfile.TemporaryDirectory() as folder:
            taken = _measure(_write(Path(folder), arguments.slices, syntax), arguments.repeats)
        figures[name] = {way: asdict(each) for way, each in taken.items()}
        for way, each in taken.items():
            ratio = each.clock_s / taken["parallel"].clock_s
            print(
                f"{name:>12}  {way:<14}{each.clock_s:7.3f} s  {ratio:5.2f} of parallel  "
                f"{each.processor_s:7.3f} s of processors",
                flush=True,
            )
    if arguments.json:
        write_figures(arguments.json, figures)


def _write(folder: Path, slices: int, syntax: str | None) -> list[Source]:
    """Write a head of noise in air, slice by slice; every fourth has the same noise."""
    kinds = [_noisy(number, syntax) for number in range(4)]
    found = []
    for number in range(1, slices + 1):
        dataset = kinds[number % len(kinds)]
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        dataset.InstanceNumber = number
        dataset.ImagePositionPatient = [-120, -120, 0.625 * number]
        path = folder / f"{number:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        found.append((str(dataset.SOPInstanceUID), path))
    return found


def _noisy(seed: int, syntax: str | None) -> Dataset:
    rows, columns = np.mgrid[-256:256, -256:256]
    head = (rows / 200) ** 2 + (columns / 160) ** 2 < 1
    noise = np.random.default_rng(seed).normal(0, 12, head.shape)
    pixels = np.where(head, 40 + noise, -1000 + noise / 3).astype(np.int16)
    dataset = slice_dataset(pixels, (0, 0, 0), seed)
    if syntax is not None:
        compress(dataset, syntax)
    return dataset


def _measure(series: Sequence[Source], repeats: int) -> dict[str, Taken]:
    taken: dict[str, list[Taken]] = {way: [] for way in _WAYS}
    for _ in range(repeats):
        ahead = DecodedAhead(_ROOM_BYTES)
        in_parallel(partial(ahead.add, 1), series)
        ways: dict[str, Callable[[], object]] = {
            "pydicom loop": partial(_with_pydicom, series),
            "serial": partial(_serial, series),
            "parallel": partial(load_volume, series),
            "decoded ahead": partial(load_volume, series, read=ahead.read),
        }
        for way, load in ways.items():
            clock, processor = time.perf_counter(), time.process_time()
            load()
            spent = (time.perf_counter() - clock, time.process_time() - processor)
            taken[way].append(Taken(*spent))
    return {
        way: Taken(
            statistics.median(each.clock_s for each in seconds),
            statistics.median(each.processor_s for each in seconds),
        )
        for way, seconds in taken.items()
    }


def _with_pydicom(series: Sequence[Source]) -> NDArray[np.float32]:
    datasets = [pydicom.dcmread(path) for _, path in series]
    datasets.sort(key=lambda dataset: float(dataset.ImagePositionPatient[2]))
    return np.stack(
        [
            d.pixel_array.astype(np.float32) * float(d.RescaleSlope) + float(d.RescaleIntercept)
            for d in datasets
        ]
    ).astype(np.float32)


def _serial(series: Sequence[Source]) -> object:
    def one_after_another(function: Callable[[object], object], items: Sequence[object]) -> object:
        return [function(each) for each in items]

    with mock.patch("triage.models.volume.in_parallel", one_after_another):
        return load_volume(series)


if __name__ == "__main__":
    main()
