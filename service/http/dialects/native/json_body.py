"""Captions and models as JSON bodies: the shapes of schemas.py, with the maps as arrays for `encode_json`."""

from __future__ import annotations

import math
import secrets
import time
from dataclasses import replace
from typing import Any

from model import Box, Caption, Captioner, CaptionResult, ImageView, PatchGrid, Word, resample_map, to_json
from service.http.dialects.native.schemas import MapTarget
from service.http.json_encoding import finite, map_values

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def result_json(
    kind: str,
    model: str,
    language: str,
    view: ImageView,
    result: CaptionResult,
    target: MapTarget,
    result_id: str = "",
) -> dict[str, Any]:
    """Return the body of a caption or an explanation; `target` says what its maps become."""
    return {
        "id": result_id or f"{'cap' if kind == 'caption' else 'exp'}_{sortable_id()}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "image": image_json(view),
        "captions": [
            {
                "text": None if caption.finish_reason == "uncertain" else caption.text,
                "language": language,
                "finish_reason": caption.finish_reason,
                "log_probability": finite(caption.log_probability),
                "confidence": caption.confidence,
                "words": [word_json(word, view_of(caption, view), result.grid, target) for word in caption.words],
                "region": region_json(caption.region),
                "polygon": list(caption.polygon) or None,
                "grid": None if caption.covers in (None, view.covers) else grid_json(view_of(caption, view), result.grid),
            }
            for caption in result.captions
        ],
        "grid": grid_json(view, result.grid),
        "timing": {name: round(value, 3) for name, value in result.timing.as_dict().items()},
    }


def view_of(caption: Caption, view: ImageView) -> ImageView:
    """Return the image's view with what the caption's maps cover, a crop where a region was captioned by one."""
    return view if caption.covers is None else replace(view, covers=caption.covers)


def region_json(region: Box | None) -> list[int] | None:
    """Return a region in whole pixels, None for the whole image."""
    return None if region is None else [round(edge) for edge in (region.x0, region.y0, region.x1, region.y1)]


def image_json(view: ImageView) -> dict[str, Any]:
    """Return the facts of the image that was sent."""
    width, height = view.source_size
    return {
        "width": width,
        "height": height,
        "format": view.format,
        "orientation_applied": view.orientation,
        "is_truncated": view.is_truncated,
    }


def grid_json(view: ImageView, grid: PatchGrid) -> dict[str, Any]:
    """Return the patches of the maps, and the part of the image that they tile."""
    covers = view.covers
    rounded = [round(covers.x0), round(covers.y0), round(covers.x1), round(covers.y1)]
    return {"rows": grid.rows, "columns": grid.columns, "covers": rounded}


def word_json(word: Word, view: ImageView, grid: PatchGrid, target: MapTarget) -> dict[str, Any]:
    """Return a word; `target` says what its map becomes."""
    body: dict[str, Any] = {
        "text": word.text,
        "start": word.start,
        "end": word.end,
        "log_probability": finite(word.log_probability),
        "probability": math.exp(word.log_probability),
        "confidence": word.confidence,
        "image_reliance": None if word.image_reliance is None else finite(word.image_reliance),
        "map": None,
        "image_mass": None,
        "prompt_mass": None,
        "focus": None,
        "box": None,
    }
    if word.map is None:
        return body
    if target != "none":
        values, shape = word.map.values, grid
        if isinstance(target, PatchGrid):
            values, shape = resample_map(values, grid, view.covers, view.source_size, target), target
        body["map"] = {"rows": shape.rows, "columns": shape.columns, "values": map_values(values)}
    masses = {"image_mass": word.map.image_mass, "prompt_mass": word.map.prompt_mass}
    return body | masses | {"focus": word.map.focus, "box": list(word.box or ())}


def model_json(name: str, captioner: Captioner) -> dict[str, Any]:
    """Return a checkpoint's entry of /v1/models."""
    config = captioner.config
    return {
        "id": name,
        "object": "model",
        "created": config.created,
        "owned_by": "sightline",
        "name": name,
        "parameters": captioner.parameters,
        "image": {"width": config.image.width, "height": config.image.height},
        "grid": {"rows": captioner.grid.rows, "columns": captioner.grid.columns},
        "languages": list(config.languages),
        "maps": {"method": config.maps.method, "head_mean": config.maps.head_mean, "pointing": config.maps.pointing},
        "tasks": [{"name": task.name, "input": task.input, "output": task.output} for task in config.tasks],
        "defaults": to_json(config.generation),
        "license": config.license,
        "card": captioner.card,
    }


def sortable_id() -> str:
    """Return 26 characters that sort by time: 48 bits of milliseconds and 80 random bits, in Crockford's base 32."""
    value = int(time.time() * 1000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))
