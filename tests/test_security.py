"""Keys, rate limits, security headers, and the metrics of what was answered and refused."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from starlette.routing import BaseRoute, Route

from model import ConfigError
from service import Settings, create_app
from service.http.security import RateLimiter, read_keys
from tests.conftest import problem

KEYS = "# of the tests\nfirst-key\nsecond key   # with a space\n\n"
PROBES = ("/livez", "/readyz", "/health", "/healthz", "/health-check", "/v2/health/live", "/v2/health/ready")


def routes_of(router: object) -> Iterator[BaseRoute]:
    """Yield the routes of an application, those of included routers too."""
    for route in router.routes:
        yield from routes_of(route.original_router) if hasattr(route, "original_router") else [route]


@pytest.fixture
def serve(tiny_captioner):
    """Return a function that serves the tiny captioner with settings and returns a client."""
    with contextlib.ExitStack() as stack:

        def start(**settings: object) -> TestClient:
            app = create_app({"tiny": tiny_captioner}, Settings(**settings))
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield start


@pytest.fixture
def keys_file(tmp_path):
    (tmp_path / "keys").write_text(KEYS)
    return str(tmp_path / "keys")


@pytest.fixture
def guarded(serve, keys_file):
    return serve(keys_file=keys_file)


def test_a_request_without_a_key_is_refused_if_keys_are_set(guarded, image_bytes):
    response = guarded.post("/v1/captions", content=image_bytes)
    problem(response, "missing_key")
    assert response.headers["www-authenticate"] == "Bearer"
    for path in ("/v1/models", "/v1/nothing", "/metrics", "/openapi.json", "/problems/wrong_key", "/nothing"):
        problem(guarded.get(path), "missing_key")
        assert guarded.get(path, headers={"x-api-key": "first-key"}).status_code != 401, path
    for path in PROBES:
        assert guarded.get(path).status_code == 200, path


def test_every_route_except_probes_and_page_answers_401_without_a_key(serve, keys_file, tmp_path):
    (tmp_path / "admin").write_text("admin-key\n")
    client = serve(keys_file=keys_file, admin_keys_file=str(tmp_path / "admin"))
    routes = [route for route in routes_of(client.app) if isinstance(route, Route)]
    requests = [(method, re.sub(r"\{[^}]*\}", "tiny", route.path)) for route in routes for method in sorted(route.methods)]
    statuses = {(method, path): client.request(method, path).status_code for method, path in requests}
    assert len(statuses) >= 12, "the routes were listed"
    assert {path for _, path in statuses} >= {
        "/v1/captions", "/v1/captions/batch", "/v1/explanations", "/v1/models", "/v1/models/tiny/load", "/metrics",
        "/problems/tiny", "/docs", "/openapi.json", *PROBES,
    }  # fmt: skip
    page = {path for _, path in statuses if path == "/" or path.startswith("/page/")}
    assert {request for request, status in statuses.items() if status != 401} == {
        (method, path) for path in {*PROBES, *page} for method in ("GET", "HEAD")
    }


def test_a_checkpoint_is_loaded_with_an_administrators_key_only(serve, keys_file, tmp_path):
    (tmp_path / "admin").write_text("admin-key\n")
    client = serve(keys_file=keys_file, admin_keys_file=str(tmp_path / "admin"))
    body = {"checkpoint": str(tmp_path / "no-checkpoint")}
    problem(client.post("/v1/models/tiny/load", json=body, headers={"x-api-key": "first-key"}), "wrong_key")
    problem(client.post("/v1/models/tiny/load", json=body, headers={"x-api-key": "admin-key"}), "invalid_option")
    problem(client.get("/v1/models", headers={"x-api-key": "admin-key"}), "wrong_key")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer first-key"},
        {"authorization": "bearer second key"},
        {"x-api-key": "first-key"},
        {"Ocp-Apim-Subscription-Key": "first-key"},
    ],
)
def test_a_key_is_accepted_in_three_headers(guarded, image_bytes, headers):
    assert guarded.post("/v1/captions", content=image_bytes, headers=headers).status_code == 200


@pytest.mark.parametrize("key", ["first-ke", "first-key2", "# of the tests", "FIRST-KEY", "k" * 5000])
def test_an_unknown_key_is_refused(guarded, image_bytes, key):
    problem(guarded.post("/v1/captions", content=image_bytes, headers={"x-api-key": key}), "wrong_key")


def test_neither_keys_nor_options_are_logged(guarded, image_bytes, caplog):
    caplog.set_level(logging.DEBUG)
    guarded.post("/v1/captions?prompt=secret-words", content=image_bytes, headers={"x-api-key": "first-key"})
    guarded.post("/v1/captions", content=image_bytes, headers={"x-api-key": "wrong-secret"})
    # httpx logs as the client, not as the service.
    log = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))
    assert "status=200" in log
    assert not any(secret in log for secret in ("first-key", "wrong-secret", "secret-words"))


@pytest.mark.parametrize(("text", "message"), [(None, "cannot be read"), ("# only this\n", "contains no key")])
def test_a_file_without_keys_is_a_config_error(tmp_path, text, message):
    if text is not None:
        (tmp_path / "keys").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_keys(str(tmp_path / "keys"))


def test_a_client_above_its_rate_is_refused_with_the_time_to_retry_after(serve, image_bytes):
    client = serve(requests_per_minute=2)
    assert [client.post("/v1/captions", content=image_bytes).status_code for _ in range(2)] == [200, 200]
    response = client.post("/v1/captions", content=image_bytes)
    problem(response, "rate_limited")
    assert 1 <= int(response.headers["retry-after"]) <= 30
    assert client.get("/v1/models").status_code == 200, "only POST requests are counted"


def test_tokens_return_with_time_and_clients_do_not_share_them():
    rates = RateLimiter(60)
    assert [rates.take(b"a", 0.0) for _ in range(61)] == [0] * 60 + [1]
    assert rates.take(b"b", 0.0) == 0
    assert rates.take(b"a", 0.5) == 1
    assert rates.take(b"a", 1.6) == 0
    slow = RateLimiter(1)
    assert (slow.take(b"a", 0.0), slow.take(b"a", 15.0)) == (0, 45)


def test_only_pages_of_the_configured_origins_may_call(serve, image_bytes):
    client = serve(cors_origins="https://one.example, https://two.example")
    preflight = {"origin": "https://two.example", "access-control-request-method": "POST"}
    assert client.options("/v1/captions", headers=preflight).headers["access-control-allow-origin"] == "https://two.example"
    other = client.options("/v1/captions", headers=preflight | {"origin": "https://three.example"})
    assert "access-control-allow-origin" not in other.headers
    unset = serve().post("/v1/captions", content=image_bytes, headers={"origin": "https://two.example"})
    assert "access-control-allow-origin" not in unset.headers


def test_responses_have_security_headers(client, image_bytes):
    headers = client.post("/v1/captions", content=image_bytes).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]
    policy = client.get("/docs").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';"), "its page loads its own scripts only"


def test_metrics_count_requests_rejections_words_and_calls(serve, image_bytes):
    client = serve()
    client.post("/v1/captions", content=image_bytes)
    client.post("/v1/captions", content=b"no image")
    client.get("/a/path/that/does/not/exist")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    samples = dict(line.rsplit(" ", 1) for line in response.text.splitlines() if not line.startswith("#"))
    assert samples['sightline_requests_total{endpoint="/v1/captions",status="200"}'] == "1.0"
    assert samples['sightline_requests_total{endpoint="/v1/captions",status="415"}'] == "1.0"
    assert samples['sightline_requests_total{endpoint="other",status="404"}'] == "1.0"
    assert samples['sightline_rejected_total{code="unsupported_image_format"}'] == "1.0"
    assert float(samples["sightline_words_total"]) >= 1
    assert samples["sightline_queue_images"] == "0.0"
    assert float(samples["sightline_step_seconds_count"]) == float(samples["sightline_batch_rows_count"]) >= 1
    assert samples["sightline_encode_seconds_count"] == "1.0"
    (model,) = [name for name in samples if name.startswith("sightline_model_info{")]
    assert all(label in model for label in ('dtype="float32"', 'name="tiny"', 'device="cpu"'))
    assert "# TYPE sightline_device_memory_bytes gauge" in response.text
    assert not any(name.startswith("sightline_device_memory_bytes") for name in samples), "a CPU has no device memory"
    assert "process_resident_memory_bytes" in samples
    assert serve(metrics=False).get("/metrics").status_code == 404
