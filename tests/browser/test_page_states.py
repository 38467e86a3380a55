"""The page when several things happen at once, when something fails, and when it is closed."""

from __future__ import annotations

from tests.browser.conftest import SCENE, done, transfer, wait


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
