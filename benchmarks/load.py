"""What one huge instance, and many slow senders, cost the receiver.

    python benchmarks/load.py --gigabytes 2 --slow 64 --json load.json

The first figure is the receiver's peak resident memory while one multi-frame instance of 2 GB
arrives, beside the size of the instance. The second is the rate of one quick sender while 63 others
each hold an association and send one byte a second, beside its rate alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from pydicom.dataset import Dataset  # noqa: E402
from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage  # noqa: E402
from pynetdicom.dsutils import encode  # noqa: E402

from benchmarks.raw_sender import RawSender  # noqa: E402
from benchmarks.receive import PeakMemory, Triage, running  # noqa: E402
from tests.datasets import ct_slice  # noqa: E402

_FRAME_BYTES = 512 * 512 * 2
_QUICK_INSTANCES = 300


def main() -> None:
    """Measure, print, and write the figures."""
    arguments = _arguments()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="triage-load-", dir=arguments.folder) as name:
        receiver = Triage(Path(name) / "huge")
        with running(receiver) as process, PeakMemory(process) as memory:
            idle_mb = memory.now_mb()
            began = time.perf_counter()
            size = _send_huge(receiver.port, arguments.gigabytes)
            seconds = time.perf_counter() - began
        figures["instance_mb"] = size / 1e6
        figures["idle_memory_mb"] = idle_mb
        figures["peak_memory_mb"] = memory.megabytes
        figures["ratio_memory_to_instance"] = memory.megabytes / (size / 1e6)
        figures["instance_mb_per_s"] = size / 1e6 / seconds
        receiver = Triage(Path(name) / "slow")
        with running(receiver) as process, PeakMemory(process) as memory:
            alone = _quick_rate(receiver.port, "1.2.3")
            with _Slow(receiver.port, arguments.slow - 1) as slow:
                beside = _quick_rate(receiver.port, "1.2.4")
                figures["slow_associations_held"] = slow.held()
        figures["quick_alone_instances_per_s"] = alone
        figures["quick_beside_slow_instances_per_s"] = beside
        figures["ratio_beside_slow_to_alone"] = beside / alone
        figures["slow_peak_memory_mb"] = memory.megabytes
    figures = {key: round(value, 3) for key, value in figures.items()}
    for key, value in figures.items():
        print(f"{key:<36} {value:g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the instance")
    parser.add_argument("--slow", type=int, default=64, help="associations in all (default 64)")
    parser.add_argument("--folder", type=Path, help="where the stores are (default: TMPDIR)")
    parser.add_argument("--json", type=Path, help="write one flat object of the figures")
    return parser.parse_args()


def _send_huge(port: int, gigabytes: float) -> int:
    """Send one multi-frame instance and return its size in bytes."""
    frames = int(gigabytes * 1e9 / _FRAME_BYTES)
    dataset = ct_slice("1.2.3")
    dataset.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    dataset.Rows = dataset.Columns = 512
    dataset.NumberOfFrames = frames
    del dataset.PixelData
    pixels = frames * _FRAME_BYTES
    sender = RawSender(port, dataset.SOPClassUID)
    status = sender.send(dataset.SOPInstanceUID, _huge(dataset, frames))
    if status != 0:
        raise SystemExit(f"the receiver answers 0x{status:04X}")
    sender.close()
    return pixels


def _huge(dataset: Dataset, frames: int) -> Iterator[bytes]:
    header = encode(dataset, False, True)
    assert header is not None
    yield header
    pixels = frames * _FRAME_BYTES
    yield b"\xe0\x7f\x10\x00OW\x00\x00" + pixels.to_bytes(4, "little")
    frame = os.urandom(_FRAME_BYTES)
    for _ in range(frames):
        yield frame


def _quick_rate(port: int, study: str) -> float:
    """Return how many slices of 0.5 MB a second one sender gets rid of."""
    slices = []
    for number in range(_QUICK_INSTANCES):
        dataset = ct_slice(study, number, Rows=512, Columns=512, PixelData=os.urandom(_FRAME_BYTES))
        slices.append((dataset.SOPInstanceUID, encode(dataset, False, True) or b""))
    sender = RawSender(port, dataset.SOPClassUID)
    began = time.perf_counter()
    for uid, content in slices:
        if sender.send(uid, [content]) != 0:
            raise SystemExit("an instance was refused")
    seconds = time.perf_counter() - began
    sender.close()
    return len(slices) / seconds


class _Slow:
    """Associations that each send a data set one byte a second."""

    def __init__(self, port: int, count: int) -> None:
        dataset = ct_slice("1.2.5", Rows=512, Columns=512, PixelData=bytes(_FRAME_BYTES))
        self._content = encode(dataset, False, True) or b""
        self._senders = [
            RawSender(port, dataset.SOPClassUID, f"SLOW{number}") for number in range(count)
        ]
        for number, sender in enumerate(self._senders):
            sender.begin(f"{dataset.SOPInstanceUID}.{number}")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._dribble)

    def __enter__(self) -> _Slow:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        for sender in self._senders:
            sender.abandon()

    def held(self) -> int:
        """Return how many of them the receiver has not hung up on."""
        return sum(sender.is_open() for sender in self._senders)

    def _dribble(self) -> None:
        place = 0
        while not self._stopping.wait(1.0):
            for sender in self._senders:
                sender.send_piece(self._content[place : place + 1])
            place += 1


if __name__ == "__main__":
    main()
