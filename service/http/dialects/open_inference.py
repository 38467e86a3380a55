"""The Open Inference Protocol, version 2 (KServe, Triton), with binary tensors: an image in, caption and attention maps out."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from model import Captioner
from service.errors import ServiceError, option_error, retry_error
from service.http.body import read_bytes
from service.http.dialects.foreign import (
    Call,
    ForeignBody,
    ForeignDialect,
    Outcome,
    decoding_options,
    error_text,
    get_operation,
    image_or_url,
    json_content,
    operation,
    parse_body,
    serve,
    status_of,
)
from service.http.json_bodies import json_object
from service.runtime import Engine, Ticket
from service.version import VERSION

_HEADER = "inference-header-content-length"  # bytes of JSON before the binary tensors
_LENGTH = re.compile(r"[0-9]{1,12}")
_MODEL_VERSION = "1"


@dataclass(frozen=True, slots=True)
class _Tensor:
    """An output: its type, and its values of an outcome."""

    datatype: str
    values: Callable[[Outcome], NDArray[Any]]


def _word_values(name: str) -> Callable[[Outcome], NDArray[Any]]:
    return lambda outcome: np.array([getattr(word, name) or 0.0 for word in outcome.caption.words], np.float32)


def _texts(texts: Sequence[str]) -> NDArray[Any]:
    return np.array(list(texts), dtype=object)


def _maps(outcome: Outcome) -> NDArray[Any]:
    """Return the words' maps (words, rows, columns)."""
    grid = outcome.result.grid
    maps = [word.map.values.numpy() for word in outcome.caption.words if word.map is not None]
    return np.array(maps, np.float32).reshape(len(maps), grid.rows, grid.columns)


_OUTPUTS = {
    "caption": _Tensor("BYTES", lambda outcome: _texts([outcome.caption.text])),
    "confidence": _Tensor("FP32", lambda outcome: np.array([outcome.confidence], np.float32)),
    "words": _Tensor("BYTES", lambda outcome: _texts([word.text for word in outcome.caption.words])),
    "probability": _Tensor("FP32", _word_values("probability")),
    "image_reliance": _Tensor("FP32", _word_values("image_reliance")),
    "attention": _Tensor("FP32", _maps),
}


class OpenInferenceError(BaseModel):
    """The body of an error."""

    error: str


class InferBody(ForeignBody):
    """An inference request."""

    id: str | None = Field(None, max_length=200, description="text of at most 200 characters")
    inputs: list[dict[str, Any]] = Field(description="a list of one tensor of type BYTES and shape [1]: an image")
    outputs: list[dict[str, Any]] | None = Field(None, description="a list of objects with the names of outputs")
    parameters: dict[str, Any] | None = Field(None, description="an object; options of /v1/captions have an effect")


class OpenInferenceDialect(ForeignDialect):
    """Captions as tensors; there is one version of each model."""

    name = "open_inference"
    schemas: Sequence[type[BaseModel]] = (OpenInferenceError, InferBody)
    paths = ("/v2",)

    def routes(self, engine: Engine) -> APIRouter:
        """Return the routes."""
        router = APIRouter()

        @router.get("/v2", **_get("The server (Open Inference Protocol)"))
        async def server() -> Response:
            return JSONResponse({"name": "sightline", "version": VERSION, "extensions": ["binary_tensor_data"]})

        @router.head("/v2/health/live", include_in_schema=False)
        @router.get("/v2/health/live", **_get("Whether the process is alive (Open Inference Protocol)", "not_ready"))
        async def live() -> Response:
            if not engine.is_alive:
                raise retry_error("not_ready", "the model thread makes no progress; the service restarts", 5)
            return JSONResponse({"live": True})

        @router.head("/v2/health/ready", include_in_schema=False)
        @router.get(
            "/v2/health/ready", **_get("Whether requests are accepted (Open Inference Protocol)", "not_ready", "draining")
        )
        async def ready() -> Response:
            _check_ready(engine)
            return JSONResponse({"ready": True})

        for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            self._add_model(router, engine, path)
        return router

    def error_response(self, request: Request, error: ServiceError) -> Response:
        """Return the error as the protocol has it."""
        return JSONResponse({"error": error_text(error)}, status_of(error.code), headers=error.headers)

    def _add_model(self, router: APIRouter, engine: Engine, path: str) -> None:
        """Add the routes of a model, with or without a version in the path."""
        summary = "Captions and attention maps as tensors (Open Inference Protocol)"
        media_types = ("application/json", "application/octet-stream")
        documented = operation(summary, content=json_content(InferBody), media_types=media_types, error=OpenInferenceError)
        suffix = "_version" if path.endswith("{version}") else ""

        @router.get(
            path, name=f"model{suffix}", **_get("A model's inputs and outputs (Open Inference Protocol)", "unknown_model")
        )
        async def metadata(name: str, version: str = _MODEL_VERSION) -> Response:
            return JSONResponse(_metadata(*_captioner(engine, name, version)))

        @router.get(
            f"{path}/ready",
            name=f"model_ready{suffix}",
            **_get("Whether a model is ready (Open Inference Protocol)", "unknown_model", "not_ready"),
        )
        async def model_ready(name: str, version: str = _MODEL_VERSION) -> Response:
            _captioner(engine, name, version)
            _check_ready(engine)
            return JSONResponse({"name": name, "ready": True})

        @router.post(f"{path}/infer", name=f"infer{suffix}", **documented)
        async def infer(request: Request, name: str, version: str = _MODEL_VERSION) -> Response:
            _captioner(engine, name, version)

            async def read(request: Request, ticket: Ticket) -> Call:
                data = await read_bytes(request, engine.settings, ticket)
                return _call(name, *_split(request, data))

            return await serve(engine, request, read, _response)


def _captioner(engine: Engine, name: str, version: str) -> tuple[str, Captioner]:
    """Return a model. Raises ServiceError (404)."""
    if version != _MODEL_VERSION:
        raise ServiceError("unknown_model", f"version is {version[:40]!r}; every model has the version {_MODEL_VERSION!r}")
    return engine.captioner(name)


def _check_ready(engine: Engine) -> None:
    if engine.unready_code:
        raise retry_error(engine.unready_code, "this process accepts no new work; use another one", 5)


def _metadata(name: str, captioner: Captioner) -> dict[str, Any]:
    grid = captioner.grid
    shapes = {"caption": [1], "confidence": [1], "attention": [-1, grid.rows, grid.columns]}
    outputs = [{"name": key, "datatype": tensor.datatype, "shape": shapes.get(key, [-1])} for key, tensor in _OUTPUTS.items()]
    inputs = [{"name": "image", "datatype": "BYTES", "shape": [1]}]
    return {"name": name, "versions": [_MODEL_VERSION], "platform": "pytorch", "inputs": inputs, "outputs": outputs}


def _split(request: Request, data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the JSON of a body and the binary tensors after it. Raises ServiceError."""
    length = request.headers.get(_HEADER)
    if length is None:
        return json_object(data), b""
    if not _LENGTH.fullmatch(length) or int(length) > len(data):
        raise ServiceError("broken_json", f"{_HEADER} is {length[:40]!r}; it must be the number of bytes of the JSON")
    return json_object(data[: int(length)]), data[int(length) :]


def _call(name: str, document: dict[str, Any], binary: bytes) -> Call:
    """Return the native request. Raises ServiceError."""
    body = parse_body(InferBody, document)
    if len(body.inputs) != 1:
        raise option_error("inputs", f"inputs has {len(body.inputs)} tensors; send one of type BYTES and shape [1]: an image")
    names = [str(output.get("name"))[:80] for output in body.outputs or []] or list(_OUTPUTS)
    if unknown := [output for output in names if output not in _OUTPUTS]:
        raise option_error("outputs", f"there is no output {unknown[0]!r}; the outputs are {', '.join(_OUTPUTS)}")
    parameters = body.parameters or {}
    options = decoding_options(parameters) | ({"maps": parameters["maps"]} if "maps" in parameters else {})
    if "attention" not in names:
        options["maps"] = "none"
    elif options.get("maps") == "none":
        raise option_error("maps", "maps is none, but the output attention was requested; leave out one of them")
    options |= {"model": name, "map_size": "grid", "reliance": "image_reliance" in names or "confidence" in names}
    return Call(image=_image(body.inputs[0], binary), options=options, body=body)


def _image(tensor: dict[str, Any], binary: bytes) -> bytes | str:
    """Return the image of a tensor: binary, or base64 in its data. Raises ServiceError."""
    if tensor.get("datatype") != "BYTES":
        raise option_error("inputs", f"the datatype is {str(tensor.get('datatype'))[:40]!r}; send BYTES, an image file")
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        data = tensor.get("data")
        while isinstance(data, list) and len(data) == 1:
            data = data[0]
        return image_or_url(data, "data")
    if not isinstance(size, int) or size != len(binary) or size < 4 or struct.unpack_from("<I", binary)[0] != size - 4:
        raise option_error("inputs", f"the binary tensor has {len(binary)} bytes; send one element: 4 bytes of length, the image")
    return binary[4:]


def _response(outcome: Outcome) -> Response:
    """Return the requested outputs, those that ask for it in binary after the JSON."""
    body: InferBody = outcome.call.body
    default = bool((body.parameters or {}).get("binary_data_output"))
    requested = {output["name"]: _is_binary(output, default) for output in body.outputs or []} or dict.fromkeys(_OUTPUTS, default)
    entries, blobs = [], []
    for name, is_binary in requested.items():
        values = _OUTPUTS[name].values(outcome)
        entry: dict[str, Any] = {"name": name, "datatype": _OUTPUTS[name].datatype, "shape": list(values.shape)}
        if is_binary:
            blobs.append(_encoded(values))
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        elif values.dtype != object and not np.isfinite(values).all():
            raise ValueError(f"the network returned values of {name!r} that are not finite")
        else:
            entry["data"] = values.ravel().tolist()
        entries.append(entry)
    identity = {"id": body.id} if body.id else {}
    head = {"model_name": outcome.parsed.model, "model_version": _MODEL_VERSION, **identity, "outputs": entries}
    encoded = json.dumps(head).encode()
    if not blobs:
        return Response(encoded, media_type="application/json")
    return Response(b"".join([encoded, *blobs]), media_type="application/octet-stream", headers={_HEADER: str(len(encoded))})


def _is_binary(output: dict[str, Any], default: bool) -> bool:
    parameters = output.get("parameters")
    return bool(parameters.get("binary_data", default)) if isinstance(parameters, dict) else default


def _encoded(values: NDArray[Any]) -> bytes:
    """Return a tensor's bytes: row-major, little-endian; texts with their lengths."""
    if values.dtype != object:
        return values.astype("<f4").tobytes()
    texts = [text.encode() for text in values.ravel().tolist()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def _get(summary: str, *codes: str) -> dict[str, Any]:
    return get_operation(summary, OpenInferenceError, *codes)
