"""The worklist in headless Chromium: filters, claims, keys, rows that stay under the pointer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Locator, Page, expect

from tests.tools import wait_until
from tests.web.hospital import Hospital, hemorrhage
from tests.web.test_browser import order_of, wait_for_order
from triage.settings import Settings, WebSettings
from triage.web.app import create_app


@pytest.fixture
def app(hospital: Hospital) -> FastAPI:
    """The application behind a proxy that says who somebody is."""
    settings = Settings(web=WebSettings(user_header="X-Remote-User"))
    return create_app(settings, hospital.database, hospital.files, hospital.clock)


def live(page: Page, address: str, who: str = "ada") -> None:
    page.set_extra_http_headers({"X-Remote-User": who})
    page.goto(address)
    expect(page.locator("#live")).to_have_attribute("data-state", "live")


def receive(hospital: Hospital, **said: str) -> str:
    uid = hospital.receive(*hospital.head_ct(slices=1, **said))
    hospital.clock.advance(60)
    return uid


def row(page: Page, uid: str) -> Locator:
    return page.locator(f'#rows > tr[data-uid="{uid}"]')


def top_of(row: Locator) -> float:
    box = row.bounding_box()
    assert box is not None
    return box["y"]


def test_row_under_the_pointer_stays_until_the_pointer_leaves(
    page: Page,
    address: str,
    hospital: Hospital,
) -> None:
    hospital.register_model()
    first, second, third = (receive(hospital) for _ in range(3))
    live(page, address)
    row(page, second).hover()
    top = top_of(row(page, second))
    urgent = receive(hospital, RequestedProcedurePriority="STAT")
    wait_for_order(page, [urgent, second, first, third])
    expect(page.locator("#waits")).to_contain_text("1 change waits")
    page.wait_for_function("() => !document.getAnimations().length")
    assert abs(top_of(row(page, second)) - top) < 2
    page.locator("h1").hover()
    wait_for_order(page, [urgent, first, second, third])
    expect(page.locator("#waits")).to_be_hidden()


def test_focused_row_stays_and_a_key_lets_it_go(
    page: Page,
    address: str,
    hospital: Hospital,
) -> None:
    first, second = (receive(hospital) for _ in range(2))
    live(page, address)
    page.keyboard.press("j")
    expect(row(page, first).locator("a.open")).to_be_focused()
    urgent = receive(hospital, RequestedProcedurePriority="STAT")
    wait_for_order(page, [first, urgent, second])
    expect(row(page, first).locator("a.open")).to_be_focused()
    page.keyboard.press(".")
    wait_for_order(page, [urgent, first, second])


def test_flag_lights_up_in_a_row_that_is_held(
    page: Page,
    address: str,
    hospital: Hospital,
) -> None:
    hospital.register_model()
    first, second = (receive(hospital) for _ in range(2))
    hospital.complete(second)
    live(page, address)
    row(page, second).hover()
    hospital.finish(hospital.claim(), hemorrhage())
    expect(row(page, second)).to_contain_text("Hemorrhage, 12.3 mL")
    assert order_of(page) == [first, second]
    page.locator("h1").hover()
    wait_for_order(page, [second, first])


def test_filters_are_combined_shown_and_taken_away_again(
    page: Page,
    address: str,
    hospital: Hospital,
) -> None:
    head = receive(hospital, BodyPartExamined="HEAD")
    knee = receive(hospital, BodyPartExamined="KNEE")
    magnetic = receive(hospital, BodyPartExamined="KNEE", Modality="MR")
    live(page, address)
    page.keyboard.press("f")
    page.get_by_label("KNEE").check()
    wait_for_order(page, [knee, magnetic])
    page.get_by_label("MR", exact=False).first.check()
    wait_for_order(page, [magnetic])
    expect(page.locator("#matching")).to_have_text("1 match the filter")
    page.get_by_role("button", name="Remove the filter KNEE").click()
    wait_for_order(page, [magnetic])
    page.keyboard.press("Escape")
    page.keyboard.press("x")
    wait_for_order(page, [head, knee, magnetic])
    assert page.url == f"{address}/"


def test_search_is_kept_in_the_tab_and_no_address(
    page: Page,
    address: str,
    hospital: Hospital,
) -> None:
    wanted = receive(hospital, PatientName="Lovelace^Ada")
    receive(hospital, PatientName="Hopper^Grace")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    live(page, address)
    page.keyboard.press("/")
    page.keyboard.type("lovelace")
    wait_for_order(page, [wanted])
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/studies/{wanted}")
    page.go_back()
    wait_for_order(page, [wanted])
    expect(page.get_by_placeholder("Name, ID")).to_have_value("lovelace")
    assert not [url for url in asked if "lovelace" in url.lower()]


def test_view_is_saved_and_opens_the_list(
    page: Page,
    browser: Browser,
    address: str,
    hospital: Hospital,
) -> None:
    receive(hospital)
    magnetic = receive(hospital, Modality="MR")
    live(page, address)
    page.keyboard.press("f")
    page.locator('[data-choice="modalities"]').get_by_label("MR").check()
    wait_for_order(page, [magnetic])
    page.get_by_label("Name", exact=True).fill("MR only")
    page.get_by_label("Open the list with it").check()
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#toast")).to_contain_text("Saved as MR only")
    other = browser.new_context().new_page()
    live(other, address)
    wait_for_order(other, [magnetic])
    other.get_by_label("Saved views").select_option("All studies")
    expect(other.locator("#rows > tr")).to_have_count(2)
    other.context.close()


@pytest.fixture
def colleague(browser: Browser, address: str) -> Iterator[Page]:
    """The browser of somebody else."""
    context = browser.new_context()
    page = context.new_page()
    live(page, address, who="grace")
    yield page
    context.close()


def test_study_claimed_in_one_browser_is_seen_in_another(
    page: Page,
    colleague: Page,
    address: str,
    hospital: Hospital,
) -> None:
    first, _ = (receive(hospital) for _ in range(2))
    live(page, address)
    page.keyboard.press("j")
    page.keyboard.press("c")
    expect(row(page, first)).to_contain_text("You are reading")
    expect(row(colleague, first)).to_contain_text("ada is reading")
    expect(row(colleague, first).get_by_role("button", name="Take over")).to_be_visible()
    page.keyboard.press("c")
    expect(row(page, first)).not_to_contain_text("reading")
    expect(row(colleague, first)).not_to_contain_text("is reading")


def test_study_is_taken_over_with_a_word(
    page: Page,
    address: str,
    hospital: Hospital,
) -> None:
    uid = receive(hospital)
    hospital.claim_study(uid, "grace")
    live(page, address)
    expect(row(page, uid)).to_contain_text("grace is reading")
    page.keyboard.press("j")
    page.keyboard.press("c")
    page.get_by_label("Why you take it over").fill("she is in theatre")
    page.keyboard.press("Enter")
    expect(row(page, uid)).to_contain_text("You are reading")


def test_study_is_claimed_and_released_on_its_page(
    page: Page,
    address: str,
    hospital: Hospital,
) -> None:
    uid = receive(hospital)
    live(page, f"{address}/studies/{uid}")
    page.get_by_role("button", name="Claim", exact=True).click()
    expect(page.locator("#study-head")).to_contain_text("You are reading")
    page.get_by_role("button", name="Release", exact=True).click()
    expect(page.locator("#study-head")).not_to_contain_text("You are reading")


def test_everything_is_done_with_the_keyboard(
    page: Page,
    address: str,
    hospital: Hospital,
) -> None:
    first, second, third = (receive(hospital) for _ in range(3))
    live(page, address)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    for key in ("j", "j", "ArrowDown", "k"):
        page.keyboard.press(key)
    expect(row(page, second).locator("a.open")).to_be_focused()
    page.keyboard.press("r")
    wait_for_order(page, [first, third])
    expect(row(page, third).locator("a.open")).to_be_focused()
    page.keyboard.press("Home")
    expect(row(page, first).locator("a.open")).to_be_focused()
    page.keyboard.press("d")
    expect(page.locator("html")).to_have_attribute("data-density", "compact")
    page.keyboard.press("n")
    page.wait_for_url(f"**/studies/{first}")


def test_colours_and_density_are_remembered(page: Page, address: str, hospital: Hospital) -> None:
    receive(hospital)
    page.emulate_media(color_scheme="dark")
    live(page, address)
    dark = page.evaluate("getComputedStyle(document.body).getPropertyValue('--ground')")
    page.emulate_media(color_scheme="light")
    light = page.evaluate("getComputedStyle(document.body).getPropertyValue('--ground')")
    assert light != dark
    page.keyboard.press("t")  # dark, whatever the system says
    page.keyboard.press("d")
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).getPropertyValue('--ground')") == dark
    expect(page.locator("html")).to_have_attribute("data-density", "compact")
    expect(page.get_by_role("button", name="Colours: dark")).to_be_visible()


def test_list_is_turned_page_by_page(
    page: Page,
    address: str,
    hospital: Hospital,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("triage.web.board", "triage.web.worklist_pages"):
        monkeypatch.setattr(f"{module}.PAGE_SIZE", 2)
    first, second, third = (receive(hospital) for _ in range(3))
    live(page, address)
    wait_for_order(page, [first, second])
    page.keyboard.press("]")
    wait_for_order(page, [third])
    expect(row(page, third).locator(".place")).to_have_text("3")
    page.keyboard.press("[")
    wait_for_order(page, [first, second])


def test_card_on_a_phone_uses_its_width(page: Page, address: str, hospital: Hospital) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    uid = receive(hospital)
    live(page, address)

    def least_width() -> float:
        cells = [row(page, uid).locator(f"td.{name}") for name in ("what", "outcome")]
        return min(cell.evaluate("td => td.getBoundingClientRect().width") for cell in cells)

    # A refresh may take a row away while one looks at it; it then has no width.
    wait_until(lambda: least_width() > 200, "the card uses the width")
