"""A model in a loop and nothing around it: the floor for `benchmarks/inference.py`.

Started as `python benchmarks/bare_loop.py PACKAGE DEVICE THREADS`. Loads the model and its first
sample, then runs once for each line that comes in and answers with the seconds and the seconds of
CPU time.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from triage.models.acceleration import load_fastest
from triage.models.packages import load_package
from triage.models.runners import load_runner
from triage.models.samples import sample_inputs


def main(folder: str, device: str, threads: str) -> None:
    """Run the model as often as somebody asks."""
    torch.set_num_threads(int(threads))
    package = load_package(Path(folder))
    samples = list(sample_inputs(package))
    runner, _ = load_fastest(
        lambda acceleration: load_runner(package, device, acceleration),
        package.manifest.runner,
        lambda: samples,
    )
    runner.run(samples[-1])  # the first run compiles kernels
    print("ready", flush=True)
    for _ in sys.stdin:
        started, cpu_started = time.perf_counter(), time.process_time()
        runner.run(samples[-1])  # answers with arrays of the CPU: the device has finished
        print(time.perf_counter() - started, time.process_time() - cpu_started, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
