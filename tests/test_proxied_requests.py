"""Services under a path and after proxies: paths, pages, and the address of the client."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from model import ConfigError
from service import Settings, create_app
from service.http.docs_page import PAGE_POLICY
from service.http.paths import check_root_path
from service.http.proxies import proxy_networks
from tests.test_security import routes_of

# Values for which the paths with parameters exist.
PARAMETERS = {"code": "method", "name": "tiny", "version": "1", "owner": "any"}


@pytest.mark.parametrize("under", ["", "/captioner", "/a/b"])
def test_a_slash_at_the_end_is_no_redirect_on_any_route(tiny_captioner, image_bytes, under):
    app = create_app({"tiny": tiny_captioner}, Settings(root_path=under))
    with TestClient(app, follow_redirects=False, headers={"host": "evil.example"}) as client:
        for route in routes_of(app):
            for method in sorted(getattr(route, "methods", None) or ()):
                path = re.sub(r"\{(\w+)[^}]*\}", lambda match: PARAMETERS[match[1]], route.path)
                paths = [f"{root}{path}{slash}" for root in ("", under) for slash in ("", "/")]
                answers = [client.request(method, path, content=image_bytes) for path in paths]
                assert len({answer.status_code for answer in answers}) == 1, path
                assert not 300 <= answers[0].status_code < 400, path
                assert answers[0].status_code not in (404, 405), path
                assert not any("evil.example" in answer.text or "location" in answer.headers for answer in answers)
        assert client.post("/v1/captions//").status_code == 404


def test_page_and_document_work_under_a_path(tiny_captioner):
    with TestClient(create_app({"tiny": tiny_captioner}, Settings(root_path="captioner/"))) as client:
        assert client.get("/captioner/openapi.json").json()["servers"] == [{"url": "/captioner"}]
        page = client.get("/captioner/docs")
        assert page.headers["content-security-policy"] == PAGE_POLICY
        files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(files) == 4
        for file in files:
            assert client.get(file).status_code == client.get(file.removeprefix("/captioner")).status_code == 200
        assert '"/captioner/openapi.json"' in client.get("/docs/start.js").text
        assert client.get("/captioner/nowhere").json()["type"] == "/captioner/problems/unknown_path"


def test_page_needs_no_other_host_and_is_absent_if_it_is_off(client, tiny_captioner):
    for path in ("/docs", "/docs/start.js"):
        assert "//" not in client.get(path).text.replace("<!DOCTYPE", "")
    assert client.get("/openapi.json").json().get("servers", []) == []
    with TestClient(create_app({"tiny": tiny_captioner}, Settings(docs=False))) as closed:
        assert {closed.get(path).status_code for path in ("/docs", "/docs/start.js", "/openapi.json")} == {404}


@pytest.mark.parametrize("text", ["https://x/y", "/a?b", "/a b", '/"', "//x//y", "/\u00e9"])
def test_a_root_path_that_is_none_is_an_error(text):
    with pytest.raises(ConfigError, match="root_path"):
        check_root_path(text)


def test_under_v1_the_proxy_removes_the_path(tiny_captioner, image_bytes):
    with TestClient(create_app({"tiny": tiny_captioner}, Settings(root_path="/v1"))) as client:
        assert client.post("/v1/captions", content=image_bytes).status_code == 200


@pytest.mark.parametrize("under", ["/api", "/v2", "/page", "/computervision"])
def test_a_path_that_routes_have_as_well_can_be_that_of_a_proxy(tiny_captioner, image_bytes, under):
    with TestClient(create_app({"tiny": tiny_captioner}, Settings(root_path=under))) as client:
        assert client.post(f"{under}/v1/captions", content=image_bytes).status_code == 200
        assert client.get(f"{under}/livez").status_code == client.get(under).status_code == 200
        assert client.get(f"{under}/api/tags").status_code == client.get("/api/tags").status_code == 200
        assert client.get(f"{under}/v2/models/tiny").status_code == client.get("/v2/models/tiny").status_code == 200


FORWARDED = {  # what arrives, and whether two requests with it are of one client: then the second is a 429
    "nothing": ([{}, {}], 429),
    "the same client": ([{"x-forwarded-for": "1.2.3.4"}] * 2, 429),
    "another client": ([{"x-forwarded-for": "1.2.3.4"}, {"x-forwarded-for": "1.2.3.5"}], 200),
    "a client that writes addresses before its own": (
        [{"x-forwarded-for": "9.9.9.1, 1.2.3.4"}, {"x-forwarded-for": "9.9.9.2, 1.2.3.4"}],
        429,
    ),
    "two proxies": ([{"x-forwarded-for": "1.2.3.4, 10.1.1.1"}, {"x-forwarded-for": "1.2.3.4, 10.1.1.2"}], 429),
    "ports": ([{"x-forwarded-for": "1.2.3.4:1000"}, {"x-forwarded-for": "1.2.3.4:2000"}], 429),
    "IPv6": ([{"x-forwarded-for": "[2001:db8::1]:80"}, {"x-forwarded-for": "2001:db8::2"}], 200),
    "one address in two forms": ([{"x-forwarded-for": "::ffff:1.2.3.4"}, {"x-forwarded-for": "1.2.3.4"}], 429),
    "what is no address, then the proxy alone": ([{"x-forwarded-for": "junk"}, {}], 429),
    "what is no address": ([{"x-forwarded-for": "x" * 9000}, {"x-forwarded-for": "unknown, , ;\x7f"}], 429),
}


@pytest.mark.parametrize("name", FORWARDED)
@pytest.mark.parametrize("trusted", ["10.0.0.0/8", "::ffff:0:0/96, 10.0.0.0/8, 192.168.0.1", ""])
def test_the_forwarded_address_is_the_client_for_trusted_proxies_only(tiny_captioner, name, trusted):
    headers, expected = FORWARDED[name]
    for proxy in ("10.0.0.7", "::ffff:10.0.0.7", "11.0.0.7"):
        app = create_app({"tiny": tiny_captioner}, Settings(trusted_proxies=trusted, requests_per_minute=1))
        client = TestClient(app, client=(proxy, 5000))
        first, second = (client.post("/v1/captions", headers=values).status_code for values in headers)
        is_trusted = trusted and proxy != "11.0.0.7"
        assert (first, second) == (400, 429 if expected == 429 or not is_trusted else 400), proxy


@pytest.mark.parametrize("text", ["*", "localhost", "10.0.0.1/8", "10.0.0.0/8;11.0.0.0/8"])
def test_proxies_that_are_no_networks_are_an_error(text):
    with pytest.raises(ConfigError, match="trusted_proxies"):
        proxy_networks(text)
