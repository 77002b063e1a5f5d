"""The bell and the alerts in headless Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Page, expect

from tests.web.hospital import Hospital
from tests.web.notified import flag, notifying_app


@pytest.fixture
def app(hospital: Hospital, tmp_path: Path) -> FastAPI:
    """The application of a hospital in which people are told."""
    return notifying_app(hospital, tmp_path / "data")


def test_alert_comes_by_itself_and_is_acknowledged_with_one_click(
    page: Page, address: str, hospital: Hospital
) -> None:
    page.goto(address)
    expect(page.locator("#live")).to_have_attribute("data-state", "live", timeout=60_000)
    expect(page.locator("#bell-count")).to_be_hidden()
    flag(hospital)
    alert = page.locator("#alert")
    expect(alert).to_contain_text("STAT: Hemorrhage, 12.3 mL, confidence 0.97", timeout=60_000)
    expect(alert).to_contain_text("CT Synthetic, Ada 1")
    expect(page.locator("#bell-count")).to_have_text("1")
    assert page.evaluate("Notification.permission") != "granted"  # nobody was asked
    alert.get_by_role("button", name="Acknowledge").click()
    expect(alert).to_have_count(0, timeout=60_000)
    expect(page.locator("#bell-count")).to_be_hidden()
    expect(page.locator("#toast")).to_contain_text("Acknowledged.")


def test_later_hides_an_alert_and_the_page_still_lists_it(
    page: Page, address: str, hospital: Hospital
) -> None:
    flag(hospital)
    page.goto(address)
    page.locator("#alert").get_by_role("button", name="Later").click()
    expect(page.locator("#alert")).to_have_count(0)
    expect(page.locator("#bell-count")).to_have_text("1")
    page.locator("#bell").click()
    expect(page.locator("#notifications tbody tr")).to_have_count(1)
    expect(page.locator("#alert")).to_have_count(0)
    sound = page.get_by_role("button", name="Sound")
    sound.click()
    expect(sound).to_have_attribute("aria-pressed", "true")
    page.locator("#notifications").get_by_role("button", name="Acknowledge").click()
    expect(page.locator("#notifications")).to_contain_text(
        "Nothing waits for an acknowledgement.", timeout=60_000
    )
