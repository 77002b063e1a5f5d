"""A hospital on SQLite and its pages, in memory, as a server, and in headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, sync_playwright

from tests.tools import ManualClock, find_free_port, require_tool
from tests.web.hospital import Hospital
from tests.web.serving import serving
from triage.settings import PrefectSettings, Settings
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.web.app import create_app


@pytest.fixture
def hospital(sqlite_database: Database, files: InstanceFiles, clock: ManualClock) -> Hospital:
    """A hospital without studies."""
    return Hospital(sqlite_database, files, clock)


@pytest.fixture
def app(hospital: Hospital, tmp_path: Path) -> FastAPI:
    """The application on the hospital's database."""
    # Not the usual port: a Triage that runs on this machine is none of the tests' business.
    prefect = PrefectSettings(port=find_free_port())
    settings = Settings(data_directory=tmp_path / "data", prefect=prefect)
    return create_app(settings, hospital.database, hospital.files, hospital.clock)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A client that talks to the application in memory."""
    with TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) as client:
        yield client


@pytest.fixture
def address(app: FastAPI) -> Iterator[str]:
    """The address of the application as a server."""
    with serving(app) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    chromium = require_tool("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page that fails its test for anything that a console would complain about.

    It needs the address only so that it is closed before the server is.
    """
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    yield page
    context.close()
    assert [c for c in complaints if "net::ERR_FAILED" not in c] == []  # cut off by a test
