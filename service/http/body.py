"""Request bodies: from an HTTP request to the bytes of its images and its options, cheapest checks first.

A body is read up to its limit and no further; nothing here decodes an image. Used by every dialect.
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
from service.errors import ServiceError, option_error
from service.runtime import Ticket
from service.settings import Settings

MAX_BATCH_IMAGES = 64

_UNTYPED = {"", "application/octet-stream", "application/x-www-form-urlencoded"}  # what curl --data-binary sends
_MAX_FIELDS = 40  # of a form or JSON object: there are fewer options
_IMAGE_FIELDS = ("image", "images", "url")


@dataclass(frozen=True, slots=True)
class RequestBody:
    """The images of a request, each its bytes, its URL or the error with it, and the options as they were sent."""

    images: list[bytes | str | ServiceError]
    options: dict[str, Any]
    is_json: bool  # options are typed; else all are text


async def read_image(request: Request, settings: Settings, ticket: Ticket) -> RequestBody:
    """Read a request with one image as raw bytes, multipart or JSON. Raises ServiceError."""
    data, kind = await _read(request, settings, ticket), _media_type(request)
    if not data:
        raise ServiceError("empty_body", "the body has 0 bytes; send an image as the body, in a form or in JSON")
    if kind in _UNTYPED:
        kind = "application/json" if data.lstrip()[:1] == b"{" and not sniff_format(data) else "image/unknown"
    if kind.startswith("image/"):
        body = RequestBody([data], _query(request), False)
    elif kind == "multipart/form-data":
        body = await _read_form(request, data, 1)
        if not body.images:
            raise option_error("image", "the form has no file 'image'; send the image under that name")
    elif kind == "application/json":
        document, options = _parse_json(request, data)
        body = RequestBody([_json_image(document)], options, True)
    else:
        detail = f"the content type is {kind!r}; send image/*, multipart/form-data, application/json, or none at all"
        raise ServiceError("unsupported_media_type", detail)
    if isinstance(body.images[0], ServiceError):
        raise body.images[0]
    ticket.take("images", 1)
    return body


async def read_images(request: Request, settings: Settings, ticket: Ticket) -> RequestBody:
    """Read a request with several images as multipart or JSON. Raises ServiceError if the request itself is wrong."""
    data, kind = await _read(request, settings, ticket), _media_type(request)
    if kind == "multipart/form-data":
        body = await _read_form(request, data, MAX_BATCH_IMAGES)
    elif kind in (*_UNTYPED, "application/json"):
        document, options = _parse_json(request, data)
        texts = document.get("images")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise option_error("images", "images must be a list of base64 texts or data: URLs")
        body = RequestBody([_decode_or_error(text) for text in texts[: MAX_BATCH_IMAGES + 1]], options, True)
    else:
        detail = f"the content type is {kind!r}; send multipart/form-data with parts 'image', or application/json with 'images'"
        raise ServiceError("unsupported_media_type", detail)
    if not 1 <= len(body.images) <= MAX_BATCH_IMAGES:
        received = f"more than {MAX_BATCH_IMAGES}" if body.images else "no"
        raise ServiceError("invalid_option", f"{received} images were sent; send 1 to {MAX_BATCH_IMAGES} in a request")
    ticket.take("images", len(body.images))
    return body


async def read_json(request: Request, settings: Settings, ticket: Ticket) -> dict[str, Any]:
    """Read a request that has a JSON object and no image. Raises ServiceError."""
    return _parse_json(request, await _read(request, settings, ticket))[0]


async def _read(request: Request, settings: Settings, ticket: Ticket) -> bytes:
    """Read the body, or reject it by its announced length or as soon as it exceeds a limit; count its bytes as they arrive."""
    closing = {"connection": "close"}  # the rest of the body is not read
    limit = settings.max_body_bytes
    too_large = ServiceError("body_too_large", f"the body has more than {limit} bytes; send a smaller image", headers=closing)
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limit:
                    raise too_large
                ticket.take("body_bytes", len(chunk))
                body += chunk
    except ClientDisconnect as error:
        raise ServiceError("empty_body", "the body ended before it was complete; send it again") from error
    except TimeoutError as error:
        detail = f"{len(body)} bytes arrived within {settings.body_seconds:g} s, and not the complete body; send it faster"
        raise ServiceError("slow_body", detail, headers=closing) from error
    except ServiceError as error:
        error.headers.update(closing)
        raise
    return bytes(body)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _query(request: Request) -> dict[str, Any]:
    """Return the options of the query. Raises ServiceError for one that is repeated."""
    values: dict[str, Any] = {}
    if len(request.query_params.multi_items()) > _MAX_FIELDS:
        raise ServiceError("invalid_option", f"the query has more than {_MAX_FIELDS} options; there are fewer")
    for name, value in request.query_params.multi_items():
        if name in values:
            raise _repeated(name)
        values[name] = value
    return values


async def _read_form(request: Request, body: bytes, max_images: int) -> RequestBody:
    """Return a form's files named 'image', and its fields with the query's options."""

    async def stream() -> AsyncIterator[bytes]:
        yield body

    limits = {"max_files": max_images + _MAX_FIELDS, "max_fields": _MAX_FIELDS}
    parser = MultiPartParser(request.headers, stream(), **limits)  # type: ignore[arg-type]
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise ServiceError("broken_multipart", f"the form cannot be read ({error}); send multipart/form-data") from error
    try:
        return await _form_content(form, _query(request), max_images)
    finally:
        await form.close()


async def _form_content(form: FormData, options: dict[str, Any], max_images: int) -> RequestBody:
    images: list[bytes | str | ServiceError] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != "image" or len(images) == max_images:
                expected = "exactly one file, named 'image'" if max_images == 1 else f"files named 'image', at most {max_images}"
                raise option_error(name, f"the form has a file {name!r}; it must have {expected}")
            empty = ServiceError("empty_body", "the form's file 'image' has 0 bytes; send an image")
            images.append(await value.read() or empty)
        elif name in options:
            raise _repeated(name)
        else:
            options[name] = value
    return RequestBody(images, options, False)


def _json_image(document: dict[str, Any]) -> bytes | str:
    image, url = document.get("image"), document.get("url")
    if url is not None:
        if image is not None or not isinstance(url, str):
            raise option_error("url", "url must be text, and be sent without image")
        return url
    if not isinstance(image, str):
        detail = f"image is {type(image).__name__}; it must be base64 text or a data: URL, or send url instead"
        raise option_error("image", detail)
    return decode_base64(image)


def _parse_json(request: Request, body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a JSON body, and the options in it."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ServiceError("broken_json", f"the JSON cannot be read ({error}); send one object in UTF-8") from error
    if not isinstance(document, dict):
        raise ServiceError("broken_json", f"the JSON is {type(document).__name__}; send an object with images and options")
    if len(document) > _MAX_FIELDS:
        raise ServiceError("invalid_option", f"the JSON has {len(document)} members; at most {_MAX_FIELDS} are accepted")
    if query := _query(request):
        name = min(query)
        raise option_error(name, f"{name} is in the query; with a JSON body, put options into the JSON", in_query=True)
    return document, {name: value for name, value in document.items() if name not in _IMAGE_FIELDS}


def _decode_or_error(text: str) -> bytes | ServiceError:
    try:
        return decode_base64(text)
    except ServiceError as error:
        return error


def decode_base64(text: str) -> bytes:
    """Decode base64; white space, the URL-safe alphabet, a data: URL and missing padding are accepted.

    Raises ServiceError.
    """
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise ServiceError("broken_base64", "the data: URL is not base64; write data:image/jpeg;base64,…")
    plain = "".join(text.split()).translate(str.maketrans("-_", "+/")).rstrip("=")
    if not plain:
        raise ServiceError("empty_body", "the JSON's 'image' is empty; send an image as base64")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ServiceError("broken_base64", f"'image' is not base64 ({error}); encode the image's bytes") from error


def _repeated(name: str) -> ServiceError:
    return option_error(name, f"{name} was sent twice; send it once")
