"""The study page in headless Chromium: two stacks, overlays, tools, and answering."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from highdicom.content import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from playwright.sync_api import Browser, Page, Route, expect
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from tests.models.images import enhanced
from tests.tools import wait_until
from tests.web.hospital import Hospital, hemorrhage
from tests.web.radiographs import analysed_chest
from tests.web.test_browser import flagged_study, open_viewer, red_pixels


def heat_map(image: Dataset, values: np.ndarray[Any, Any]) -> Dataset:
    """Return a parametric map of `values` (rows, columns) from 0 to 1 on one image."""
    return ParametricMap(
        source_images=[image],
        pixel_array=values.astype(np.float32)[np.newaxis],
        series_instance_uid=generate_uid(),
        series_number=9005,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Triage",
        manufacturer_model_name="tests",
        software_versions="0",
        device_serial_number="0",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            RealWorldValueMapping(
                lut_label="SALIENCY",
                lut_explanation="Saliency: Hemorrhage",
                unit=codes.UCUM.NoUnits,
                value_range=(0.0, 1.0),
                slope=1.0,
                intercept=0.0,
            )
        ],
        voi_lut_transformations=[VOILUTTransformation(window_center=0.5, window_width=1.0)],
    )


def pixel(page: Page, x: float, y: float, canvas: str = "canvas") -> list[int]:
    """Return red, green and blue at a part of the way across and down a canvas."""
    return list(
        page.evaluate(
            """([id, x, y]) => {
              const canvas = document.getElementById(id);
              const at = [Math.floor(x * canvas.width), Math.floor(y * canvas.height)];
              return [...canvas.getContext('2d').getImageData(...at, 1, 1).data].slice(0, 3);
            }""",
            [canvas, x, y],
        )
    )


def coloured_pixels(page: Page) -> int:
    """Count the pixels of the canvas that are not grey, as the image is."""
    return int(
        page.evaluate(
            """() => {
              const canvas = document.getElementById('canvas');
              const context = canvas.getContext('2d');
              const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
              let count = 0;
              for (let i = 0; i < data.length; i += 4) {
                count += Math.abs(data[i] - data[i + 2]) > 20 ? 1 : 0;
              }
              return count;
            }"""
        )
    )


def two_studies(hospital: Hospital, slices: Sequence[int] = (6, 11), **second: Any) -> list[str]:
    """Receive two studies of one patient, with slices at 5 mm and at other distances."""
    studies = []
    for number, count in enumerate(slices):
        images = hospital.head_ct(
            slices=count,
            rows=64,
            PatientID="SYN-TWICE",
            PatientName="Synthetic^Twice",
            StudyDate=f"2026030{9 - number}",
            **(second if number else {}),
        )
        studies.append(hospital.receive(*images))
    return studies


def compare(page: Page, uid: str) -> None:
    page.locator("#prior-choice").select_option(uid)
    page.wait_for_selector("#prior-canvas:not([data-drawn=''])[data-drawn]")
    expect(page.locator('[data-do="link"]')).to_have_attribute("aria-pressed", "true")


def test_a_prior_stands_beside_and_is_scrolled_by_distance_with_its_own_window(
    page: Page, address: str, hospital: Hospital
) -> None:
    uid, prior = two_studies(hospital)
    open_viewer(page, address, uid)
    compare(page, prior)
    expect(page.locator("#link-words")).to_contain_text("Linked by distance along the slices")
    main, other = (page.locator(f"#{one}").bounding_box() for one in ("canvas", "prior-canvas"))
    assert main is not None
    assert other is not None
    assert (main["y"], main["height"]) == (other["y"], other["height"])
    expect(page.locator("#corner-patient")).to_contain_text("2026-03-09")
    expect(page.locator("#corner-image")).to_have_text("Image 4 / 6")
    expect(page.locator("#prior-corner-image")).to_have_text("Image 7 / 11")
    page.locator("#viewport").hover()
    page.mouse.wheel(0, 100)
    expect(page.locator("#corner-image")).to_have_text("Image 5 / 6")
    expect(page.locator("#prior-corner-image")).to_have_text("Image 8 / 11")
    page.locator("#prior-viewport").hover()
    page.mouse.wheel(0, -100)
    expect(page.locator("#prior-corner-image")).to_have_text("Image 7 / 11")
    expect(page.locator("#corner-image")).to_have_text("Image 4 / 6")
    page.get_by_role("button", name="Bone").click()  # the prior was touched last
    expect(page.locator("#prior-corner-window")).to_contain_text("W 2500 L 480")
    expect(page.locator("#corner-window")).to_contain_text("W 80 L 40")
    page.get_by_role("button", name="Link").click()
    page.locator("#viewport").hover()
    page.mouse.wheel(0, 100)
    expect(page.locator("#corner-image")).to_have_text("Image 5 / 6")
    expect(page.locator("#prior-corner-image")).to_have_text("Image 7 / 11")
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#prior-pane")).to_be_hidden()
    assert uid in page.url  # the address names only the study, never a patient
    assert "SYN" not in page.url


def test_studies_in_one_frame_of_reference_are_scrolled_by_position(
    page: Page, address: str, hospital: Hospital
) -> None:
    frame = {"FrameOfReferenceUID": generate_uid()}
    first = hospital.head_ct(slices=6, PatientID="SYN-TWICE", StudyDate="20260309", **frame)
    second = hospital.head_ct(slices=6, PatientID="SYN-TWICE", StudyDate="20260301", **frame)
    for image in second:  # 10 mm further on
        image.ImagePositionPatient[2] += 10
    uid, prior = hospital.receive(*first), hospital.receive(*second)
    open_viewer(page, address, uid)
    compare(page, prior)
    expect(page.locator("#link-words")).to_contain_text(
        "Linked by position (one frame of reference)"
    )
    expect(page.locator("#corner-image")).to_have_text("Image 4 / 6")
    expect(page.locator("#prior-corner-image")).to_have_text("Image 2 / 6")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#prior-corner-image")).to_have_text("Image 3 / 6")


def test_stacks_that_lie_otherwise_are_scrolled_by_number(
    page: Page, address: str, hospital: Hospital
) -> None:
    uid, prior = two_studies(hospital, (4, 4), ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    open_viewer(page, address, uid)
    compare(page, prior)
    expect(page.locator("#link-words")).to_contain_text("Linked by image number")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#corner-image")).to_have_text("Image 4 / 4")
    expect(page.locator("#prior-corner-image")).to_have_text("Image 4 / 4")


def test_a_heat_map_has_its_own_opacity_and_colour_scale(
    page: Page, address: str, hospital: Hospital
) -> None:
    hospital.register_model()
    images = hospital.head_ct(slices=3, rows=64)
    uid = hospital.receive(*images)
    hospital.complete(uid)
    values = np.zeros((64, 64))
    values[26:38, 26:38] = 1.0
    hospital.finish(
        hospital.claim(),
        hemorrhage(key_image_uids=[images[1].SOPInstanceUID]),
        objects=[heat_map(images[1], values)],
    )
    open_viewer(page, address, uid)
    expect(page.locator("#scale")).to_be_visible()
    expect(page.locator("#scale")).to_contain_text("1")
    assert page.locator("#heat-map").input_value() != ""
    wait_until(lambda: coloured_pixels(page) > 1000, "the map is laid over the image")
    red, _, blue = pixel(page, 0.5, 0.5)
    assert red > blue + 40  # the light end of the scale is yellow
    page.locator("#heat-opacity").fill("10")
    fainter_red, _, fainter_blue = pixel(page, 0.5, 0.5)
    assert 0 < fainter_red - fainter_blue < red - blue
    page.keyboard.press("h")
    assert coloured_pixels(page) == 0
    expect(page.locator("#scale")).to_be_hidden()


def test_heat_map_of_a_radiograph_lies_where_the_model_looked_however_it_is_turned(
    page: Page, address: str, hospital: Hospital, tmp_path: Path
) -> None:
    image, _ = analysed_chest(hospital, tmp_path)
    open_viewer(page, address, image.StudyInstanceUID)
    expect(page.locator("#heat-tools")).to_be_visible()
    expect(page.locator("#heat-map")).to_be_hidden()  # there is nothing to choose
    expect(page.locator("#scale")).to_contain_text("Saliency: Pneumothorax")

    def is_hot(column: float, row: float) -> bool:
        """Ask for a place of the image, which is 100 by 120 and fills the height."""
        width, height = page.evaluate("[canvas.width, canvas.height]")
        scale = height / 120
        x, y = 0.5 + (column - 50) * scale / width, row * scale / height
        red, _, blue = pixel(page, x, y)
        return red > blue + 40

    assert is_hot(75, 25)
    assert not is_hot(25, 25)
    assert not is_hot(75, 90)
    page.keyboard.press("x")
    assert is_hot(25, 25)
    assert not is_hot(75, 25)
    page.locator("#heat-opacity").fill("0")
    assert coloured_pixels(page) == 0
    page.locator("#heat-opacity").fill("80")
    assert is_hot(25, 25)
    page.keyboard.press("h")
    assert coloured_pixels(page) == 0
    page.get_by_role("button", name="Heat map", exact=True).last.click()  # at the finding
    assert is_hot(25, 25)
    expect(page.locator("#corner-series")).to_contain_text("DX")  # over the image itself


def test_image_is_turned_mirrored_and_measured(
    page: Page, address: str, hospital: Hospital
) -> None:
    image = hospital.head_ct(slices=1, rows=128)[0]
    stored = np.full((128, 128), 1024, "<u2")
    stored[:64, :64] = 1024 + 80  # only the upper left quarter is bright
    image.PixelData = stored.tobytes()
    open_viewer(page, address, hospital.receive(image))

    def bright() -> list[bool]:
        places = ((0.4, 0.3), (0.6, 0.3), (0.6, 0.7), (0.4, 0.7))
        return [pixel(page, x, y)[0] > 200 for x, y in places]

    assert bright() == [True, False, False, False]
    page.get_by_role("button", name="Turn").click()
    assert bright() == [False, True, False, False]
    page.keyboard.press("x")
    assert bright() == [True, False, False, False]
    page.keyboard.press("r")  # a quarter clockwise as it is seen, mirrored or not
    assert bright() == [False, True, False, False]
    expect(page.locator("#corner-window")).to_contain_text("Mirrored")
    page.keyboard.press("f")
    assert bright() == [True, False, False, False]
    box = page.locator("#viewport").bounding_box()
    assert box is not None
    scale = min(box["width"], box["height"]) / 128  # CSS pixels to a pixel of 1.875 mm
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.keyboard.press("m")
    page.evaluate(
        """() => {
          const drawn = CanvasRenderingContext2D.prototype.fillText;
          window.written = [];
          CanvasRenderingContext2D.prototype.fillText = function (...said) {
            window.written.push(said[0]);
            return drawn.apply(this, said);
          };
        }"""
    )
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 32 * scale, y, steps=4)
    page.mouse.up()
    length = re.fullmatch(r"([\d.]+) mm", page.evaluate("window.written.at(-1)"))
    assert length is not None
    assert float(length[1]) == pytest.approx(60, abs=1)


EDGES = ("top", "right", "bottom", "left")


def edges(page: Page, pane: str = "") -> list[str]:
    """Return the letters at the edges of a stack, clockwise from the top."""
    return [page.locator(f"#{pane}edge-{edge}").inner_text() for edge in EDGES]


def test_edges_say_which_side_of_the_patient_is_where_however_the_image_is_turned(
    page: Page, address: str, hospital: Hospital
) -> None:
    open_viewer(page, address, hospital.receive(*hospital.head_ct(slices=2, rows=32)))
    assert edges(page) == ["A", "L", "P", "R"]
    for key in "rxrrxrxrr":
        top, right, bottom, left = edges(page)
        page.keyboard.press(key)
        is_turned = key == "r"
        expected = [left, top, right, bottom] if is_turned else [top, left, bottom, right]
        assert edges(page) == expected
    page.keyboard.press("f")
    assert edges(page) == ["A", "L", "P", "R"]


def test_each_stack_has_its_own_letters_two_where_it_lies_oblique(
    page: Page, address: str, hospital: Hospital
) -> None:
    uid, prior = two_studies(hospital, (2, 2), ImageOrientationPatient=[0.8, 0.6, 0, 0, 0, -1])
    open_viewer(page, address, uid)
    compare(page, prior)
    assert edges(page) == ["A", "L", "P", "R"]
    assert edges(page, "prior-") == ["H", "LP", "F", "RA"]


def test_radiograph_has_the_letters_that_it_states_and_none_without(
    page: Page, address: str, hospital: Hospital
) -> None:
    radiograph, unsaid = hospital.head_ct(slices=2, rows=32, Modality="DX")
    for image in (radiograph, unsaid):
        del image.ImageOrientationPatient, image.ImagePositionPatient
    radiograph.PatientOrientation = ["L", "F"]
    open_viewer(page, address, hospital.receive(radiograph, unsaid))
    page.keyboard.press("Home")
    expect(page.locator("#edge-right")).to_have_text("L")
    assert edges(page) == ["H", "L", "F", "R"]
    page.keyboard.press("End")
    expect(page.locator("#edge-right")).to_have_text("")
    assert edges(page) == ["", "", "", ""]


def shown_kind(page: Page) -> dict[str, int]:
    """Count the pixels of the canvas that are bright, and those that are coloured."""
    return dict(
        page.evaluate(
            """() => {
              const canvas = document.getElementById('canvas');
              const context = canvas.getContext('2d');
              const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
              const found = {bright: 0, coloured: 0};
              for (let i = 0; i < data.length; i += 4) {
                found.bright += data[i + 1] > 60 ? 1 : 0;
                found.coloured += Math.abs(data[i] - data[i + 2]) > 20 ? 1 : 0;
              }
              return found;
            }"""
        )
    )


@pytest.mark.parametrize("name", ["US1_J2KR", "RG3_JLSL", "XA1_JPLL", "MR1_RLE", "CT1_J2KI"])
def test_real_images_of_every_kind_are_shown(
    page: Page, address: str, hospital: Hospital, shared_data: Path, name: str
) -> None:
    image = dcmread(shared_data / "dicom" / "transfer-syntaxes" / f"{name}.dcm")
    open_viewer(page, address, hospital.receive(image))
    assert shown_kind(page)["bright"] > 5000
    if name.startswith("US1"):
        image.decompress()
        is_coloured = bool((np.ptp(image.pixel_array.astype(int), axis=-1) > 40).any())
        assert (shown_kind(page)["coloured"] > 0) == is_coloured


def test_an_enhanced_multi_frame_image_is_scrolled_and_played_at_its_rate(
    page: Page, address: str, hospital: Hospital
) -> None:
    values = np.full((5, 32, 32), 40, np.int16)
    values += 8 * np.arange(5, dtype=np.int16)[:, np.newaxis, np.newaxis]
    image = enhanced(values, [(0, 0, 2.0 * number) for number in range(5)])
    image.RecommendedDisplayFrameRate = 24
    open_viewer(page, address, hospital.receive(image))
    expect(page.locator("#corner-image")).to_have_text("Image 3 / 5")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#corner-image")).to_have_text("Image 4 / 5")
    expect(page.locator("#viewer-message")).to_be_hidden()
    page.keyboard.press("c")
    expect(page.locator("#rate")).to_have_value("24")
    page.keyboard.press("c")
    expect(page.locator('[data-do="play"]')).to_have_attribute("aria-pressed", "false")


def test_stack_is_played_at_the_rate_of_the_image(
    page: Page, address: str, hospital: Hospital
) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=5, rows=32))
    open_viewer(page, address, uid)
    seen = page.evaluate(
        """async () => {
          const seen = new Set();
          new MutationObserver(() => seen.add(document.getElementById('corner-image').textContent))
            .observe(document.getElementById('corner-image'), {childList: true});
          document.querySelector('[data-do="play"]').click();
          while (seen.size < 5) await new Promise((done) => setTimeout(done, 20));
          return [...seen].sort();
        }"""
    )
    assert seen == [f"Image {number} / 5" for number in range(1, 6)]
    expect(page.locator("#rate")).to_have_value("15")
    page.keyboard.press("c")
    expect(page.locator('[data-do="play"]')).to_have_attribute("aria-pressed", "false")


def test_findings_are_taken_in_hand_and_answered_by_click_and_by_key(
    page: Page, address: str, hospital: Hospital
) -> None:
    uid = flagged_study(hospital)
    open_viewer(page, address, uid)
    finding = page.locator(".finding")
    expect(finding).to_have_attribute("aria-current", "true")  # it is opened at it
    page.keyboard.press("End")
    expect(page.locator("#corner-image")).to_have_text("Image 6 / 6")
    finding.locator(".said").click()
    expect(page.locator("#corner-image")).to_have_text("Image 3 / 6")
    page.keyboard.press("Home")
    page.keyboard.press("n")
    expect(page.locator("#corner-image")).to_have_text("Image 3 / 6")
    for key, name in (("a", "Agree"), ("u", "Unsure"), ("d", "Disagree")):
        page.keyboard.press(key)
        button = finding.get_by_role("button", name=name, exact=True)
        expect(button).to_have_attribute("aria-pressed", "true")
    expect(finding).to_have_attribute("aria-current", "true")
    finding.get_by_text("Take the result back").click()  # in place, after disagreeing
    finding.get_by_role("button", name="Withdraw", exact=True).click()
    expect(page.locator("#findings")).to_contain_text("Withdrawn by reader at 127.0.0.1")


def test_study_is_signed_off_and_an_addendum_opens_the_answers_again(
    page: Page, address: str, hospital: Hospital
) -> None:
    open_viewer(page, address, flagged_study(hospital))
    page.get_by_role("button", name="Mark as read").click()
    expect(page.locator("#answers")).to_contain_text("Signed off by reader at 127.0.0.1")
    agree = page.get_by_role("button", name="Agree", exact=True)
    expect(agree).to_be_disabled()
    page.keyboard.press("a")
    expect(page.locator("#toast")).to_contain_text("The study is signed off")
    page.get_by_text("Addendum", exact=True).click()
    page.get_by_placeholder("why; optional").fill("second look")
    page.get_by_role("button", name="Open the answers again").click()
    expect(page.locator("#answers")).to_contain_text("opened again by reader at 127.0.0.1")
    expect(page.locator("#answers")).to_contain_text("second look")
    expect(agree).to_be_enabled()
    page.get_by_role("button", name="Sign off").click()
    expect(agree).to_be_disabled()


def test_missed_finding_is_reported_with_a_box_on_the_image(
    page: Page, address: str, hospital: Hospital
) -> None:
    hospital.register_model()
    images = hospital.head_ct(slices=3, rows=128)
    uid = hospital.receive(*images)
    hospital.complete(uid)
    hospital.finish(hospital.claim(), hemorrhage(present=False))
    open_viewer(page, address, uid)
    page.get_by_text("Report a missed finding").click()
    page.get_by_label("What", exact=True).select_option("Hemorrhage")
    page.get_by_label("Side").select_option("left")
    page.get_by_role("button", name="Point or box").click()
    box = page.locator("#viewport").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 40, steps=4)
    page.mouse.up()
    expect(page.locator("#missed-place")).to_have_text("A box on the image shown.")
    page.get_by_role("button", name="Report", exact=True).click()
    expect(page.locator("#answers")).to_contain_text("Missed: Hemorrhage, left")
    kept = page.request.get(f"{address}/api/v1/studies/{uid}/answers").json()
    finding = kept["missed"][0]["finding"]
    assert finding["sop_instance_uid"] == images[1].SOPInstanceUID
    left, top, right, bottom = finding["mark"]
    assert (left, top) == pytest.approx((64, 64), abs=0.5)
    assert right > left + 5
    assert bottom > top + 5
    assert kept["findings"][0]["answers"][0]["verdict"] == "disagree"
    wait_until(lambda: red_pixels(page) > 50, "the box is drawn on the image")
    page.keyboard.press("Home")
    expect(page.locator("#corner-image")).to_have_text("Image 1 / 3")
    wait_until(lambda: red_pixels(page) == 0, "the image without the box is drawn")
    page.locator("#answers").get_by_role("button", name="Show").click()
    expect(page.locator("#corner-image")).to_have_text("Image 2 / 3")
    page.get_by_role("button", name="Take back").click()
    expect(page.locator("#answers")).not_to_contain_text("Missed")


def test_requests_for_images_that_were_scrolled_past_are_given_up(
    page: Page, address: str, hospital: Hospital
) -> None:
    uid = hospital.receive(*hospital.head_ct(slices=60, rows=32))
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        waiting.append(route)

    page.route("**/frames/1", hold)
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.goto(f"{address}/studies/{uid}")
    expect(page.locator("#slider")).to_have_value("31")  # the image in the middle is asked for
    with page.expect_request("**/frames/1"):
        page.keyboard.press("End")
    with page.expect_event("requestfailed"):
        page.keyboard.press("Home")
    assert any("/frames/1" in url for url in failed)
    for route in waiting:
        route.abort()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_two_stacks_and_the_answers_fit_a_phone(
    browser: Browser, address: str, hospital: Hospital, scheme: Any
) -> None:
    uid, prior = two_studies(hospital)
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    open_viewer(page, address, uid)
    compare(page, prior)
    page.get_by_text("Report a missed finding").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    main, other = (page.locator(f"#{one}").bounding_box() for one in ("viewport", "prior-viewport"))
    assert main is not None
    assert other is not None
    assert main["y"] + main["height"] <= other["y"]  # one below the other
    context.close()
