"""Every page, in dark and in light and on a phone, as axe-core sees it (WCAG 2.2 AA)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from playwright.sync_api import Browser, Page

from tests.web.hospital import Hospital, hemorrhage, segmentation
from triage.worklist.reading import mark_as_read

_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_COLOUR_RULES = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
_DESK = {"width": 1440, "height": 900}
_LOOKS: dict[str, dict[str, Any]] = {
    "desk": {"viewport": _DESK},
    "phone": {"viewport": {"width": 390, "height": 844}},
}
# The style sheets choose the colours, so a page that is loaded can be seen in each.
_SCHEMES: dict[str, tuple[Literal["dark", "light"], ...]] = {
    "desk": ("dark", "light"),
    "phone": ("dark",),
}
_PLACES = {
    "study_instance_uid": "",  # filled in by the test
    "name": "head-ct-hemorrhage",
    "version": "1.0.0",
    "job_id": "1",
    "number": "1",
}
_NO_PAGES = (
    "/events",
    "/healthz",
    "/login/callback",
    "/login/oidc",
    "/metrics",
    "/next",
    "/worklist/rows",
    "/studies/{study_instance_uid}/key-images/{sop_instance_uid}",
    "/model-jobs/{job_id}/files",
    "/model-jobs/{job_id}/files/{file_name}",
)


def pages_of(app: FastAPI, study: str) -> list[str]:
    """Return the address of each page that the app has, and of one that it has not."""
    places = {**_PLACES, "study_instance_uid": study}
    routers = [route.original_router for route in app.routes if hasattr(route, "original_router")]
    paths = [
        route.path
        for router in routers
        for route in router.routes
        if "GET" in getattr(route, "methods", ()) and not route.include_in_schema
    ]
    paths = [path for path in paths if path not in _NO_PAGES and "/dicom-web/" not in path]
    return [*(path.format(**places) for path in paths), "/studies/1.2.3"]


def full_hospital(hospital: Hospital) -> str:
    """Fill the hospital with one of everything, and return a study that is flagged."""
    hospital.register_model()
    images = hospital.head_ct(slices=3, rows=64)
    flagged = hospital.receive(*images)
    hospital.complete(flagged)
    masks = np.zeros((3, 64, 64), np.uint8)
    masks[1, 20:30, 20:30] = 1
    finding = hemorrhage(key_image_uids=[images[1].SOPInstanceUID])
    hospital.finish(hospital.claim(), finding, objects=[segmentation(images, masks)])
    clear = hospital.receive(*hospital.head_ct(slices=1, RequestedProcedurePriority="HIGH"))
    hospital.complete(clear)
    hospital.finish(hospital.claim(), hemorrhage(present=False))
    hospital.complete(hospital.receive(*hospital.head_ct(slices=1, Modality="MR")))
    hospital.claim_study(hospital.receive(*hospital.head_ct(slices=1)), "ada")
    read = hospital.receive(*hospital.head_ct(slices=1))
    with hospital.database.transaction() as session:
        mark_as_read(session, read, now=hospital.clock())
    return flagged


def complaints(page: Page, look: str) -> list[str]:
    page.evaluate(Axe().axe_script)
    first, *others = _SCHEMES[look]
    said = _complaints(page, first, _RULES)
    # What other colours make of the same page, with the rules that look at colours.
    return said + [one for scheme in others for one in _complaints(page, scheme, _COLOUR_RULES)]


def _complaints(page: Page, scheme: Literal["dark", "light"], rules: Any) -> list[str]:
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.getAnimations().forEach((one) => one.finish())")
    # Without what is in order, which is most of the page and travels to us for seconds.
    violations = page.evaluate(
        "options => axe.run(options).then((found) => found.violations)",
        {"runOnly": rules, "resultTypes": ["violations"]},
    )
    return [
        f"{scheme}: {one['id']} ({one['impact']}): {node['target']} {node['failureSummary']}"
        for one in violations
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("look", _LOOKS)
def test_axe_finds_nothing_serious_on_any_page(
    browser: Browser, app: FastAPI, address: str, hospital: Hospital, look: str
) -> None:
    study = full_hospital(hospital)
    context = browser.new_context(**_LOOKS[look])
    page = context.new_page()
    page.set_default_timeout(60_000)
    answer = page.request.post(
        f"{address}/api/v1/model-jobs/check",
        headers={"X-Triage-Request": "tests"},
        multipart={"package": {"name": "p.zip", "mimeType": "application/zip", "buffer": b"x"}},
    )
    assert answer.status == 202, answer.text()
    found = {}
    for path in pages_of(app, study):
        page.goto(address + path)
        page.wait_for_load_state("load")
        found[path] = complaints(page, look)
    context.close()
    assert {path: said for path, said in found.items() if said} == {}
    assert len(found) > 10


@pytest.mark.parametrize("look", _LOOKS)
def test_axe_finds_nothing_serious_in_what_opens_on_the_worklist(
    browser: Browser, address: str, hospital: Hospital, look: str
) -> None:
    full_hospital(hospital)
    context = browser.new_context(**_LOOKS[look])
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(address)
    page.locator("#filter-open").click()
    page.get_by_label("CT", exact=False).first.check()
    page.locator("#chosen button").wait_for()
    assert complaints(page, look) == []
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.locator("#keys[open]").wait_for()
    assert complaints(page, look) == []
    context.close()
