"""Keys, rates, headers and metrics: who may ask, how often, and what is told about it."""

from __future__ import annotations

import logging

import pytest
from fastapi.testclient import TestClient

from model import ConfigError
from service import Settings, create_app
from service.http.security import RateLimiter, read_keys
from tests.conftest import problem

KEYS = "# of the tests\nfirst-key\nsecond key   # with a space\n\n"


@pytest.fixture
def served(tiny_captioner, tmp_path):
    """Return a function that serves the tiny captioner with settings."""
    (tmp_path / "keys").write_text(KEYS)
    made = []

    def serve(**settings):
        found = TestClient(create_app({"tiny": tiny_captioner}, Settings(**settings)), raise_server_exceptions=False)
        found.__enter__()
        made.append(found)
        return found

    yield serve
    for found in made:
        found.__exit__(None, None, None)


@pytest.fixture
def guarded(served, tmp_path):
    return served(keys_file=str(tmp_path / "keys"))


def test_v1_needs_a_key_and_what_watches_the_service_does_not(guarded, picture):
    answer = guarded.post("/v1/captions", content=picture)
    problem(answer, "missing_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    problem(guarded.get("/v1/models"), "missing_key")
    problem(guarded.get("/v1/nothing"), "missing_key")
    for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/problems/wrong_key"):
        assert guarded.get(path).status_code == 200, path


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer first-key"},
        {"authorization": "bearer second key"},
        {"x-api-key": "first-key"},
        {"Ocp-Apim-Subscription-Key": "first-key"},
    ],
)
def test_a_key_is_taken_in_three_headers(guarded, picture, headers):
    assert guarded.post("/v1/captions", content=picture, headers=headers).status_code == 200


@pytest.mark.parametrize("key", ["first-ke", "first-key2", "# of the tests", "FIRST-KEY", "k" * 5000])
def test_another_key_is_refused(guarded, picture, key):
    problem(guarded.post("/v1/captions", content=picture, headers={"x-api-key": key}), "wrong_key")


def test_neither_keys_nor_options_are_logged(guarded, picture, caplog):
    caplog.set_level(logging.DEBUG)
    guarded.post("/v1/captions?prompt=secret-words", content=picture, headers={"x-api-key": "first-key"})
    guarded.post("/v1/captions", content=picture, headers={"x-api-key": "wrong-secret"})
    told = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))  # the client's own
    assert "status=200" in told
    assert not any(secret in told for secret in ("first-key", "wrong-secret", "secret-words"))


@pytest.mark.parametrize(("text", "message"), [(None, "cannot be read"), ("# only this\n", "holds no key")])
def test_a_file_without_keys_ends_the_start(tmp_path, text, message):
    if text is not None:
        (tmp_path / "keys").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_keys(str(tmp_path / "keys"))


def test_a_client_beyond_its_rate_is_told_when_to_come_back(served, picture):
    client = served(requests_per_minute=2)
    assert [client.post("/v1/captions", content=picture).status_code for _ in range(2)] == [200, 200]
    answer = client.post("/v1/captions", content=picture)
    problem(answer, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert client.get("/v1/models").status_code == 200, "only what costs is counted"


def test_tokens_come_back_with_time_and_clients_do_not_share_them():
    rates = RateLimiter(60)
    assert [rates.wait(b"a", 0.0) for _ in range(61)] == [0] * 60 + [1]
    assert rates.wait(b"b", 0.0) == 0
    assert rates.wait(b"a", 0.5) == 1
    assert rates.wait(b"a", 1.6) == 0
    slow = RateLimiter(1)
    assert (slow.wait(b"a", 0.0), slow.wait(b"a", 15.0)) == (0, 45)


def test_only_pages_of_the_origins_named_may_call(served, picture):
    client = served(cors_origins="https://one.example, https://two.example")
    asked = {"origin": "https://two.example", "access-control-request-method": "POST"}
    assert client.options("/v1/captions", headers=asked).headers["access-control-allow-origin"] == "https://two.example"
    other = client.options("/v1/captions", headers=asked | {"origin": "https://three.example"})
    assert "access-control-allow-origin" not in other.headers
    none = served().post("/v1/captions", content=picture, headers={"origin": "https://two.example"})
    assert "access-control-allow-origin" not in none.headers


def test_answers_carry_headers_that_browsers_obey(client, picture):
    headers = client.post("/v1/captions", content=picture).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "content-security-policy" not in client.get("/docs").headers, "its page loads scripts"


def test_metrics_count_what_happened(served, picture):
    client = served()
    client.post("/v1/captions", content=picture)
    client.post("/v1/captions", content=b"no picture")
    client.get("/nothing/of/the/kind")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    told = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    assert told['sightline_requests_total{endpoint="/v1/captions",status="200"}'] == "1.0"
    assert told['sightline_requests_total{endpoint="/v1/captions",status="415"}'] == "1.0"
    assert told['sightline_requests_total{endpoint="other",status="404"}'] == "1.0"
    assert told['sightline_rejected_total{code="unsupported_image_format"}'] == "1.0"
    assert float(told["sightline_words_total"]) >= 1
    assert told["sightline_queue_rows"] == "0.0"
    assert float(told["sightline_step_seconds_count"]) == float(told["sightline_batch_rows_count"]) >= 1
    assert told["sightline_encode_seconds_count"] == "1.0"
    assert any(name.startswith('sightline_model_info{dtype="float32",name="tiny"') for name in told)
    assert "process_resident_memory_bytes" in told
    assert served(metrics=False).get("/metrics").status_code == 404
