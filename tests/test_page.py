"""The page at / as files: served without a key, by a strict policy, complete, and without other hosts."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from service import Settings, create_app
from tests.test_architecture import ROOT

FOLDER = ROOT / "service/page"
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file() and path.name != "index.html")
SCRIPTS = [name for name in FILES if name.endswith(".js")]


def client_of(captioner, **settings) -> TestClient:
    return TestClient(create_app({"tiny": captioner}, Settings(**settings)))


@pytest.fixture(scope="module")
def page_client(tiny_captioner):
    return client_of(tiny_captioner)


def text_of(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def test_the_page_has_a_strict_policy(page_client):
    response = page_client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().partition(" ")[::2] for part in response.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["permissions-policy"].startswith("camera=(self)")
    assert page_client.head("/").status_code == 200


@pytest.mark.parametrize("name", FILES)
def test_every_file_of_the_page_is_served_with_its_type(page_client, name):
    response = page_client.get(f"/page/{name}")
    types = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "webp": "image/webp"}
    assert response.status_code == 200
    assert response.headers["content-type"].partition(";")[0] == types[name.rpartition(".")[2]]
    assert response.headers["cache-control"] == "no-cache"
    assert page_client.get(f"/page/{name}", headers={"if-none-match": response.headers["etag"]}).status_code == 304


@pytest.mark.parametrize("value", ["bytes=abc", "chunks=1", "bytes=0-3", "bytes=9-1"])
def test_ranges_are_ignored(page_client, value):
    for path in ("/page/style.css", "/docs/swagger-ui.css"):
        response = page_client.get(path, headers={"range": value})
        assert response.status_code == 200
        assert response.content == page_client.get(path).content


def test_every_file_that_the_page_names_exists():
    named = set(re.findall(r'"(page/[^"]+)"', text_of("index.html")))
    for script in SCRIPTS:
        named |= set(re.findall(r'"(page/[^"]+)"', text_of(script)))
        named |= {f"page/{module}" for module in re.findall(r'from "\./([^"]+)"', text_of(script))}
    assert named == {f"page/{name}" for name in FILES}


@pytest.mark.parametrize("name", ["index.html", *FILES])
def test_no_file_names_another_host(name):
    if name.endswith(".webp"):
        return
    urls = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", text_of(name).replace("http://www.w3.org/2000/svg", ""))
    assert not urls


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_write_no_html_and_store_no_data(name):
    text = text_of(name)
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage", "sessionStorage",
                      "indexedDB", "document.cookie"):  # fmt: skip
        assert forbidden not in text
    assert len(text.splitlines()) <= 300


def test_scripts_use_only_elements_that_the_page_has():
    ids = set(re.findall(r'\bid="([\w-]+)"', text_of("index.html")))
    for script in SCRIPTS:
        used = set(re.findall(r'(?:getElementById|element)\("([\w-]+)"\)', text_of(script)))
        assert used <= ids, script


def test_the_page_has_no_inline_script_or_style():
    text = text_of("index.html")
    assert not re.findall(r"<script(?![^>]*\bsrc=)", text)
    assert not re.findall(r"<style|\bstyle=|\bon\w+=", text)


def test_the_page_needs_no_key_and_the_api_does(tiny_captioner, tmp_path):
    keys = tmp_path / "keys.txt"
    keys.write_text("a-key\n", encoding="utf-8")
    client = client_of(tiny_captioner, keys_file=str(keys))
    assert client.get("/").status_code == 200
    assert client.get("/page/app.js").status_code == 200
    assert client.post("/page/app.js").status_code == 401
    assert client.post("/").status_code == 401
    assert client.get("/v1/models").status_code == 401


def test_the_page_can_be_turned_off(tiny_captioner):
    client = client_of(tiny_captioner, page=False)
    assert client.get("/").status_code == 405  # images may be posted there
    assert client.get("/page/app.js").status_code == 404


def test_the_page_links_to_the_api_page_if_there_is_one(page_client, tiny_captioner):
    assert 'href="docs"' in page_client.get("/").text
    assert 'href="docs"' not in client_of(tiny_captioner, docs=False).get("/").text


def test_under_a_path_of_a_proxy_all_links_are_below_it(tiny_captioner):
    client = client_of(tiny_captioner, root_path="/captioner")
    for path in ("/", "/captioner", "/captioner/"):
        assert '<base href="/captioner/">' in client.get(path).text
    assert '<base href="/">' in client_of(tiny_captioner).get("/").text


def test_files_outside_the_folder_are_not_served(page_client):
    for path in ("/page/../settings.py", "/page/%2e%2e/settings.py", "/page/index.html/..", "/page/none.js", "/page"):
        assert page_client.get(path).status_code == 404
