"""What Triage adds to a model's own time, beside the bare model in a loop, and how many studies.

The same sample study goes in turns through Triage (decode, warm host, findings) and, as a tensor
that was decoded before, through the bare model in a process of its own. Then studies go side by
side, with their SEG and SR built, as a worker carries them:

    python benchmarks/inference.py --repeats 15 --json inference.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from pydicom import dcmread  # noqa: E402

from triage.core.analysis import Analysis  # noqa: E402
from triage.models.devices import available_devices  # noqa: E402
from triage.models.engine import analyse  # noqa: E402
from triage.models.host import ModelHosts  # noqa: E402
from triage.models.packages import ModelPackage, load_package  # noqa: E402
from triage.results.build import build_results, number_segments  # noqa: E402
from triage.settings import ResultSettings, WorkerSettings  # noqa: E402

_SMALL_MODEL_OVERHEAD_S = 0.3
_OVERHEAD_RATIO = 1.1
_COLD = """
import sys
from pathlib import Path
from triage.models.packages import load_package
from triage.models.try_model import try_model
from triage.settings import WorkerSettings
worker = WorkerSettings(device=sys.argv[3])
try_model(load_package(Path(sys.argv[1])), Path(sys.argv[2]), worker=worker)
"""


@dataclass(frozen=True, slots=True)
class SampleStudy:
    """A package and the files of one of its samples."""

    package: ModelPackage
    folder: Path
    files: tuple[tuple[str, Path], ...]
    study_instance_uid: str

    @classmethod
    def of(cls, package_folder: Path) -> SampleStudy:
        """Return the last sample of the package."""
        files = sorted((package_folder / "samples").rglob("*.dcm"))
        folder = files[-1].parent
        datasets = [(path, dcmread(path, stop_before_pixels=True)) for path in files]
        chosen = tuple((str(d.SOPInstanceUID), p) for p, d in datasets if p.parent == folder)
        uid = str(datasets[-1][1].StudyInstanceUID)
        return cls(load_package(package_folder), folder, chosen, uid)

    @property
    def name(self) -> str:
        """Return the model's name as a part of a key."""
        return self.package.manifest.name.replace("-", "_")


@dataclass(slots=True)
class Turns:
    """Seconds of bare runs, of whole studies, and of their way to the model and back."""

    bare: list[float]
    studies: list[float]
    inferred: list[float]
    bare_cpu_s: float
    studies_cpu_s: float


def main() -> None:
    """Measure, print the table, and write the figures."""
    arguments = _arguments()
    device = available_devices(arguments.device)[0]
    studies = [SampleStudy.of(folder) for folder in arguments.packages]
    hosts = ModelHosts(WorkerSettings(device=arguments.device))
    try:
        figures = _measure(hosts, studies, device, arguments)
    finally:
        hosts.close()
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    registry = PROJECT / "model_registry"
    shipped = [registry / "head-ct-hemorrhage" / "1.0.0", registry / "chest-xray-urgent" / "1.0.0"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, nargs="+", default=shipped)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=15, help="studies and bare runs, in turns")
    parser.add_argument("--studies", type=int, default=24, help="studies that go side by side")
    parser.add_argument("--cold", type=int, default=2, help="studies with a process each")
    parser.add_argument("--json", type=Path, help="write one flat object of the figures")
    return parser.parse_args()


def _measure(
    hosts: ModelHosts, studies: Sequence[SampleStudy], device: str, arguments: argparse.Namespace
) -> dict[str, float | str]:
    figures: dict[str, float | str] = {"device": device, "load_average": os.getloadavg()[0]}
    bare_s: dict[str, float] = {}
    for study in studies:
        turns = _in_turns(hosts, study, device, arguments.repeats)
        cold = [_cold_process(study, device) for _ in range(arguments.cold)]
        bare_s[study.name] = statistics.median(turns.bare)
        figures |= _compared(study.name, turns, cold)
    for in_flight in (1, 2, 3):
        figures |= _side_by_side(hosts, studies[:1], in_flight, arguments.studies, bare_s)
    figures |= _side_by_side(hosts, studies, 3, arguments.studies, bare_s, prefix="many_models_")
    # The first model is the one that counts; the keys without a name are its.
    first = studies[0].name
    figures["overhead_ratio"] = figures[f"{first}_overhead_ratio"]
    figures["overhead_s"] = figures[f"{first}_overhead_s"]
    return figures


def _in_turns(hosts: ModelHosts, study: SampleStudy, device: str, repeats: int) -> Turns:
    hosts.warm_now(study.package)
    asyncio.run(analyse(hosts, study.package, study.files))
    (pid,) = [p for n, p in hosts.process_ids().items() if n == study.package.manifest.identity]
    turns = Turns([], [], [], 0.0, 0.0)
    with _bare_loop(study.package, device) as run_bare:
        for _ in range(repeats):
            seconds, cpu = run_bare()
            turns.bare.append(seconds)
            turns.bare_cpu_s += cpu
            started, cpu_started = time.perf_counter(), time.process_time() + _cpu_s(pid)
            analysis = asyncio.run(analyse(hosts, study.package, study.files))
            turns.studies.append(time.perf_counter() - started)
            turns.studies_cpu_s += time.process_time() + _cpu_s(pid) - cpu_started
            turns.inferred.append(analysis.timings_s["infer"])
    return turns


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _bare_loop(package: ModelPackage, device: str) -> Iterator[Callable[[], tuple[float, float]]]:
    threads = str(len(os.sched_getaffinity(0)))
    program = [sys.executable, str(Path(__file__).with_name("bare_loop.py"))]
    with subprocess.Popen(
        [*program, str(package.path), device, threads],
        env={"OMP_WAIT_POLICY": "PASSIVE"} | os.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while process.stdout.readline() not in {"ready\n", ""}:
            pass
        stdin, stdout = process.stdin, process.stdout

        def run() -> tuple[float, float]:
            stdin.write("run\n")
            stdin.flush()
            seconds, cpu = map(float, stdout.readline().split())
            return seconds, cpu

        yield run
        stdin.close()


def _cold_process(study: SampleStudy, device: str) -> float:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", _COLD, str(study.package.path), str(study.folder), device],
        check=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )
    return time.perf_counter() - started


def _compared(name: str, turns: Turns, cold: Sequence[float]) -> dict[str, float]:
    floor, study, way = map(statistics.median, (turns.bare, turns.studies, turns.inferred))
    # Of turns, not of medians: a machine that is busy for a while is so for both.
    pairs = list(zip(turns.studies, turns.bare, strict=True))
    ratio = statistics.median(ours / bare for ours, bare in pairs)
    figures = {
        f"{name}_bare_s": floor,
        f"{name}_study_s": study,
        f"{name}_overhead_ratio": ratio,
        f"{name}_overhead_s": statistics.median(ours - bare for ours, bare in pairs),
        f"{name}_host_ratio": way / floor,
        f"{name}_cpu_ratio": turns.studies_cpu_s / turns.bare_cpu_s,
        f"{name}_cpu_overhead_s": (turns.studies_cpu_s - turns.bare_cpu_s) / len(pairs),
    }
    if cold:
        figures[f"{name}_cold_process_s"] = statistics.median(cold)
        figures[f"{name}_cold_process_ratio"] = statistics.median(cold) / floor
    is_met = ratio <= _OVERHEAD_RATIO or figures[f"{name}_overhead_s"] <= _SMALL_MODEL_OVERHEAD_S
    print(f"{name}: goal {'met' if is_met else 'not met'}", file=sys.stderr)
    return {key: round(value, 4) for key, value in figures.items()}


def _side_by_side(
    hosts: ModelHosts,
    studies: Sequence[SampleStudy],
    in_flight: int,
    count: int,
    bare_s: dict[str, float],
    *,
    prefix: str = "",
) -> dict[str, float]:
    todo = [studies[number % len(studies)] for number in range(count)]
    computing, gpu = hosts.computing_s(), _GpuShare()
    started = time.perf_counter()
    asyncio.run(_carry(hosts, todo, in_flight))
    wall = time.perf_counter() - started
    floor = sum(bare_s[study.name] for study in todo)
    figures = {
        f"{prefix}in_flight_{in_flight}_studies_per_hour": round(3600 * count / wall, 1),
        f"{prefix}in_flight_{in_flight}_of_bare_loop": round(floor / wall, 3),
        f"{prefix}in_flight_{in_flight}_computing_share": round(
            (hosts.computing_s() - computing) / wall, 3
        ),
    }
    share = gpu.end()
    return figures | ({f"{prefix}in_flight_{in_flight}_gpu_share": share} if share else {})


async def _carry(hosts: ModelHosts, todo: Sequence[SampleStudy], in_flight: int) -> None:
    places = asyncio.Semaphore(in_flight)

    async def one(study: SampleStudy) -> None:
        async with places:
            analysis = await analyse(hosts, study.package, study.files)
            await asyncio.to_thread(_build, study, analysis)

    await asyncio.gather(*(one(study) for study in todo))


def _build(study: SampleStudy, analysis: Analysis) -> None:
    manifest = study.package.manifest
    build_results(
        number_segments(analysis, manifest),
        manifest,
        study_instance_uid=study.study_instance_uid,
        settings=ResultSettings(),
        produced_at=datetime.now(UTC),
    )


class _GpuShare:
    """The part of the time in which the GPU computes, as its driver counts it."""

    def __init__(self) -> None:
        self._sampler: subprocess.Popen[str] | None = None
        if shutil.which("nvidia-smi"):
            query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
            self._sampler = subprocess.Popen(
                ["nvidia-smi", *query], stdout=subprocess.PIPE, text=True
            )

    def end(self) -> float:
        """Return the share from 0 to 1, or 0 where there is no GPU."""
        if self._sampler is None:
            return 0.0
        self._sampler.terminate()
        said = self._sampler.communicate()[0].split()
        return round(statistics.fmean(map(float, said)) / 100, 3) if said else 0.0


if __name__ == "__main__":
    main()
