"""The page used by mouse, by keyboard alone and by touch; its inputs, languages, downloads and settings."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.browser.conftest import ARABIC, CHINESE, SCENE, done, overlay_peak, transfer, wait, words
from tests.test_architecture import ROOT


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
