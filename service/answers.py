"""Captions and models as JSON: the shapes of schemas.py, filled."""

from __future__ import annotations

import math
import secrets
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json as json_bytes
from torch import Tensor

from model import Captioner, CaptionResult, ImageView, PatchGrid, Word, resample_map, to_json

_DIGITS = 6  # significant ones of a map's values
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def answer_json(
    kind: str,
    model: str,
    language: str,
    view: ImageView,
    answer: CaptionResult,
    target: PatchGrid | None,
    timing: dict[str, float],
    identity: str = "",
) -> dict[str, Any]:
    """Return the answer of a caption or an explanation, for `encode`; `target` is the grid that maps are resampled to."""
    return {
        "id": identity or f"{'cap' if kind == 'caption' else 'exp'}_{sortable_id()}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "image": image_json(view),
        "captions": [
            {
                "text": caption.text,
                "language": language,
                "finish_reason": caption.finish_reason,
                "log_probability": _finite(caption.log_probability),
                "confidence": None,
                "words": [word_json(word, view, answer.grid, target) for word in caption.words],
            }
            for caption in answer.captions
        ],
        "grid": grid_json(view, answer.grid),
        "timing": {name: round(value, 3) for name, value in timing.items()},
    }


def encode(body: dict[str, Any]) -> bytes:
    """Return an answer as JSON. Maps, its only arrays, are written one by one.

    So no call holds the interpreter's lock for longer than one map takes, 15 ms where it is the largest; json.dumps of the
    whole took a second.
    """
    maps: list[NDArray[np.float64]] = []

    def later(value: Any) -> str:
        maps.append(value)
        return "@"

    # No text can hold this sequence: its quotes would be escaped.
    head, *rest = json_bytes(body, fallback=later).split(b'"values":"@"')
    pieces = [head]
    for values, after in zip(maps, rest, strict=True):
        pieces += [b'"values":', json_bytes(values.tolist()), after]
    return b"".join(pieces)


def _finite(value: float) -> float:
    """Return a number that JSON can hold. Raises ValueError: a network that gives none is broken, and that is no answer."""
    if not math.isfinite(value):
        raise ValueError(f"the network gave {value}")
    return value


def _rounded(values: Tensor) -> NDArray[np.float64]:
    """Round to significant digits: what is left prints short. NumPy takes a twentieth of torch's time for a small map."""
    exact = values.double().numpy()
    _finite(float(exact.sum()))
    scale = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(np.maximum(exact, 1e-300))))
    return np.round(exact * scale) / scale


def image_json(view: ImageView) -> dict[str, Any]:
    """Return what an answer says of the picture that came."""
    width, height = view.source_size
    return {"width": width, "height": height, "format": view.format, "orientation_applied": view.orientation}


def grid_json(view: ImageView, grid: PatchGrid) -> dict[str, Any]:
    """Return the cells of the maps, and what of the picture they tile."""
    covers = view.covers
    rounded = [round(covers.x0), round(covers.y0), round(covers.x1), round(covers.y1)]
    return {"rows": grid.rows, "columns": grid.columns, "covers": rounded}


def model_json(name: str, captioner: Captioner) -> dict[str, Any]:
    """Return what /v1/models says of a checkpoint."""
    config = captioner.config
    return {
        "id": name,
        "object": "model",
        "created": config.created,
        "owned_by": "sightline",
        "name": name,
        "parameters": captioner.parameters,
        "image": {"width": config.image.width, "height": config.image.height},
        "grid": {
            "rows": captioner.grid.rows,
            "columns": captioner.grid.columns,
        },
        "languages": list(config.languages),
        "maps": {"method": config.maps.method, "mean": config.maps.head_mean, "pointing": config.maps.pointing},
        "defaults": to_json(config.generation),
        "license": config.license,
        "card": captioner.card,
    }


def sortable_id() -> str:
    """Return 26 letters that sort by time: 48 bits of milliseconds and 80 random ones, in Crockford's base 32."""
    value = int(time.time() * 1000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def word_json(word: Word, view: ImageView, grid: PatchGrid, target: PatchGrid | None) -> dict[str, Any]:
    """Return a word, for `encode`; `target` is the grid that its map is resampled to."""
    found = word.map
    body: dict[str, Any] = {
        "text": word.text,
        "start": word.start,
        "end": word.end,
        "log_probability": _finite(word.log_probability),
        "probability": math.exp(word.log_probability),
        "image_reliance": None if word.image_reliance is None else _finite(word.image_reliance),
        "map": None,
        "image_mass": None,
        "focus": None,
        "box": None,
    }
    if found is None:
        return body
    values, shape = found.values, grid
    if target is not None:
        values, shape = resample_map(found.values, grid, view.covers, view.source_size, target), target
    body["map"] = {"rows": shape.rows, "columns": shape.columns, "values": _rounded(values)}
    return body | {"image_mass": found.image_mass, "focus": found.focus, "box": list(word.box or ())}
