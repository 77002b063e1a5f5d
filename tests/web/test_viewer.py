"""The OHIF viewer on a port of its own: what it is given, what it may do, and what it shows."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from pydicom.dataset import Dataset

from tests.results.scenes import build, head_analysis, head_manifest
from tests.tools import PROJECT, find_free_port, require_tool, wait_until
from tests.web.hospital import Hospital
from triage.settings import Settings, SettingsError, ViewerSettings, load_settings
from triage.web.app import create_app, with_viewer

# WebGL without a graphics card.
_GRAPHICS = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
_INDEX = "<!doctype html><script>let a = 1</script><title>Viewer</title>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a few files as the viewer has them."""
    folder = tmp_path / "viewer"
    folder.mkdir()
    for name, content in (
        ("index.html", _INDEX),
        ("app.js", "1"),
        ("codec.wasm", "2"),
        ("app-config.js", "its own"),
    ):
        (folder / name).write_text(content)
    return folder


def settings_for(folder: Path, **more: object) -> Settings:
    viewer = ViewerSettings.model_validate({"path": folder, "port": 8081, **more})
    return Settings(viewer=viewer)


@contextmanager
def served(hospital: Hospital, settings: Settings) -> Iterator[Callable[..., TestClient]]:
    """Give a function from a port to a client of it; connections stay in memory."""
    pages = create_app(settings, hospital.database, hospital.files, hospital.clock)
    app = with_viewer(pages, settings)
    with TestClient(pages):
        yield lambda port, host="127.0.0.1": TestClient(app, base_url=f"http://{host}:{port}")


def test_viewer_has_its_own_port_files_and_headers(hospital: Hospital, folder: Path) -> None:
    with served(hospital, settings_for(folder)) as at:
        viewer, pages = at(8081), at(8080)
        for path, kind in (
            ("/", "text/html"),
            ("/viewer?StudyInstanceUIDs=1.2", "text/html"),
            ("/segmentation", "text/html"),
            ("/app.js", "text/javascript"),
            ("/codec.wasm", "application/wasm"),
            ("/app-config.js", "text/javascript"),
        ):
            answer = viewer.get(path)
            assert answer.status_code == 200, path
            assert answer.headers["content-type"].startswith(kind), path
            assert answer.headers["cache-control"] == "no-cache"
            assert answer.headers["cross-origin-opener-policy"] == "same-origin"
            assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
            policy = answer.headers["content-security-policy"]
            assert "connect-src 'self' blob: data:;" in policy
            assert "script-src 'self' 'unsafe-eval' 'sha256-" in policy
        assert viewer.get("/").text == viewer.get("/viewer").text == _INDEX
        assert "/dicom-web" in viewer.get("/app-config.js").text
        assert viewer.get("/missing.js").status_code == 404
        assert viewer.get("/../index.html").status_code in (200, 404)
        assert viewer.get("/worklist/rows").text == _INDEX  # the pages are not there
        assert pages.get("/viewer", headers={"accept": "text/html"}).status_code == 404


def test_viewer_reads_over_its_own_origin_and_stores_nothing(
    hospital: Hospital, folder: Path
) -> None:
    image = hospital.head_ct(slices=1)[0]
    uid = hospital.receive(image)
    with served(hospital, settings_for(folder)) as at:
        viewer = at(8081)
        [found] = viewer.get("/dicom-web/studies").json()
        url = f"http://127.0.0.1:8081/dicom-web/studies/{uid}"
        assert found["00081190"]["Value"] == [url]
        assert viewer.get(f"{url}/metadata").status_code == 200
        assert viewer.post("/dicom-web/studies").status_code == 405
        assert viewer.get("/dicom-web/studies/1.2.3/metadata").status_code == 404
        assert viewer.get("/dicom-web/studies/x/metadata").status_code == 400
        assert (
            "access-control-allow-origin"
            not in viewer.get(
                "/dicom-web/studies", headers={"Origin": "http://elsewhere.example"}
            ).headers
        )
        assert at(8081, "rebound.example").get("/dicom-web/studies").status_code == 421


def test_study_page_links_to_the_viewer_where_it_is(hospital: Hospital, folder: Path) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=1))
    html = {"accept": "text/html"}

    def link(settings: Settings) -> str:
        with served(hospital, settings) as at:
            page = at(8080).get(f"/studies/{uid}", headers=html).text
        return page.partition('class="other-viewer" href="')[2].partition('"')[0]

    assert link(settings_for(folder)) == f"http://127.0.0.1:8081/viewer?StudyInstanceUIDs={uid}"
    elsewhere = settings_for(folder, url="https://viewer.example.org")
    assert link(elsewhere) == f"https://viewer.example.org/viewer?StudyInstanceUIDs={uid}"
    assert link(settings_for(folder, enabled=False)) == ""
    with served(hospital, settings_for(folder / "nowhere")) as at:
        page = at(8080).get(f"/studies/{uid}", headers=html).text
        assert "OHIF" not in page
        assert at(8081).get("/healthz").text == "ok\n"  # no viewer, so the pages


@pytest.mark.slow
def test_pages_come_up_where_the_port_of_the_viewer_is_taken(
    hospital: Hospital, folder: Path, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = find_free_port()
        environment = {
            **os.environ,
            "TRIAGE_DATA_DIRECTORY": str(tmp_path / "data"),
            "TRIAGE_DATABASE__URL": hospital.database.url,
            "TRIAGE_WEB__PORT": str(port),
            "TRIAGE_VIEWER__PORT": str(taken.getsockname()[1]),
            "TRIAGE_VIEWER__PATH": str(folder),
        }
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "triage.cli", "web"], env=environment, stderr=log
            )
        try:
            said = tmp_path / "log"
            wait_until(lambda: "web.listening" in said.read_text(), "it listens", timeout_s=60)
            wait_until(lambda: _answers(port), "the pages answer", timeout_s=60)
        finally:
            process.terminate()
            process.wait(timeout=30)
    assert "web.no_viewer" in said.read_text()
    assert "TRIAGE_VIEWER__PORT=" in said.read_text()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").is_success
    except httpx.TransportError:
        return False


def test_wrong_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIAGE_VIEWER__PORT", "8080")
    with pytest.raises(SettingsError, match=r"viewer\.port and web\.port must differ"):
        load_settings()
    monkeypatch.setenv("TRIAGE_VIEWER__PORT", "8081")
    monkeypatch.setenv("TRIAGE_VIEWER__URL", "https://example.org/viewer")
    with pytest.raises(SettingsError, match=r"viewer\.url.*without a path"):
        load_settings()


@pytest.fixture
def ohif() -> Path:
    """The folder of the real viewer, fetched with npm where it is not there yet."""
    require_tool("npm")
    folder = PROJECT / "var" / "viewer"
    subprocess.run([str(PROJECT / "deploy" / "viewer.sh"), str(folder)], check=True, timeout=240)
    return folder


@pytest.fixture
def addresses(hospital: Hospital, ohif: Path) -> Iterator[tuple[str, str]]:
    """Where the pages and the viewer are served."""
    ports = find_free_port(), find_free_port()
    settings = settings_for(ohif, port=ports[1])
    pages = create_app(settings, hospital.database, hospital.files, hospital.clock)
    config = uvicorn.Config(
        with_viewer(pages, settings), log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    sockets = [uvicorn.Config(pages, port=port).bind_socket() for port in ports]
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets}, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the server listens")
    yield f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
    server.should_exit = server.force_exit = True
    thread.join(timeout=10)
    for one in sockets:
        one.close()


@pytest.fixture
def study(hospital: Hospital) -> str:
    """A head CT with the SEG and the SR that Triage makes of it."""
    images = hospital.head_ct(slices=6, rows=128)
    hospital.receive(*images)
    files = [hospital.files.absolute(hospital.store(image).path) for image in images]
    mask = np.zeros((6, 128, 128), np.uint8)
    mask[:, 40:80, 50:90] = 3
    results = build(head_analysis(files, mask=mask), head_manifest())
    objects: list[Dataset] = [one.dataset for one in results if one.role in ("seg", "sr")]
    assert [one.Modality for one in objects] == ["SEG", "SR"]
    return hospital.receive(*objects)


@contextmanager
def browsing() -> Iterator[Page]:
    """A page in Chromium that may ask this machine alone."""
    with sync_playwright() as playwright:
        playwright.selectors.set_test_id_attribute("data-cy")
        browser = playwright.chromium.launch(
            executable_path=require_tool("chromium"), args=["--no-sandbox", *_GRAPHICS]
        )
        page = browser.new_page(viewport={"width": 1000, "height": 700})
        page.set_default_timeout(90_000)
        yield page
        browser.close()


def coloured_pixels(page: Page) -> int:
    """Return how many pixels of the image have a colour: what is not grey is laid over it."""
    box = page.get_by_test_id("viewport-pane").first.bounding_box()
    assert box is not None
    # A screenshot of the page, and not of the element: that one waits until nothing moves.
    shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    left, top, width, height = box["x"], box["y"], box["width"], box["height"]
    middle = (left + width / 4, top + height / 4, left + width * 3 / 4, top + height * 3 / 4)
    pixels = np.asarray(shown.crop(middle)).astype(int)
    return int((np.ptp(pixels, axis=2) > 40).sum())


def test_ohif_shows_images_segmentation_and_report(
    addresses: tuple[str, str], study: str, tmp_path: Path
) -> None:
    pages, viewer = addresses
    with browsing() as page:
        asked: set[str] = set()
        refused: list[str] = []
        page.on("request", lambda request: asked.add(request.url))
        page.on(
            "console", lambda m: refused.append(m.text) if "Content Security" in m.text else None
        )
        page.goto(f"{pages}/studies/{study}")
        link = page.get_by_role("link", name="Open in OHIF").get_attribute("href")
        assert link == f"{viewer}/viewer?StudyInstanceUIDs={study}"
        page.goto("about:blank")
        asked.clear()
        page.goto(link)
        for modality in ("CT", "SEG", "SR"):
            expect(page.get_by_text(modality, exact=True).first).to_be_visible(timeout=60_000)
        page.get_by_role("button", name="Confirm and hide").click()
        expect(page.get_by_text("I:6", exact=False).first).to_be_visible(timeout=60_000)
        assert coloured_pixels(page) == 0
        page.get_by_text("SEG", exact=True).first.dblclick()
        wait_until(lambda: coloured_pixels(page) > 2000, "the segment is drawn", timeout_s=60)
        page.get_by_test_id("panelSegmentation-btn").click()
        label = page.get_by_text("Intracranial hemorrhage", exact=True)
        expect(label.first).to_be_visible(timeout=60_000)
        page.screenshot(path=tmp_path / "segment.png")
    elsewhere = [url for url in asked if not url.startswith((viewer, "blob:", "data:"))]
    assert elsewhere == []
    assert refused == []
