"""From an HTTP request to the bytes of one picture and its options, judged cheapest first.

The body is read up to the limit and no further; nothing here decodes a picture.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from model import sniff_format
from service.admission import Place
from service.errors import Problem, option_problem

_UNTOLD = {"", "application/octet-stream", "application/x-www-form-urlencoded"}  # what curl --data-binary sends
_MOST_FIELDS = 40  # of a form: there are fewer options
_PICTURES = ("image", "images", "url")
MAX_BATCH_IMAGES = 64  # of a batch


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """What a body may be."""

    size: int  # bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class Received:
    """A picture's bytes, or where they are, and the options as they came; `json`: they are typed, else all text."""

    image: bytes
    options: dict[str, Any]
    json: bool
    url: str = ""


@dataclass(frozen=True, slots=True)
class ReceivedBatch:
    """Pictures in order, each its bytes or the problem with them, and the options of all."""

    images: list[bytes | Problem]
    options: dict[str, Any]
    json: bool


async def receive_json(request: Request, limits: BodyLimits, place: Place) -> dict[str, Any]:
    """Read a request that carries a JSON object and no picture. Raises Problem."""
    return _parsed_json(request, await _body(request, limits, place))[0]


async def receive_batch(request: Request, limits: BodyLimits, place: Place) -> ReceivedBatch:
    """Read a request that carries many pictures as multipart or in JSON. Raises Problem where the request itself is wrong."""
    body = await _body(request, limits, place)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        files, options = await _parsed_form(request, body, MAX_BATCH_IMAGES)
        images: list[bytes | Problem] = list(files)
    elif kind in (*_UNTOLD, "application/json"):
        document, options = _parsed_json(request, body)
        listed = document.get("images")
        if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
            raise option_problem("images", "images must be a list of base64 texts or data: URLs", json=True)
        images = [_decoded_or_problem(text) for text in listed[: MAX_BATCH_IMAGES + 1]]
    else:
        detail = f"the content type is {kind!r}; send multipart/form-data with parts 'image', or application/json with 'images'"
        raise Problem("unsupported_media_type", detail)
    if not 1 <= len(images) <= MAX_BATCH_IMAGES:
        came = f"more than {MAX_BATCH_IMAGES}" if images else "no"
        raise Problem("invalid_option", f"{came} pictures came; send 1 to {MAX_BATCH_IMAGES} in a request")
    return ReceivedBatch(images, options, kind != "multipart/form-data")


async def receive(request: Request, limits: BodyLimits, place: Place) -> Received:
    """Read a request that carries one picture as raw bytes, as multipart or in JSON. Raises Problem."""
    body = await _body(request, limits, place)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not body:
        raise Problem("empty_body", "the body has 0 bytes; send a picture as the body, as a form or in JSON")
    if kind in _UNTOLD:
        kind = "application/json" if body.lstrip()[:1] == b"{" and not sniff_format(body) else "image/unknown"
    if kind.startswith("image/"):
        return Received(body, _query(request), False)
    if kind == "multipart/form-data":
        return await _from_form(request, body)
    if kind == "application/json":
        return _from_json(request, body)
    raise Problem(
        "unsupported_media_type",
        f"the content type is {kind!r}; send image/*, multipart/form-data, application/json, or none at all",
    )


async def _body(request: Request, limits: BodyLimits, place: Place) -> bytes:
    """Read the body, or refuse it by its announced length or as soon as it has passed a limit; hold its bytes."""
    closing = {"connection": "close"}  # what is left of the body is not waited for
    too_large = Problem("body_too_large", f"the body has more than {limits.size} bytes; send a smaller picture", headers=closing)
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limits.size:
        raise too_large
    place.take("body_bytes", int(announced) if announced.isdigit() else 0)
    chunks = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for chunk in request.stream():
                if len(chunks) + len(chunk) > limits.size:
                    raise too_large
                if not announced.isdigit():
                    place.take("body_bytes", len(chunk))
                chunks += chunk
    except ClientDisconnect as error:
        raise Problem("empty_body", "the body ended before it was whole; send it again") from error
    except TimeoutError as error:
        detail = f"{len(chunks)} bytes came within {limits.seconds:g} s, and not the whole body; send it faster"
        raise Problem("slow_body", detail, headers=closing) from error
    return bytes(chunks)


def _query(request: Request) -> dict[str, Any]:
    """Return the options of the query; one that is given twice is a Problem."""
    values: dict[str, Any] = {}
    if len(request.query_params.multi_items()) > _MOST_FIELDS:
        raise Problem("invalid_option", f"the query has more than {_MOST_FIELDS} options; there are fewer")
    for name, value in request.query_params.multi_items():
        if name in values:
            raise _twice(name)
        values[name] = value
    return values


async def _from_form(request: Request, body: bytes) -> Received:
    files, options = await _parsed_form(request, body, 1)
    if not files:
        raise option_problem("image", "the form has no file 'image'; send the picture under that name", json=False)
    if isinstance(files[0], Problem):
        raise files[0]
    return Received(files[0], options, False)


async def _parsed_form(request: Request, body: bytes, most: int) -> tuple[list[bytes | Problem], dict[str, Any]]:
    """Return a form's files named 'image', at most so many, and its fields beside the query's options."""

    async def stream() -> AsyncIterator[bytes]:
        yield body

    limits = {"max_files": most + _MOST_FIELDS, "max_fields": _MOST_FIELDS}
    parser = MultiPartParser(request.headers, stream(), **limits)  # type: ignore[arg-type]
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise Problem("broken_multipart", f"the form cannot be read ({error}); send multipart/form-data") from error
    try:
        return await _sorted(form, _query(request), most)
    finally:
        await form.close()


async def _sorted(form: FormData, options: dict[str, Any], most: int) -> tuple[list[bytes | Problem], dict[str, Any]]:
    """Return the bytes of the form's files, and its fields added to `options`."""
    images: list[bytes | Problem] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != "image" or len(images) == most:
                wanted = "exactly one file, named 'image'" if most == 1 else f"files named 'image', at most {most}"
                raise option_problem(name, f"the form has a file {name!r}; it must have {wanted}", json=False)
            empty = Problem("empty_body", "the form's file 'image' has 0 bytes; send a picture")
            images.append(await value.read() or empty)
        elif name in options:
            raise _twice(name)
        else:
            options[name] = value
    return images, options


def _from_json(request: Request, body: bytes) -> Received:
    document, options = _parsed_json(request, body)
    image, url = document.get("image"), document.get("url")
    if url is not None:
        if image is not None or not isinstance(url, str):
            raise option_problem("url", "url must be text, and come without image", json=True)
        return Received(b"", options, True, url)
    if not isinstance(image, str):
        detail = f"image is {type(image).__name__}; it must be base64 text or a data: URL, or url be sent instead"
        raise option_problem("image", detail, json=True)
    return Received(_decoded(image), options, True)


def _parsed_json(request: Request, body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a JSON body, and the options in it."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem("broken_json", f"the JSON cannot be read ({error}); send one object in UTF-8") from error
    if not isinstance(document, dict):
        raise Problem("broken_json", f"the JSON is {type(document).__name__}; send an object with pictures and options")
    if len(document) > _MOST_FIELDS:
        raise Problem("invalid_option", f"the JSON has {len(document)} members; at most {_MOST_FIELDS} are looked at")
    if query := _query(request):
        name = sorted(query)[0]
        raise option_problem(name, f"{name} is in the query; with a JSON body options stand in the JSON", json=False)
    return document, {name: value for name, value in document.items() if name not in _PICTURES}


def _decoded_or_problem(text: str) -> bytes | Problem:
    try:
        return _decoded(text)
    except Problem as problem:
        return problem


def _decoded(text: str) -> bytes:
    """Decode base64: white space, the URL-safe alphabet, a data: URL and missing padding are accepted."""
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise Problem("broken_base64", "the data: URL is not base64; write data:image/jpeg;base64,…")
    plain = "".join(text.split()).translate(str.maketrans("-_", "+/")).rstrip("=")
    if not plain:
        raise Problem("empty_body", "the JSON's 'image' is empty; send a picture as base64")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem("broken_base64", f"'image' is no base64 ({error}); encode the picture's bytes") from error


def _twice(name: str) -> Problem:
    return option_problem(name, f"{name} was given twice; give it once", json=False)
