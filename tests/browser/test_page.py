"""The page used by mouse, by keyboard alone and by touch; its inputs, errors, downloads, languages and accessibility."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.browser.conftest import ARGUMENTS, CHROMIUM, done, overlay_peak, wait, words
from tests.test_architecture import ROOT

SCENE = ROOT / "service/page/examples/scene-1.webp"  # a purple heart and a blue star to its left
LIGHTHOUSE = ROOT / ".venv/node/node_modules/lighthouse/cli/index.js"
ARABIC, CHINESE = "قلب أرجواني ونجمة زرقاء", "紫色的心和蓝色的星星"


def transfer(page, event: str, target: str, data: bytes, name: str = "drop.webp", media_type: str = "image/webp") -> None:
    """Drop or paste a file."""
    script = """([event, target, bytes, name, type]) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name, { type }));
      const options = { bubbles: true, cancelable: true, dataTransfer: transfer, clipboardData: transfer };
      const made = event === "paste" ? new ClipboardEvent(event, options) : new DragEvent(event, options);
      document.querySelector(target).dispatchEvent(made);
    }"""
    page.evaluate(script, [event, target, base64.b64encode(data).decode(), name, media_type])


def run_axe(page) -> list:
    """Return the violations that axe finds, by its rules for WCAG 2.2 AA and best practices."""
    from axe_playwright_python.sync_playwright import Axe

    results = Axe().run(page).response
    return [(violation["id"], [node["html"][:120] for node in violation["nodes"]]) for violation in results["violations"]]


def test_an_example_by_mouse_shows_each_words_map(open_page):
    page = open_page()
    page.locator("#examples button").first.click()
    done(page)
    assert "heart" in words(page)
    peaks = {}
    for name in ("heart", "star"):
        page.locator("#captions .word", has_text=name).first.hover()
        assert page.locator("#details-word").text_content() == name
        assert page.locator('#captions .word[aria-pressed="true"]').all_text_contents() == [name]
        assert page.locator("#stage-word").text_content() == name
        peaks[name] = overlay_peak(page)
    assert peaks["star"][0] < peaks["heart"][0] - 0.1, "the star is left of the heart"
    page.locator("[value=off]").check()
    assert overlay_peak(page) is None
    page.locator("[value=cells]").check()
    assert overlay_peak(page) is not None
    page.locator("#opacity").fill("0")
    assert overlay_peak(page) is None
    page.locator("#box").check()
    assert overlay_peak(page) is not None, "the box is drawn"
    page.locator("#minis figure").nth(0).hover()
    assert page.locator("#details-word").text_content() == words(page)[0]


def test_words_arrive_one_by_one(open_page):
    page = open_page()
    script = """() => {
      window.counts = [];
      new MutationObserver(() => window.counts.push(document.querySelectorAll("#captions .word").length))
        .observe(document.getElementById("captions"), { childList: true, subtree: true });
    }"""
    page.evaluate(script)
    page.locator("#examples button").first.click()
    done(page)
    counts = page.evaluate("window.counts")
    assert len(set(counts)) > 3, counts
    assert max(counts) == len(words(page))


def test_an_image_is_dropped_pasted_chosen_and_photographed(open_page):
    page = open_page()
    data = SCENE.read_bytes()
    transfer(page, "drop", "#stage", data)
    done(page)
    transfer(page, "paste", "body", data)
    page.locator("#strip button").nth(1).wait_for()
    done(page)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Add images").click()
    chooser.value.set_files([str(SCENE), str(ROOT / "docs/images/scene.png")])
    page.locator("#strip button").nth(3).wait_for()
    page.get_by_role("button", name="Take a photo").first.click()
    page.locator("#shoot").wait_for()
    wait(page, "document.getElementById('video').videoWidth > 0")
    page.locator("#shoot").click()
    page.locator("#strip button").nth(4).wait_for()
    wait(page, "[...document.querySelectorAll('#strip button')].every(b => b.classList.contains('is-done'))")
    labels = [button.get_attribute("aria-label") for button in page.locator("#strip button").all()]
    assert all(re.match(r"Image \d: \w+", label) for label in labels)
    page.locator("#strip button").nth(3).click()
    assert "triangle" in " ".join(words(page))
    page.locator("#strip button").first.click()
    assert "heart" in words(page)


def test_everything_can_be_done_by_the_keyboard_alone(open_page):
    page = open_page()

    def tab_to(selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"{selector} cannot be reached by Tab")

    tab_to("button.choose")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(str(SCENE))
    done(page)
    tab_to("#captions .word")
    own = words(page)
    assert page.locator("#details-word").text_content() == own[0]
    for key, index in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", len(own) - 1), ("Home", 0)):
        page.keyboard.press(key)
        assert page.locator('#captions .word[aria-pressed="true"]').text_content() == own[index]
    assert overlay_peak(page) is not None
    page.keyboard.press("Escape")
    assert overlay_peak(page) is None
    tab_to("#sentence")
    page.keyboard.type("a green dog")
    page.keyboard.press("Enter")
    page.get_by_text("Your sentence", exact=True).wait_for()
    assert words(page) == ["a", "green", "dog"]
    tab_to("#json")
    with page.expect_download():
        page.keyboard.press("Enter")
    tab_to("summary")
    page.keyboard.press("Enter")
    tab_to("[name=num_return_sequences]")
    page.keyboard.type("3")
    tab_to("#settings button")
    page.keyboard.press("Enter")
    page.get_by_text("Caption 3", exact=True).wait_for()
    assert page.locator("article.caption").count() == 3


def test_touch_on_a_phone(open_page):
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2)
    page.locator("#examples button").first.tap()
    done(page)
    page.locator("#captions .word", has_text="star").tap()
    assert page.locator("#details-word").text_content() == "star"
    page.locator("#minis figure", has_text="heart").tap()
    assert page.locator("#details-word").text_content() == "heart"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing is wider than the phone"
    page.locator("summary").tap()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    small = page.evaluate(
        """[...document.querySelectorAll("button:not(.word), select, summary, .segments label")]
             .filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 24).map(e => e.outerHTML)"""
    )
    assert small == [], "targets are at least 24 pixels high (WCAG 2.2, 2.5.8)"


@pytest.mark.parametrize(("sentence", "direction", "count"), [(ARABIC, "rtl", 4), (CHINESE, "ltr", 4)])
def test_sentences_of_other_scripts_are_shown_in_their_direction(open_page, sentence, direction, count):
    page = open_page()
    page.locator("#examples button").first.click()
    done(page)
    page.locator("#sentence").fill(sentence)
    page.get_by_role("button", name="Explain").click()
    page.get_by_text("Your sentence", exact=True).wait_for()
    text = page.locator("#captions .text")
    assert text.text_content() == sentence
    assert text.evaluate("element => getComputedStyle(element).direction") == direction
    own = words(page)
    assert len(own) >= count
    page.locator("#captions .word").first.focus()
    page.keyboard.press("ArrowLeft" if direction == "rtl" else "ArrowRight")
    assert page.locator("#details-word").text_content() == own[1]
    boxes = [word.bounding_box() for word in page.locator("#captions .word").all()[:2]]
    assert (boxes[1]["x"] > boxes[0]["x"]) == (direction == "ltr")


def test_downloads_are_the_sheet_the_response_and_a_command_that_works(open_page, tmp_path):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    with page.expect_file_chooser() as chooser:
        page.locator("button.choose.primary").click()
    odd = tmp_path / "it's a scene.webp"
    odd.write_bytes(SCENE.read_bytes())
    chooser.value.set_files(str(odd))
    done(page)
    with page.expect_download() as download:
        page.locator("#sheet").click()
    sheet = Image.open(download.value.path())
    assert sheet.format == "PNG"
    assert download.value.suggested_filename == "it's a scene-words.png"
    with page.expect_download() as download:
        page.locator("#json").click()
    response = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    text = page.locator("#captions .text").text_content()
    assert response["captions"][0]["text"] == text
    page.locator("#copy-curl").click()
    page.get_by_role("button", name="Copied").wait_for()
    command = page.evaluate("navigator.clipboard.readText()")
    arguments = shlex.split(command)
    assert arguments[0] == "curl"
    answer = subprocess.run(arguments, cwd=tmp_path, capture_output=True, check=True, timeout=60)
    assert json.loads(answer.stdout)["captions"][0]["text"] == text


def test_settings_change_the_request(open_page):
    page = open_page()
    page.locator("#examples button").first.click()
    done(page)
    page.locator("summary").click()
    page.locator("[name=strategy]").select_option("sample")
    page.locator("[name=temperature]").fill("2")
    page.locator("[name=seed]").fill("7")
    page.locator("[name=max_words]").fill("5")
    with page.expect_request("**/v1/captions**") as request:
        page.get_by_role("button", name="Caption again").click()
    query = request.value.url.partition("?")[2]
    assert query == "strategy=sample&max_words=5&temperature=2&seed=7"
    wait(page, "document.querySelectorAll('#captions .word').length == 5")
    assert page.locator("[name=model] option").all_text_contents() == ["default"]
    assert page.locator("[name=language] option").all_text_contents() == ["English (en)"]


def test_a_second_run_of_an_image_replaces_the_first(open_page):
    page = open_page()
    page.locator("#examples button").nth(1).click()
    done(page)
    text = page.locator("#captions .text").text_content()
    page.locator("summary").click()
    for _ in range(3):
        page.get_by_role("button", name="Caption again").click()
    done(page)
    wait(page, "document.querySelectorAll('#strip .is-done').length == 1")
    assert page.locator("#captions .text").all_text_contents() == [text]
    page.locator("#sentence").fill("a green dog")
    page.get_by_role("button", name="Explain").click()
    page.get_by_role("button", name="Caption again").click()  # the explanation is obsolete now
    wait(page, "document.querySelectorAll('#strip .is-done').length == 1")
    done(page)
    page.wait_for_timeout(1500)
    assert page.locator("#captions .text").all_text_contents() == [text]
    assert page.get_by_text("Your sentence", exact=True).count() == 0
    assert "/v1/captions" in page.locator("#curl").text_content()


def test_focus_stays_where_it_is_while_images_are_captioned(open_page):
    page = open_page()
    for number in range(2):
        page.locator("#examples button").nth(number).click()
    wait(page, "document.querySelectorAll('#strip .is-done').length == 2")
    page.locator("#strip button").first.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("Image 1: ")
    assert page.locator("#minis .is-selected").count() == 1
    page.get_by_role("link", name="Skip to the caption").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "caption"
    assert page.locator("#strip button").count() == 2, "the page was not loaded again"


def test_too_many_images_are_announced(open_page):
    page = open_page()
    with page.expect_file_chooser() as chooser:
        page.locator("button.choose.primary").click()
    chooser.value.set_files([{"name": f"{n}.webp", "mimeType": "image/webp", "buffer": SCENE.read_bytes()} for n in range(52)])
    page.locator("#strip button").nth(49).wait_for()
    assert "Only 50 images" in page.locator("#problem").text_content()


def test_the_error_of_a_sentence_stays_with_its_image(open_page):
    page = open_page()
    for number in range(2):
        page.locator("#examples button").nth(number).click()
    wait(page, "document.querySelectorAll('#strip .is-done').length == 2")
    page.locator("#sentence").fill("dog " * 80)
    page.get_by_role("button", name="Explain").click()
    page.locator("#strip button").first.click()
    page.wait_for_timeout(1000)
    assert page.locator("#problem").text_content() == ""
    page.locator("#strip button").nth(1).click()
    assert "at most 60" in page.locator("#problem").text_content()


def test_what_is_no_image_is_an_error_that_helps(open_page):
    page = open_page()
    transfer(page, "drop", "#stage", b"no image", "notes.txt", "text/plain")
    assert "no image file" in page.get_by_role("alert").text_content()
    transfer(page, "drop", "#stage", b"no image", "broken.jpg", "image/jpeg")
    wait(page, "document.getElementById('problem').textContent.includes('known image format')")
    assert page.locator("#strip button").first.get_attribute("aria-label") == "Image 1: failed"
    page.locator("#examples button").first.click()
    done(page)
    assert page.get_by_role("alert").text_content() == ""


def test_a_key_is_required_and_used(open_page, secured):
    page = open_page(secured)
    wait(page, "document.getElementById('problem').textContent.includes('Settings')")
    page.locator("[name=key]").fill("a-key")
    page.locator("[name=key]").blur()
    wait(page, "document.querySelectorAll('[name=model] option').length == 1")
    page.locator("#examples button").first.click()
    done(page)
    assert "a-key" not in page.locator("#curl").text_content()
    assert "x-api-key: YOUR-KEY" in page.locator("#curl").text_content()


def test_nothing_is_kept_when_the_page_is_closed(open_page):
    page = open_page()
    page.locator("#examples button").first.click()
    done(page)
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    page.reload()
    assert page.locator("#captions .word").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", ["start", "caption", "arabic", "error", "settings"])
def test_axe_has_no_complaint(open_page, scheme, state):
    page = open_page(color_scheme=scheme)
    if state != "start":
        page.locator("#examples button").first.click()
        done(page)
    if state == "arabic":
        page.locator("#sentence").fill(ARABIC)
        page.get_by_role("button", name="Explain").click()
        page.get_by_text("Your sentence", exact=True).wait_for()
    if state == "error":
        transfer(page, "drop", "#stage", b"no image", "notes.txt", "text/plain")
    if state == "settings":
        page.locator("summary").click()
    assert run_axe(page) == []


@pytest.mark.skipif(not LIGHTHOUSE.exists(), reason="Lighthouse is not installed: npm installs it in `make prove-page`")
@pytest.mark.parametrize("device", ["desktop", "mobile"])
def test_lighthouse_gives_full_marks(service, tmp_path, device):
    report = tmp_path / "report.json"
    command = [
        "node", str(LIGHTHOUSE), service.url, "--quiet", "--only-categories=accessibility,best-practices", "--output=json",
        f"--output-path={report}", f"--chrome-flags=--headless {' '.join(ARGUMENTS)}",
    ]  # fmt: skip
    command += ["--preset=desktop"] if device == "desktop" else []
    subprocess.run(command, check=True, timeout=300, env={**os.environ, "CHROME_PATH": CHROMIUM})
    categories = json.loads(report.read_text(encoding="utf-8"))["categories"]
    assert {name: category["score"] for name, category in categories.items()} == {"accessibility": 1, "best-practices": 1}


def test_the_api_page_works_without_other_hosts(open_page):
    page = open_page()
    page.get_by_role("link", name="API").click()
    page.locator(".opblock").first.wait_for()
    assert page.locator(".opblock").count() > 20


def test_the_colors_of_maps_are_perceptually_uniform(open_page):
    page = open_page()
    colors = page.evaluate("import(new URL('page/ramp.js', document.baseURI)).then(module => module.ramp())")
    assert len(colors) == 256
    points = [oklab(color) for color in colors]
    assert all(one[0] < other[0] + 0.004 for one, other in zip(points, points[8:], strict=False)), "lightness rises"
    steps = [math.dist(one, other) for one, other in zip(points[::16], points[16::16], strict=False)]
    assert max(steps) / min(steps) < 1.25
    gray = [math.dist(one[:1], other[:1]) for one, other in zip(points[::32], points[32::32], strict=False)]
    assert min(gray) > 0.02, "the order is visible without colors, too"


def oklab(color) -> tuple[float, float, float]:
    """Return an sRGB color in OKLab (Björn Ottosson, 2020)."""
    red, green, blue = (c / 255 / 12.92 if c <= 10.3 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color)
    long = (0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue) ** (1 / 3)
    medium = (0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue) ** (1 / 3)
    short = (0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


def test_a_smooth_map_has_the_values_of_the_cells(open_page):
    page = open_page()
    script = """import(new URL('page/maps.js', document.baseURI)).then(({ smooth }) => smooth({ rows: 2, columns: 3,
                values: [0, 1, 0.5, 2, 0, 4] }))"""
    finer = page.evaluate(script)
    rows, columns = finer["rows"], finer["columns"]
    assert (rows, columns) == (16, 24)
    values = [finer["values"][row * columns : (row + 1) * columns] for row in range(rows)]
    assert values[0][0] == 0
    assert values[15][23] == 4
    assert values[15][0] == 2
    assert 0 <= min(map(min, values)) <= max(map(max, values)) <= 4
    between = (values[0][7] + values[0][8]) / 2  # the border between two cells
    assert between == pytest.approx(0.5)


def test_the_map_of_a_wide_photo_covers_it(open_page, tmp_path):
    wide = Image.open(SCENE).convert("RGB").resize((900, 300))
    file = io.BytesIO()
    wide.save(file, "JPEG")
    page = open_page()
    transfer(page, "drop", "#stage", file.getvalue(), "wide.jpg", "image/jpeg")
    done(page)
    photo, overlay = (page.locator(selector).bounding_box() for selector in ("#photo", "#overlay"))
    assert photo == pytest.approx(overlay, abs=1)
    assert photo["width"] == pytest.approx(3 * photo["height"], rel=0.01)
