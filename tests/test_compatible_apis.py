"""What holds for every compatible API: the native caption, its own errors, the limits of the service."""

from __future__ import annotations

import tomllib

import pytest

from service.version import VERSION
from tests.compatible import APIS, check_error, send, serving
from tests.connections import EMPTY
from tests.helpers import paused, wait_until, watched
from tests.test_architecture import ROOT

INSTRUCTIONS = ["Describe this image", "<CAPTION>", "What is in the image? Answer in JSON.", "a photo of", "x" * 5000]


@pytest.fixture(scope="module")
def api_client(tiny_captioner):
    with serving(tiny_captioner, max_body_bytes=50_000) as client:
        yield client


@pytest.fixture(scope="module")
def native(api_client, image_bytes):
    return api_client.post("/v1/captions", content=image_bytes).json()["captions"][0]


@pytest.mark.parametrize("name", APIS)
def test_the_caption_is_the_native_one(api_client, native, image_bytes, name):
    response = send(api_client, name, image_bytes)
    assert response.status_code == 200, response.text
    assert APIS[name].caption(response.json()) == native["text"]
    assert api_client.app.state.engine.admission.used == EMPTY


@pytest.mark.parametrize("text", INSTRUCTIONS, ids=lambda text: text[:20])
@pytest.mark.parametrize("name", ["chat", "responses", "generate", "ollama chat", "cog"])
def test_an_instruction_is_not_the_beginning_of_the_caption(api_client, native, image_bytes, name, text):
    assert APIS[name].caption(send(api_client, name, image_bytes, text=text).json()) == native["text"]


@pytest.mark.parametrize("name", APIS)
def test_a_broken_image_is_the_clients_error(api_client, name):
    status = 415 if name in ("cog", "replicate") else 400
    check_error(send(api_client, name, b"no image at all"), name, status)
    check_error(send(api_client, name, b"\xff\xd8\xff\xe0 and no more of a JPEG"), name, 400)
    assert api_client.app.state.engine.admission.used == EMPTY


@pytest.mark.parametrize("name", [name for name in APIS if APIS[name].has_model])
def test_an_unknown_model_is_a_404_that_names_it(api_client, image_bytes, name):
    message = check_error(send(api_client, name, image_bytes, model="gpt-4o"), name, 404)
    assert "gpt-4o" in message


@pytest.mark.parametrize("name", APIS)
def test_a_body_over_the_limit_is_a_413(api_client, name):
    check_error(send(api_client, name, bytes(60_000)), name, 413)
    assert api_client.app.state.engine.admission.used == EMPTY


@pytest.mark.parametrize("name", APIS)
def test_overload_has_a_time_to_try_again(api_client, image_bytes, name):
    engine = api_client.app.state.engine
    with engine.admission.open() as ticket:
        ticket.take("images", engine.settings.max_queue_images)
        response = send(api_client, name, image_bytes)
    check_error(response, name, 429 if APIS[name].is_busy_429 else 503)
    assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("name", APIS)
def test_keys_and_rates_are_checked(tiny_captioner, image_bytes, tmp_path, name):
    keys = tmp_path / "keys.txt"
    keys.write_text("a-key\n", encoding="utf-8")
    with serving(tiny_captioner, keys_file=str(keys), requests_per_minute=1) as client:
        check_error(send(client, name, image_bytes), name, 401)
        check_error(send(client, name, image_bytes, headers={"authorization": "Bearer other"}), name, 401)
        key = {"authorization": "Bearer a-key"}
        assert send(client, name, image_bytes, headers=key).status_code == 200
        check_error(send(client, name, image_bytes, headers=key), name, 429)


@pytest.mark.parametrize("header", ["x-api-key", "api-key", "ocp-apim-subscription-key", "x-moondream-auth", "authorization"])
def test_the_key_may_be_in_the_header_of_any_api(tiny_captioner, image_bytes, tmp_path, header):
    keys = tmp_path / "keys.txt"
    keys.write_text("a-key\n", encoding="utf-8")
    with serving(tiny_captioner, keys_file=str(keys)) as client:
        for value, status in (("a-key", 200), ("other", 401)):
            sent = f"Token {value}" if header == "authorization" else value
            assert client.post("/v1/captions", content=image_bytes, headers={header: sent}).status_code == status


@pytest.mark.parametrize("name", APIS)
def test_a_bug_reveals_nothing(tiny_captioner, image_bytes, name, caplog):
    captioner, runtime = watched(tiny_captioner)

    def fail(_):
        raise RuntimeError("secret")

    runtime.before_encode = fail
    with serving(captioner) as client:
        response = send(client, name, image_bytes)
    assert "secret" not in check_error(response, name, 500)
    assert "secret" in caplog.text


@pytest.mark.parametrize("name", APIS)
def test_a_deadline_is_kept(tiny_captioner, image_bytes, name):
    captioner, hook = paused(tiny_captioner)
    with serving(captioner, deadline_seconds=0.2) as client:
        try:
            check_error(send(client, name, image_bytes), name, 504)
        finally:
            hook.go_on.set()
        wait_until(lambda: client.app.state.engine.admission.used == EMPTY)


@pytest.mark.parametrize("name", ["chat", "responses", "generate", "ollama chat", "moondream", "cog"])
def test_the_extension_adds_the_native_body(api_client, native, image_bytes, name):
    api = APIS[name]
    for value in (True, {}, {"map_size": "grid", "num_beams": 3}):
        arguments = api.request(image_bytes, "tiny", "")
        arguments["json"]["sightline"] = value
        body = api_client.post(api.path, **arguments).json()
        assert body["sightline"]["captions"][0] == native
        assert api.caption(body) == native["text"]
    arguments["json"]["sightline"] = {"no_such_option": 1}
    response = api_client.post(api.path, **arguments)
    check_error(response, name, 422 if name == "cog" else 400)
    assert "no_such_option" in response.text


@pytest.mark.parametrize("name", APIS)
def test_metrics_have_the_path_of_the_route(api_client, image_bytes, name):
    send(api_client, name, image_bytes)
    text = api_client.get("/metrics").text
    path = APIS[name].path
    known = {"/models/{model}": "/models/{name:path}", "/v2/models/{model}/infer": "/v2/models/{name}/infer",
             "/v1/models/any/{model}/predictions": "/v1/models/{owner}/{name}/predictions"}  # fmt: skip
    assert f'sightline_requests_total{{endpoint="{known.get(path, path)}",status="200"}}' in text


@pytest.mark.parametrize("name", APIS)
def test_a_wrong_method_has_the_shape_of_the_api(api_client, name):
    response = api_client.put(APIS[name].path.format(model="tiny"))
    check_error(response, name, 405)
    assert "POST" in response.headers["allow"]


@pytest.mark.parametrize("path", ["/health", "/healthz", "/readyz", "/v2/health/ready", "/v2/health/live"])
def test_probes_have_aliases_that_need_no_key(tiny_captioner, tmp_path, path):
    keys = tmp_path / "keys.txt"
    keys.write_text("a-key\n", encoding="utf-8")
    with serving(tiny_captioner, keys_file=str(keys)) as client:
        assert client.get(path).status_code == 200
        client.app.state.engine.is_draining = True
        assert client.get(path).status_code == (200 if path.endswith("live") else 503)
        assert client.get("/version").status_code == 401


def test_the_version_is_that_of_the_project(api_client):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert api_client.get("/version").json() == {"version": project["version"]} == {"version": VERSION}
