"""Accessibility, the API page, and whether colors and maps are right."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess

import pytest
from PIL import Image

from tests.browser.conftest import ARABIC, ARGUMENTS, CHROMIUM, SCENE, done, transfer
from tests.test_architecture import ROOT

LIGHTHOUSE = ROOT / ".venv/node/node_modules/lighthouse/cli/index.js"


def run_axe(page) -> list:
    """Return the violations that axe finds, by its rules for WCAG 2.2 AA and best practices."""
    from axe_playwright_python.sync_playwright import Axe

    results = Axe().run(page).response
    return [(violation["id"], [node["html"][:120] for node in violation["nodes"]]) for violation in results["violations"]]


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
