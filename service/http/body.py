"""Request bodies: from an HTTP request to the bytes of its images and its options, cheapest checks first.

A body is read up to its limit and no further; nothing here decodes an image. Used by every dialect.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from model import sniff_format
from service.errors import ServiceError, option_error
from service.http.content_encoding import PIECE_BYTES, decompressor
from service.http.image_text import decode_image_text, image_of_part
from service.http.json_bodies import JSON_TYPES, has_surrogate, json_object, load_object
from service.http.multipart import read_parts
from service.http.percent_encoding import decode_spaces, option_text, percent_decode, split_fields
from service.runtime import Ticket
from service.settings import Settings

MAX_BATCH_IMAGES = 64

_URL_ENCODED = "application/x-www-form-urlencoded"
_UNTYPED = {"", "application/octet-stream", _URL_ENCODED}  # what curl --data-binary sends
_MAX_FIELDS = 40  # of a form or JSON object: there are fewer options
_IMAGE_FIELDS = ("image", "images", "url")
_FIELD = re.compile(rb"\s*[\w.-]{1,64}=")  # how a URL-encoded form starts
_CHARSETS = {"utf-8", "utf8", "us-ascii", "iso-8859-1", "windows-1252"}  # of a form's parts
_SURELY_LOST = 20_000  # bytes without a line break, which an image file of this size has

_Image = bytes | str | ServiceError
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RequestBody:
    """The images of a request, each its bytes, its URL or the error with it, and the options as they were sent."""

    images: list[_Image]
    options: dict[str, Any]
    is_json: bool  # options are typed; else all are text
    has_line_breaks: bool = True  # false: raw bytes that `curl -d` may have damaged


async def read_image(request: Request, settings: Settings, ticket: Ticket) -> RequestBody:
    """Read a request with one image as raw bytes, a form or JSON. Raises ServiceError."""
    data, kind = await _read(request, settings, ticket), _media_type(request)
    if not data:
        raise ServiceError("empty_body", "the body has 0 bytes; send an image as the body, in a form or in JSON")
    if kind in _UNTYPED:
        kind = _kind_of(data, kind)
    if kind.startswith("image/"):
        body = _read_bytes(request, data)
    elif kind == "multipart/form-data":
        body = _read_form(request, data, 1)
    elif kind == _URL_ENCODED:
        body = _read_url_encoded(request, data, 1)
    elif kind == "application/json":
        document, options = _parse_json(request, data)
        body = RequestBody([_json_image(document)], options, True)
    else:
        detail = f"the content type is {kind!r}; send image/*, multipart/form-data, application/json, or none at all"
        raise ServiceError("unsupported_media_type", detail)
    if not body.images:
        raise option_error("image", "the form has no part 'image'; send the image under that name")
    if isinstance(body.images[0], ServiceError):
        raise body.images[0]
    ticket.take("images", 1)
    return body


async def read_images(request: Request, settings: Settings, ticket: Ticket) -> RequestBody:
    """Read a request with several images as a form or JSON. Raises ServiceError if the request itself is wrong."""
    data, kind = await _read(request, settings, ticket), _media_type(request)
    if kind == _URL_ENCODED and _kind_of(data, kind) == _URL_ENCODED:
        body = _read_url_encoded(request, data, MAX_BATCH_IMAGES)
    elif kind == "multipart/form-data":
        body = _read_form(request, data, MAX_BATCH_IMAGES)
    elif kind == "application/json" or (kind in _UNTYPED and not sniff_format(data)):
        document, options = _parse_json(request, data)
        texts = document.get("images")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise option_error("images", "images must be a list of base64 texts or data: URLs")
        images = [_image_or_error(decode_image_text, text) for text in texts[: MAX_BATCH_IMAGES + 1]]
        body = RequestBody(images, options, True)
    else:
        received = f"the content type is {kind!r}" if kind else "the body is one image"
        detail = f"{received}; send multipart/form-data with parts 'image', or application/json with 'images'"
        raise ServiceError("unsupported_media_type", detail)
    if not 1 <= len(body.images) <= MAX_BATCH_IMAGES:
        received = f"more than {MAX_BATCH_IMAGES}" if body.images else "no"
        raise ServiceError("invalid_option", f"{received} images were sent; send 1 to {MAX_BATCH_IMAGES} in a request")
    ticket.take("images", len(body.images))
    return body


async def read_json(request: Request, settings: Settings, ticket: Ticket) -> dict[str, Any]:
    """Read a request that has a JSON object and no image. Raises ServiceError."""
    return _parse_json(request, await _read(request, settings, ticket))[0]


async def read_document(request: Request, settings: Settings, ticket: Ticket) -> dict[str, Any]:
    """Read a request that has a JSON object of another API, whatever its content type says. Raises ServiceError."""
    return json_object(await _read(request, settings, ticket))


async def read_bytes(request: Request, settings: Settings, ticket: Ticket) -> bytes:
    """Read a body as it is. Raises ServiceError."""
    return await _read(request, settings, ticket)


async def _read(request: Request, settings: Settings, ticket: Ticket) -> bytes:
    """Read the body, or reject it by its announced length or as soon as it exceeds a limit; count its bytes as they arrive.

    Of a compressed body the decompressed bytes count, and the compressed ones are limited as well.
    """
    closing = {"connection": "close"}  # the rest of the body is not read
    limit = settings.max_body_bytes
    too_large = ServiceError("body_too_large", f"the body has more than {limit} bytes; send a smaller image", headers=closing)
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced[:20]) > limit:
        raise too_large
    body, num_received = bytearray(), 0
    try:
        compressed = decompressor(request.headers.getlist("content-encoding"))
        async with asyncio.timeout(settings.body_seconds):
            async for chunk in request.stream():
                num_received += len(chunk)
                if num_received > limit:
                    raise too_large
                for piece in [chunk] if compressed is None else compressed.feed(chunk):
                    if len(body) + len(piece) > limit:
                        raise too_large
                    ticket.take("body_bytes", len(piece))
                    body += piece
                    if len(piece) == PIECE_BYTES:
                        await asyncio.sleep(0)  # others' turn
        if compressed is not None:
            compressed.finish()
    except ClientDisconnect as error:
        raise ServiceError("empty_body", "the body ended before it was complete; send it again") from error
    except TimeoutError as error:
        detail = f"{num_received} bytes arrived within {settings.body_seconds:g} s, and not the complete body; send it faster"
        raise ServiceError("slow_body", detail, headers=closing) from error
    except ServiceError as error:
        error.headers.update(closing)
        raise
    return bytes(body)


def _media_type(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return "application/json" if kind == "text/json" or kind.endswith("+json") else kind


def _kind_of(data: bytes, kind: str) -> str:
    """Return what a body is whose content type says little: curl sends anything as a URL-encoded form."""
    if sniff_format(data) or _is_damaged_png(data):
        return "image/unknown"
    if data.lstrip()[:1] == b"{":
        return "application/json"
    return _URL_ENCODED if kind == _URL_ENCODED and _FIELD.match(data) else "image/unknown"


def _read_bytes(request: Request, data: bytes) -> RequestBody:
    """Return an image that is the body. Raises ServiceError (400) if `curl -d` has removed bytes from it."""
    has_line_breaks = b"\n" in data or b"\r" in data
    is_untouched = has_line_breaks or (b"\0" in data and len(data) < _SURELY_LOST)
    if _is_damaged_png(data) or (sniff_format(data) and not is_untouched):
        raise lost_line_breaks()
    return RequestBody([data], _query(request), False, has_line_breaks)


def lost_line_breaks() -> ServiceError:
    """Return the error of an image without its line breaks."""
    detail = "the image has no line breaks left: curl -d removes them; send it with curl --data-binary @photo.jpg"
    return ServiceError("broken_image", detail)


def _is_damaged_png(data: bytes) -> bool:
    return data[:4] == b"\x89PNG" and sniff_format(data) != "PNG"


def _query(request: Request) -> dict[str, Any]:
    """Return the options of the query. Raises ServiceError for one that is repeated or is not text."""
    values: dict[str, Any] = {}
    for name, value in split_fields(request.scope.get("query_string", b""), _MAX_FIELDS, "query"):
        _add_option(values, name, decode_spaces(value))
    return values


def _read_form(request: Request, data: bytes, max_images: int) -> RequestBody:
    """Return a form's parts named 'image', and its other parts with the query's options."""
    images: list[_Image] = []
    options = _query(request)
    for number, part in enumerate(read_parts(request.headers["content-type"], data)):
        if number - len(images) > _MAX_FIELDS:
            raise ServiceError("broken_multipart", f"the form has more than {_MAX_FIELDS} options; there are fewer")
        if part.name == "image" and len(images) < max_images:
            empty = ServiceError("empty_body", "the form's part 'image' has 0 bytes; send an image")
            images.append(_image_or_error(image_of_part, part.data) if part.data else empty)
        elif part.name == "image" or part.has_filename:
            expected = "exactly one image, named 'image'" if max_images == 1 else f"images named 'image', at most {max_images}"
            raise option_error(part.name, f"the form has another file, {part.name!r}; it must have {expected}")
        else:
            encoding = part.charset if part.charset in _CHARSETS else "utf-8"
            _add_option(options, part.name, part.data, encoding)
    return RequestBody(images, options, False)


def _read_url_encoded(request: Request, data: bytes, max_images: int) -> RequestBody:
    """Return the images of a URL-encoded form, which are base64, and its other fields with the query's options."""
    images: list[_Image] = []
    options = _query(request)
    for name, value in split_fields(data, max_images + _MAX_FIELDS, "form"):
        if name != "image":
            _add_option(options, name, decode_spaces(value))
        elif value[:1] == b"@" or value[:3].lower() == b"%40":
            detail = (
                f"image is {value[:80].decode('latin-1')!r}: only a multipart form can hold a file; use curl -F image=@photo.jpg"
            )
            raise ServiceError("broken_base64", detail)
        elif len(images) == max_images:
            raise option_error("image", f"the form has more than {max_images} images; send fewer")
        else:  # + is a plus sign: base64 has no spaces
            images.append(_image_or_error(decode_image_text, percent_decode(value).decode("latin-1")))
    return RequestBody(images, options, False)


def _add_option(options: dict[str, Any], name: str, data: bytes, encoding: str = "utf-8") -> None:
    if name in options:
        raise option_error(name, f"{name} was sent twice; send it once")
    options[name] = option_text(name, data, encoding)


def _json_image(document: dict[str, Any]) -> bytes | str:
    image, url = document.get("image"), document.get("url")
    if url is not None:
        if image is not None or not isinstance(url, str):
            raise option_error("url", "url must be text, and be sent without image")
        return url
    if not isinstance(image, str):
        received = "missing" if image is None else JSON_TYPES[type(image)]
        detail = f"image is {received}; it must be base64 text or a data: URL, or send url instead"
        raise option_error("image", detail)
    return decode_image_text(image)


def _parse_json(request: Request, body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a JSON body, and the options in it."""
    document = load_object(body)
    if len(document) > _MAX_FIELDS:
        raise ServiceError("invalid_option", f"the JSON has {len(document)} members; at most {_MAX_FIELDS} are accepted")
    if query := _query(request):
        name = min(query)
        raise option_error(name, f"{name} is in the query; with a JSON body, put options into the JSON", in_query=True)
    options = {name: value for name, value in document.items() if name not in _IMAGE_FIELDS}
    for name, value in options.items():
        if has_surrogate(name) or (isinstance(value, str) and has_surrogate(value)):
            detail = f"{name[:80]!r} or its value has half of a surrogate pair, \\ud800 to \\udfff; send complete characters"
            raise option_error(name, detail)
    return document, options


def _image_or_error(decode: Callable[[_T], bytes], value: _T) -> _Image:
    try:
        return decode(value)
    except ServiceError as error:
        return error
