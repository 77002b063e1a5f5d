"""How long after a click on a study its first image stands on the screen.

    python benchmarks/first_image.py --slices 300 --rows 512 --json first-image.json

Studies of noise in a head are received into an empty store, and headless Chromium opens the page of
one from a server on loopback: "cold" with an empty cache, then "next study", as a radiologist does
who goes from study to study, none of whose images the browser has. Measured is the time from the
start of the navigation until the first image is seen: the frame of the screen that shows the
picture with which the page comes, as the browser reports it (Element Timing), or the drawing of the
canvas where that was first. "canvas" is when the scripts have drawn the same image (the performance
mark "first-image"), from where on it can be scrolled and windowed. The floor is the same browser
fetching the same pixels by themselves from the same server. Medians and 95th percentiles.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import numpy as np  # noqa: E402
import uvicorn  # noqa: E402
from playwright.sync_api import Page, sync_playwright  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402

from benchmarks.figures import write_figures  # noqa: E402
from tests.tools import ManualClock, find_free_port, require_tool  # noqa: E402
from tests.web.hospital import Hospital  # noqa: E402
from triage.settings import Settings  # noqa: E402
from triage.store.database import Database  # noqa: E402
from triage.store.files import InstanceFiles  # noqa: E402
from triage.web.app import create_app  # noqa: E402

# Asked through the protocol itself: what Playwright puts into a page to wait for an element takes
# the page's thread 25 ms of those that are measured.
_SEEN = """new Promise((resolve) => {
  let picture = Infinity;
  new PerformanceObserver((list) => {
    picture = Math.min(picture, list.getEntries()[0].renderTime);
  }).observe({ type: "element", buffered: true });
  new PerformanceObserver((list) => {
    const canvas = list.getEntriesByName("first-image")[0]?.startTime;
    // The picture's frame is reported with the next one.
    const tell = () => resolve([Math.min(picture, canvas), canvas]);
    if (canvas) requestAnimationFrame(() => setTimeout(tell, 50));
  }).observe({ type: "mark", buffered: true });
})"""
_FETCH = """async (address) => {
  const began = performance.now();
  const answer = await fetch(address, {cache: 'no-store'});
  await answer.arrayBuffer();
  return performance.now() - began;
}"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write one flat object of the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = _measure(Path(folder), arguments.slices, arguments.rows, arguments.repeats)
    for name, seen in figures.items():
        print(
            f"{name:>17}  median {seen['median_ms']:6.0f} ms   p95 {seen['p95_ms']:6.0f} ms   "
            f"{seen['ratio_to_bare_bytes']:6.1f} of the bare bytes"
        )
    if arguments.json:
        write_figures(arguments.json, figures)


class _Raw(argparse.RawDescriptionHelpFormatter):
    pass


def _measure(folder: Path, slices: int, rows: int, repeats: int) -> dict[str, dict[str, float]]:
    database = Database(f"sqlite:///{folder / 'triage.db'}")
    database.migrate()
    hospital = Hospital(database, InstanceFiles(folder), ManualClock())
    studies = [
        [_noisy(image) for image in hospital.head_ct(slices=slices, rows=rows)] for _ in range(2)
    ]
    first, second = (hospital.receive(*images) for images in studies)
    middle = studies[0][slices // 2]
    with _served(hospital, folder) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=require_tool("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        cold, following, floor = [], [], []  # the first two: pairs of seen and drawn by the scripts
        pixels = (
            f"{address}/studies/{first}/series/{middle.SeriesInstanceUID}"
            f"/instances/{middle.SOPInstanceUID}/frames/1"
        )
        for _ in range(repeats):
            context = browser.new_context(viewport={"width": 1440, "height": 900})
            page = context.new_page()
            cold.append(_open(page, f"{address}/studies/{first}"))
            following.append(_open(page, f"{address}/studies/{second}"))
            page.goto(f"{address}/healthz")
            floor.append(float(page.evaluate(_FETCH, pixels)))
            context.close()
        browser.close()
    database.close()
    return {
        "cold": _summary([seen for seen, _ in cold], floor),
        "cold canvas": _summary([drawn for _, drawn in cold], floor),
        "next study": _summary([seen for seen, _ in following], floor),
        "next study canvas": _summary([drawn for _, drawn in following], floor),
        "bare bytes": _summary(floor, floor),
    }


def _open(page: Page, address: str) -> tuple[float, float]:
    """Return after how many milliseconds the first image is seen, and is drawn by the scripts."""
    page.goto(address, wait_until="commit")
    protocol = page.context.new_cdp_session(page)
    answer = protocol.send(
        "Runtime.evaluate", {"expression": _SEEN, "awaitPromise": True, "returnByValue": True}
    )
    protocol.detach()
    seen, drawn = answer["result"]["value"]
    return float(seen), float(drawn)


def _noisy(image: Dataset) -> Dataset:
    """Return the image with noise, which compresses as little as that of a scanner."""
    noise = np.random.default_rng(int(image.InstanceNumber)).integers(0, 30, image.Rows**2)
    values = np.frombuffer(image.PixelData, "<u2") + noise.astype("<u2")
    image.PixelData = values.astype("<u2").tobytes()
    return image


@contextmanager
def _served(hospital: Hospital, folder: Path) -> Iterator[str]:
    settings = Settings(data_directory=folder)
    app = create_app(settings, hospital.database, hospital.files, hospital.clock)
    port = find_free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = server.force_exit = True
    thread.join(timeout=10)


def _summary(found_ms: Sequence[float], floor_ms: Sequence[float]) -> dict[str, float]:
    return {
        "median_ms": statistics.median(found_ms),
        "ratio_to_bare_bytes": statistics.median(found_ms) / statistics.median(floor_ms),
        "p95_ms": float(np.percentile(found_ms, 95)),
        "least_ms": min(found_ms),
        "repeats": len(found_ms),
    }


if __name__ == "__main__":
    main()
