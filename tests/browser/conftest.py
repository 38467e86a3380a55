"""Chromium, and pages of a server with the embedded checkpoint. Every page records its errors and where its requests go."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from tests.clients.conftest import embedded, secured, service  # noqa: F401  fixtures
from tests.helpers import wait_until
from tests.test_architecture import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Without browser and packages there is no test here.
collect_ignore_glob = [] if CHROMIUM and find_spec("playwright") and find_spec("axe_playwright_python") else ["test_*.py"]
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip
SCENE = ROOT / "service/page/examples/scene-1.webp"  # a purple heart and a blue star to its left
ARABIC, CHINESE = "قلب أرجواني ونجمة زرقاء", "紫色的心和蓝色的星星"
MAX_MS = 60_000  # after which a test has failed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The packages' own warnings are not this project's."""
    for item in items:
        if "tests/browser/" in str(item.path):
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Any, service: Any) -> Iterator[Callable[..., Any]]:  # noqa: F811
    """Return a function that opens the page; at the end no page may have had an error or asked another host."""
    contexts, faults = [], []

    def open_one(where: Any = service, **options: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        context.set_default_timeout(MAX_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: check(request.url, where.url))
        page.on("filechooser", lambda _: None)  # so that choosers are intercepted from the start
        page.goto(where.url)
        return page

    def check(url: str, own: str) -> None:
        if not url.startswith((f"{own}/", f"blob:{own}/")):
            faults.append(f"a request to {url}")

    yield open_one
    for context in contexts:
        context.close()
    expected = [fault for fault in faults if "Failed to load resource" in fault]  # the browser's line for a 4xx
    assert [fault for fault in faults if fault not in expected] == []


def done(page: Any) -> None:
    """Wait until the shown image has its caption."""
    page.locator("#downloads").wait_for(state="visible")


def wait(page: Any, condition: str) -> None:
    """Wait until an expression is true; Playwright's own function needs an eval, which the page's policy forbids."""
    wait_until(lambda: page.evaluate(condition), MAX_MS / 1000)


def words(page: Any) -> list[str]:
    return page.locator("#captions .word").all_text_contents()


def overlay_peak(page: Any) -> tuple[float, float] | None:
    """Return where the overlay is strongest, as shares of width and height; None if it is empty."""
    script = """() => {
      const canvas = document.getElementById("overlay");
      if (!canvas.width) return null;
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let best = 0, at = -1;
      for (let index = 3; index < data.length; index += 4) if (data[index] > best) { best = data[index]; at = (index - 3) / 4; }
      return at < 0 ? null : [(at % canvas.width) / canvas.width, Math.floor(at / canvas.width) / canvas.height];
    }"""
    peak = page.evaluate(script)
    return None if peak is None else tuple(peak)


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
