"""How fast instances are taken in, beside Orthanc and DCMTK, over the same wire in the same run.

The sender is DCMTK's `storescu` with TCP_NODELAY=1, once for each association. Triage and Orthanc
make each instance durable and index it before they answer; `storescp --fork +B` only writes it, so
it is the floor of what any DICOM receiver costs.

    python benchmarks/receive.py --repeats 3 --json receive.json

Each figure is the median of the repeats; the order of the receivers changes with each repeat, and
every repeat begins with an empty store.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from tests.datasets import ct_slice  # noqa: E402
from tests.orthanc import Orthanc  # noqa: E402
from tests.tools import find_free_port, require_tool  # noqa: E402

_ASSOCIATIONS = (1, 4, 8)
_PEERS = ("orthanc", "dcmtk")
_SAMPLE_EVERY_S = 0.1
# Milliseconds with three decimals; the log goes to a file that is read afterwards.
_LOG_CONFIGURATION = """\
log4cplus.rootLogger = INFO, file
log4cplus.appender.file = log4cplus::FileAppender
log4cplus.appender.file.File = {file}
log4cplus.appender.file.ImmediateFlush = false
log4cplus.appender.file.layout = log4cplus::PatternLayout
log4cplus.appender.file.layout.ConversionPattern = %D{{%s.%Q}} %m%n
"""


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent: `count` instances of `rows` by `columns` 16-bit pixels."""

    name: str
    count: int
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Run:
    """The figures of one receiver in one case at one number of associations."""

    instances_per_s: float
    p99_ms: float
    peak_memory_mb: float


class Receiver(ABC):
    """A receiver under test, in a folder and on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = find_free_port()
        folder.mkdir(parents=True)

    @abstractmethod
    def start(self) -> subprocess.Popen[bytes]:
        """Start it and return its process; it need not answer yet."""


class Triage(Receiver):
    """`triage receive` on SQLite, as installed."""

    def start(self) -> subprocess.Popen[bytes]:
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("TRIAGE_")},
            "PYTHONPATH": str(PROJECT),
            "TRIAGE_DATA_DIRECTORY": str(self.folder / "data"),
            "TRIAGE_MODEL_REGISTRY": str(self.folder / "registry"),
            "TRIAGE_RECEIVER__PORT": str(self.port),
        }
        (self.folder / "registry").mkdir()
        triage = [sys.executable, "-m", "triage.cli"]
        subprocess.run([*triage, "prepare"], env=environment, check=True, cwd=self.folder)
        return self._run([*triage, "receive"], environment)

    def _run(self, command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("wb") as log:
            return subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=self.folder
            )


class Dcmtk(Receiver):
    """`storescp --fork +B`: no fsync, no index."""

    def start(self) -> subprocess.Popen[bytes]:
        storage = self.folder / "storage"
        storage.mkdir()
        command = [require_tool("storescp"), "--fork", "+B", "-od", str(storage), str(self.port)]
        return subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"})


class OrthancReceiver(Receiver):
    """Orthanc as Debian ships it, with its DICOMweb plugin."""

    def start(self) -> subprocess.Popen[bytes]:
        orthanc = Orthanc(self.folder).start()
        self.port = orthanc.dicom_port
        assert orthanc._process is not None
        return orthanc._process


_RECEIVERS = {"triage": Triage, "orthanc": OrthancReceiver, "dcmtk": Dcmtk}


class PeakMemory:
    """The largest resident memory of a process and its children, sampled from a thread."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process_id = process.pid
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.megabytes = 0.0

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def now_mb(self) -> float:
        """Return the resident memory at this moment."""
        return sum(map(_resident_bytes, _family(self._process_id))) / 1e6

    def _watch(self) -> None:
        while not self._stopping.wait(_SAMPLE_EVERY_S):
            self.megabytes = max(self.megabytes, self.now_mb())


def _family(process_id: int) -> Iterator[int]:
    yield process_id
    try:
        text = Path(f"/proc/{process_id}/task/{process_id}/children").read_text()
    except OSError:  # it has ended
        return
    for child in text.split():
        yield from _family(int(child))


def _resident_bytes(process_id: int) -> int:
    """Return the resident memory; pages that several processes share count once among them."""
    try:
        lines = Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    proportional = next((line for line in lines if line.startswith("Pss:")), "Pss: 0 kB")
    return int(proportional.split()[1]) * 1024


def main() -> None:
    """Measure, print the table, and write the figures."""
    arguments = _arguments()
    os.environ["TCP_NODELAY"] = "1"  # for every process of DCMTK's making, Orthanc too
    cases = (
        Case("ct", arguments.instances, 512, 512),
        Case("small", arguments.small_instances, 100, 100),
    )
    runs: dict[tuple[str, str, int], list[Run]] = {}
    with tempfile.TemporaryDirectory(prefix="triage-receive-", dir=arguments.folder) as name:
        folder = Path(name)
        for case in cases:
            _write_instances(case, folder / case.name)
        for repeat in range(arguments.repeats):
            for case in cases:
                for associations in arguments.associations:
                    for receiver in _in_turn(list(_RECEIVERS), repeat):
                        place = folder / f"{receiver}-{case.name}-{associations}-{repeat}"
                        run = _measure(receiver, place, folder / case.name, case, associations)
                        # Stores are removed at the end: ext4 looks for a while at each inode that
                        # was deleted recently, and the next receiver would pay for it.
                        runs.setdefault((receiver, case.name, associations), []).append(run)
    figures = _figures(runs)
    _print_table(cases, arguments.associations, figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="runs of each figure (default 3)")
    parser.add_argument("--instances", type=int, default=400, help="CT slices (default 400)")
    parser.add_argument(
        "--small-instances", type=int, default=2000, help="instances of 20 kB (default 2000)"
    )
    parser.add_argument("--associations", type=int, nargs="+", default=list(_ASSOCIATIONS))
    parser.add_argument("--folder", type=Path, help="where the stores are (default: TMPDIR)")
    parser.add_argument("--json", type=Path, help="write one flat object of the figures")
    return parser.parse_args()


def _in_turn(names: list[str], repeat: int) -> list[str]:
    first = repeat % len(names)
    return names[first:] + names[:first]


def _write_instances(case: Case, folder: Path) -> None:
    """Write the instances of one study, of one series for each tenth of them."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(case.count):
        dataset = ct_slice(
            "1.2.826.0.1.3680043.8.498.1",
            number + 1,
            SeriesInstanceUID=f"1.2.826.0.1.3680043.8.498.1.{number // 40 + 1}",
        )
        dataset.Rows, dataset.Columns = case.rows, case.columns
        pixels = noise.integers(0, 4096, (case.rows, case.columns), dtype=np.uint16)
        dataset.PixelData = pixels.tobytes()
        dataset.save_as(folder / f"{number:05d}.dcm", enforce_file_format=True)


def _measure(receiver: str, place: Path, images: Path, case: Case, associations: int) -> Run:
    under_test = _RECEIVERS[receiver](place)
    with running(under_test) as process, PeakMemory(process) as memory:
        # What those before have left unwritten is not this one's to write.
        os.sync()
        shares = [sorted(images.iterdir())[k::associations] for k in range(associations)]
        logs = [place / f"sender-{k}.log" for k in range(associations)]
        began = time.perf_counter()
        senders = [
            _send(share, under_test.port, log) for share, log in zip(shares, logs, strict=True)
        ]
        if any(sender.wait() for sender in senders):
            raise SystemExit(f"{receiver}: storescu failed: {logs[0].read_text()[-500:]}")
        seconds = time.perf_counter() - began
    _leave_memory(place)
    times_ms = [t for log in logs for t in _response_times_ms(log)]
    if len(times_ms) != case.count:
        raise SystemExit(f"{receiver} took {len(times_ms)} of {case.count} instances")
    return Run(case.count / seconds, float(np.percentile(times_ms, 99)), memory.megabytes)


def _leave_memory(folder: Path) -> None:
    """Let the system forget what it keeps in memory of the files in `folder`.

    The next receiver then writes to the memory of this one, and not to some that a virtual machine
    has yet to get from its host, which takes several times as long as receiving an image.
    """
    os.sync()
    for path in folder.rglob("*"):
        # A socket or a link that leads nowhere has nothing in memory.
        with suppress(OSError), path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def running(receiver: Receiver) -> Iterator[subprocess.Popen[bytes]]:
    """Run `receiver` and give its process once it answers C-ECHO."""
    process = receiver.start()
    try:
        _wait_for_echo(receiver)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_echo(receiver: Receiver) -> None:
    echo = [require_tool("echoscu"), "127.0.0.1", str(receiver.port)]
    for _ in range(300):
        if subprocess.run(echo, check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    raise SystemExit(f"{type(receiver).__name__} does not answer C-ECHO")


def _send(files: Sequence[Path], port: int, log: Path) -> subprocess.Popen[bytes]:
    configuration = log.with_suffix(".cfg")
    configuration.write_text(_LOG_CONFIGURATION.format(file=log), encoding="ascii")
    command = [require_tool("storescu"), "-lc", str(configuration), "127.0.0.1", str(port)]
    return subprocess.Popen(
        [*command, *map(str, files)],
        env={**os.environ, "TCP_NODELAY": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _response_times_ms(log: Path) -> list[float]:
    """Return the time from each request to its success, as the sender's log has it."""
    times = []
    sent_at = 0.0
    line_of = re.compile(r"^(\d+)\.(\d+)\.(\d+) (.*)$")
    for line in log.read_text().splitlines():
        found = line_of.match(line)
        if found is None:
            continue
        at = int(found[1]) * 1000.0 + int(found[2]) + int(found[3]) / 1000.0
        if found[4].startswith("Sending Store Request"):
            sent_at = at
        elif found[4].startswith("Received Store Response (Success)"):
            times.append(at - sent_at)
    return times


def _figures(runs: dict[tuple[str, str, int], list[Run]]) -> dict[str, float]:
    """Return one flat object; the CT case has no prefix, the small one has `small_`."""
    figures: dict[str, float] = {}
    medians = {
        key: Run(
            statistics.median(run.instances_per_s for run in of_one),
            statistics.median(run.p99_ms for run in of_one),
            max(run.peak_memory_mb for run in of_one),
        )
        for key, of_one in runs.items()
    }
    for (receiver, case, associations), median in medians.items():
        prefix = "" if case == "ct" else f"{case}_"
        figures[f"{prefix}{receiver}_instances_per_s_{associations}"] = median.instances_per_s
        figures[f"{prefix}{receiver}_p99_ms_{associations}"] = median.p99_ms
        figures[f"{prefix}{receiver}_peak_memory_mb_{associations}"] = median.peak_memory_mb
    for (receiver, case, associations), median in medians.items():
        if receiver == "triage":
            prefix = "" if case == "ct" else f"{case}_"
            for peer in _PEERS:
                ratio = median.instances_per_s / medians[peer, case, associations].instances_per_s
                figures[f"{prefix}ratio_to_{peer}_{associations}"] = ratio
    return {key: round(value, 3) for key, value in figures.items()}


def _print_table(
    cases: Sequence[Case], associations: Sequence[int], figures: dict[str, float]
) -> None:
    print(f"{os.cpu_count()} cores; instances/s, p99 response time, peak resident memory")
    for case in cases:
        prefix = "" if case.name == "ct" else f"{case.name}_"
        size_kb = case.rows * case.columns * 2 / 1000
        print(f"\n{case.count} instances of {size_kb:.0f} kB")
        print(f"{'associations':>12} {'to Orthanc':>11} {'to DCMTK':>9}   instances/s, p99, memory")
        for number in associations:
            ratios = [figures[f"{prefix}ratio_to_{peer}_{number}"] for peer in _PEERS]
            details = "   ".join(
                f"{receiver}: {figures[f'{prefix}{receiver}_instances_per_s_{number}']:.0f}/s"
                f" {figures[f'{prefix}{receiver}_p99_ms_{number}']:.1f} ms"
                f" {figures[f'{prefix}{receiver}_peak_memory_mb_{number}']:.0f} MB"
                for receiver in _RECEIVERS
            )
            print(f"{number:>12} {ratios[0]:>10.2f}x {ratios[1]:>8.2f}x   {details}")


if __name__ == "__main__":
    main()
