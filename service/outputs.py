"""What a request for captions asks for, checked, and the forms of its answer: JSON, a contact sheet, a report to keep."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from model import Box, Captioner, CaptionRequest, GenerationOptions, ImageView, Word
from report import contact_sheet, image_uri, overlay, page, word_summary
from service.answers import answer_json
from service.engine import CaptionedImage
from service.errors import option_problem
from service.schemas import MAX_MAP_VALUES, MapOptions

JSON, TEXT, EVENTS, PNG, HTML = "application/json", "text/plain", "text/event-stream", "image/png", "text/html"
FORMS = (JSON, TEXT, EVENTS, PNG, HTML)
EDGE = 800  # pixels of the photograph's longer edge in a sheet or report


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request for captions asks for, checked."""

    model: str
    captioner: Captioner
    language: str
    options: MapOptions
    generation: GenerationOptions
    json: bool  # whether the options came typed, in JSON
    request_id: str

    def wanted(self, view: ImageView, form: str = JSON) -> CaptionRequest:
        """Return what the model is to do; text needs no maps."""
        told = form != TEXT
        return CaptionRequest(
            view=view,
            options=self.generation,
            maps=self.options.maps if told else "none",
            reliance=told and self.options.reliance,
        )


def contact_sheet_png(found: CaptionedImage) -> bytes:
    """Return the photograph and one overlay a word as PNG."""
    assert found.photograph is not None, "it was not asked for"
    sheet = contact_sheet(found.photograph, found.captions.captions[0], found.captions.grid, _shares(found.view))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def report_html(found: CaptionedImage, model: str, language: str) -> str:
    """Return a page that holds everything: photograph, captions, and every word's overlay and figures."""
    photograph = found.photograph
    assert photograph is not None, "it was not asked for"
    captions = [
        {
            "text": caption.text,
            "log_probability": caption.log_probability,
            "words": [_shown(word, photograph, found) for word in caption.words],
        }
        for caption in found.captions.captions
    ]
    picture = image_uri(photograph, EDGE)
    return page(
        "caption.html", title="A caption and its words", model=model, language=language, picture=picture, captions=captions
    )


def caption_json(asked: Asked, found: CaptionedImage, identity: str = "") -> dict[str, Any]:
    """Return the answer to a request for captions, for `encode`."""
    target = asked.options.target_grid()
    return answer_json("caption", asked.model, asked.language, found.view, found.captions, target, found.timing, identity)


def map_values(found: CaptionedImage, options: MapOptions, *, json: bool, pictures: int = 1) -> int:
    """Return how many values the maps of an answer with so many such pictures have. Raises Problem where they are too many."""
    words, target = sum(len(caption.words) for caption in found.captions.captions) * pictures, options.target_grid()
    values = 0 if options.maps == "none" else words * (target or found.captions.grid).num_patches
    if target is not None and values > MAX_MAP_VALUES:
        detail = (
            f"map_size is {options.map_size!r}: {words} words of {target.num_patches} cells are more than {MAX_MAP_VALUES} values; "
            "ask for smaller maps, fewer captions or fewer pictures"
        )
        raise option_problem("map_size", detail, json=json)
    return values


def _shares(view: ImageView) -> Box:
    """Return what the cells tile in shares of the photograph's width and height."""
    (width, height), covers = view.source_size, view.covers
    return Box(covers.x0 / width, covers.y0 / height, covers.x1 / width, covers.y1 / height)


def _shown(word: Word, photograph: Image.Image, found: CaptionedImage) -> dict[str, Any]:
    picture = None
    if word.map is not None:
        picture = image_uri(overlay(photograph, word, found.captions.grid, _shares(found.view)))
    return {"text": word.text, "picture": picture, "figures": word_summary(word)}
