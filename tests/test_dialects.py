"""A second HTTP API over the engine: its requests are answered, and every error below its paths has its own shape."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pytest
from fastapi import APIRouter
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from model import Captioner, CaptionRequest, ConfigError, GenerationOptions
from service import Settings, create_app
from service.errors import ERRORS, ServiceError, option_error
from service.http.body import read_image
from service.http.dialects import DIALECTS, Dialect
from service.http.security import client_address
from service.runtime import Engine
from tests.conftest import problem
from tests.helpers import failing

# A path of each dialect that captions an image, and one that does not exist.
PATHS = {"toy": ("/toy/describe", "/toy/unknown"), "native": ("/v1/captions", "/v1/unknown")}


class ToyDialect:
    """POST /toy/describe, with the option `num_beams`; errors are {"error": "text"}."""

    name: str = "toy"
    schemas: Sequence[type[BaseModel]] = ()

    def owns(self, path: str) -> bool:
        return path.startswith("/toy/")

    def routes(self, engine: Engine) -> APIRouter:
        router = APIRouter()

        @router.post("/toy/describe")
        async def describe(request: Request) -> Response:
            with engine.admit(client_address(request.scope)) as ticket:
                body = await read_image(request, engine.settings, ticket)
                (image,) = body.images
                assert not isinstance(image, ServiceError)
                try:
                    options = GenerationOptions(num_beams=int(body.options.get("num_beams", 3)))
                except ConfigError as error:
                    raise option_error("num_beams", str(error)) from error
                _, captioner = engine.captioner(None)
                prepared = await engine.prepare(captioner, image, ticket)
                result = await engine.caption(captioner, prepared, CaptionRequest(view=prepared.view, options=options), id(body))
            return JSONResponse({"description": result.captions[0].text})

        return router

    def error_response(self, request: Request, error: ServiceError) -> Response:
        return JSONResponse({"error": error.detail}, error.status, headers=error.headers)


TOY: Dialect = ToyDialect()


@contextlib.contextmanager
def serving(captioner: Captioner, **settings: object) -> Iterator[TestClient]:
    """Serve both dialects; yields a client."""
    app = create_app({"tiny": captioner}, Settings(**settings), dialects=(TOY, *DIALECTS))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def toy_client(tiny_captioner):
    with serving(tiny_captioner, max_body_bytes=50_000) as client:
        yield client


def check_error(response, dialect: str, code: str) -> None:
    """Check that a response is the error `code` in the shape of a dialect."""
    assert response.status_code == ERRORS[code].status, response.text
    if dialect == "native":
        problem(response, code)
        return
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error"}
    assert isinstance(body["error"], str)
    assert body["error"]
    assert response.headers["x-request-id"]
    assert response.headers["x-content-type-options"] == "nosniff"


def test_both_dialects_give_the_same_caption(toy_client, image_bytes):
    toy = toy_client.post("/toy/describe", content=image_bytes)
    native = toy_client.post("/v1/captions", content=image_bytes)
    assert (toy.status_code, native.status_code) == (200, 200)
    assert toy.json() == {"description": native.json()["captions"][0]["text"]}
    assert "/toy/describe" in toy_client.get("/openapi.json").json()["paths"]
    assert toy_client.app.state.engine.admission.used == {"images": 0, "body_bytes": 0, "pixels": 0}


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("empty_body", {"content": b""}),
        ("unsupported_image_format", {"content": b"no image"}),
        ("broken_image", {"content": b"\xff\xd8\xff\xe0 and no more of a JPEG"}),
        ("body_too_large", {"content": bytes(50_001)}),
        ("broken_json", {"content": b"{", "headers": {"content-type": "application/json"}}),
        ("unsupported_media_type", {"content": b"%PDF", "headers": {"content-type": "application/pdf"}}),
    ],
)
def test_errors_of_bodies_and_images_have_the_shape_of_the_dialect(toy_client, dialect, code, arguments):
    check_error(toy_client.post(PATHS[dialect][0], **arguments), dialect, code)


@pytest.mark.parametrize("dialect", PATHS)
def test_errors_of_routing_have_the_shape_of_the_dialect(toy_client, dialect):
    captions, unknown = PATHS[dialect]
    check_error(toy_client.get(unknown), dialect, "unknown_path")
    wrong_method = toy_client.get(captions)
    check_error(wrong_method, dialect, "method")
    assert wrong_method.headers["allow"] == "POST"


@pytest.mark.parametrize("dialect", PATHS)
def test_errors_of_options_have_the_shape_of_the_dialect(toy_client, dialect, image_bytes):
    path = PATHS[dialect][0]
    check_error(toy_client.post(path, content=image_bytes, params={"num_beams": "99"}), dialect, "invalid_option")


@pytest.mark.parametrize("dialect", PATHS)
def test_errors_of_security_have_the_shape_of_the_dialect(tiny_captioner, tmp_path, dialect, image_bytes):
    (tmp_path / "keys").write_text("a-key\n")
    with serving(tiny_captioner, keys_file=str(tmp_path / "keys"), requests_per_minute=1) as client:
        for path in PATHS[dialect]:
            missing = client.post(path, content=image_bytes)
            check_error(missing, dialect, "missing_key")
            assert missing.headers["www-authenticate"] == "Bearer"
            check_error(client.post(path, content=image_bytes, headers={"x-api-key": "another"}), dialect, "wrong_key")
        key = {"x-api-key": "a-key"}
        assert client.post(PATHS[dialect][0], content=image_bytes, headers=key).status_code == 200
        limited = client.post(PATHS[dialect][0], content=image_bytes, headers=key)
        check_error(limited, dialect, "rate_limited")
        assert int(limited.headers["retry-after"]) >= 1


@pytest.mark.parametrize("dialect", PATHS)
def test_errors_of_admission_have_the_shape_of_the_dialect(toy_client, dialect, image_bytes):
    engine = toy_client.app.state.engine
    with engine.admission.open() as ticket:
        ticket.take("images", engine.settings.max_queue_images)
        refused = toy_client.post(PATHS[dialect][0], content=image_bytes)
    check_error(refused, dialect, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert toy_client.post(PATHS[dialect][0], content=image_bytes).status_code == 200


@pytest.mark.parametrize("dialect", PATHS)
def test_a_bug_has_the_shape_of_the_dialect_and_reveals_nothing(tiny_captioner, dialect, image_bytes, caplog):
    with serving(failing(tiny_captioner, RuntimeError("secret"))) as client:
        response = client.post(PATHS[dialect][0], content=image_bytes)
    check_error(response, dialect, "internal")
    assert "secret" not in response.text
    assert response.headers["x-request-id"] in caplog.text


@pytest.mark.parametrize("dialect", PATHS)
def test_a_failed_model_thread_has_the_shape_of_the_dialect(tiny_captioner, dialect, image_bytes):
    with serving(failing(tiny_captioner, SystemExit("killed"))) as client:
        for _ in range(2):  # the request that was active, and one after it
            response = client.post(PATHS[dialect][0], content=image_bytes)
            check_error(response, dialect, "not_ready")
            assert int(response.headers["retry-after"]) >= 1
