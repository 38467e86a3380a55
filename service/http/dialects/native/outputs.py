"""The forms of a response: JSON, text, a contact sheet, a page."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from model import CaptionResult, ImageView, PatchGrid, Word
from report import contact_sheet, image_uri, overlay, page, word_summary
from service.errors import ServiceError, option_error
from service.http.dialects.native.json_body import region_json, result_json, view_of
from service.http.dialects.native.parse import ParsedRequest
from service.http.dialects.native.problems import problem_json
from service.http.dialects.native.schemas import MAX_MAP_VALUES
from service.http.responses import json_response, timing_header
from service.runtime import Engine, PreparedImage

JSON, TEXT, EVENTS, PNG, HTML = "application/json", "text/plain", "text/event-stream", "image/png", "text/html"
CAPTION_TYPES = (JSON, TEXT, EVENTS, PNG, HTML)
EXPLANATION_TYPES = (JSON, TEXT, PNG, HTML)
BATCH_TYPES = (JSON, TEXT)
THUMBNAIL_EDGE = 800  # pixels, of the image in a contact sheet or page


async def caption_response(
    engine: Engine, request: Request, parsed: ParsedRequest, prepared: PreparedImage, result: CaptionResult, media_type: str
) -> Response:
    """Return a result in the requested form. Raises ServiceError if its maps are too large."""
    timing = timing_header(result.timing)
    if media_type == TEXT:
        return PlainTextResponse(caption_lines(result), headers=timing)
    if media_type == PNG:
        png = await engine.in_writer(lambda: contact_sheet_png(prepared, result))
        return Response(png, media_type=PNG, headers=timing)
    if media_type == HTML:
        html = await engine.in_writer(lambda: _page_html(parsed, prepared, result))
        return HTMLResponse(html, headers=timing)
    num_values = check_map_values(parsed, result)
    return await json_response(engine, request, num_values, lambda: body_json(parsed, prepared.view, result), timing)


def caption_lines(result: CaptionResult) -> str:
    """Return the captions as text, one a line."""
    return "".join(" ".join(caption.text.splitlines()) + "\n" for caption in result.captions)


def body_json(parsed: ParsedRequest, view: ImageView, result: CaptionResult, result_id: str = "") -> dict[str, Any]:
    """Return the body of a result."""
    kind = "explanation" if parsed.generation is None else "caption"
    return result_json(kind, parsed.model, parsed.language, view, result, parsed.options.target(), result_id)


def problem_of(engine: Engine, parsed: ParsedRequest, error: ServiceError) -> dict[str, Any]:
    """Return an error that is not the whole response: of an image of a batch, or after the first event."""
    return problem_json(error, parsed.id, is_json=parsed.is_json, root_path=engine.settings.root_path)


def check_map_values(parsed: ParsedRequest, result: CaptionResult, *, num_images: int = 1) -> int:
    """Return the number of map values in a response with so many such images. Raises ServiceError if there are too many."""
    words = [word for caption in result.captions for word in caption.words if word.map is not None]
    target = parsed.options.target()
    if target == "none":
        return 0
    num_values = len(words) * num_images * (target if isinstance(target, PatchGrid) else result.grid).num_patches
    if num_values > MAX_MAP_VALUES and (isinstance(target, PatchGrid) or num_images == 1):
        cells = num_values // (len(words) * num_images)
        detail = (
            f"map_size is {parsed.options.map_size!r}: {len(words) * num_images} words of {cells} cells are more than "
            f"{MAX_MAP_VALUES} values; use smaller maps, fewer captions, regions or images"
        )
        raise option_error("map_size", detail)
    return num_values


def contact_sheet_png(prepared: PreparedImage, result: CaptionResult) -> bytes:
    """Return the image and an overlay per word of the best caption, as a PNG file."""
    best = result.best
    sheet = contact_sheet(_thumbnail(prepared), best, result.grid, view_of(best, prepared.view))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _page_html(parsed: ParsedRequest, prepared: PreparedImage, result: CaptionResult) -> str:
    """Return a self-contained page: image, captions, and every word's overlay and figures."""
    thumbnail = _thumbnail(prepared)

    def word_values(word: Word, view: ImageView) -> dict[str, Any]:
        image = None if word.map is None else image_uri(overlay(thumbnail, word, result.grid, view))
        return {"text": word.text, "image": image, "summary": word_summary(word)}

    captions = [
        {
            "text": caption.text,
            "log_probability": caption.log_probability,
            "region": region_json(caption.region),
            "words": [word_values(word, view_of(caption, prepared.view)) for word in caption.words],
        }
        for caption in result.captions
    ]
    return page(
        "caption.html",
        title="A caption and its words",
        model=parsed.model,
        language=parsed.language,
        image=image_uri(thumbnail, THUMBNAIL_EDGE),
        captions=captions,
    )


def _thumbnail(prepared: PreparedImage) -> Image.Image:
    assert prepared.thumbnail is not None, "it was not requested"
    return prepared.thumbnail
