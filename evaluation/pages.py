"""A page of evaluated captions: the table, and the best, the worst and some captions beside their pictures and maps."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from corpus import LOCAL_IMAGE_LIMITS, Example
from evaluation.compare import Comparison, Row
from model import CaptionerError, CaptionResult, decode_image, prepare
from report import image_uri, overlay, page

_SHOWN = 6  # captions of each kind
_WIDTH, _TILE = 300, 130  # pixels of a photograph and of a word's map
COLUMNS = ("CIDEr", "BLEU-4", "BLEU-1", "METEOR", "ROUGE-L", "CHAIRi", "CHAIRs", "distinct", "copied", "vocabulary", "words")


def captions_page(title: str, comparison: Comparison, examples: Sequence[Example]) -> str:
    """Return the comparison as self-contained HTML; maps are made anew for the few captions that are shown."""
    by_id = {example.image_id: example for example in examples}
    rows = [*comparison.rows, *comparison.baselines]
    columns = [name for name in COLUMNS if any(row.as_json().get(name) is not None for row in rows)]
    table = [(row.system.name, [cell(row.as_json().get(name), name) for name in columns]) for row in rows]
    left = [
        (name, [cell(figures[key], key) for key in ("CIDEr", "BLEU-4", "ROUGE-L")])
        for name, figures in comparison.left_out.items()
    ]
    sections = [
        {"title": f"{row.system.name}: {kind}", "captions": [_shown(row, place, by_id) for place in places]}
        for row in comparison.rows
        for kind, places in _chosen(row).items()
    ]
    return page(
        "captions.html", title=title, columns=columns, table=table, left=left, sections=sections, tokens=rows[0].scores.tokens
    )


def cell(value: Any, column: str) -> str:
    """Return a figure as tables have it: shares x 100, counts and lengths as they are."""
    if value is None:
        return "–"
    if not isinstance(value, float):
        return f"{value:,}"
    return f"{value:.1f}" if column == "words" else f"{100 * value:.1f}"


def _chosen(row: Row) -> dict[str, list[int]]:
    scores = row.scores.per_image["CIDEr"]
    order = np.argsort(-scores, kind="stable").tolist()
    drawn = random.Random(0).sample(range(len(order)), min(_SHOWN, len(order)))
    return {"the best by CIDEr": order[:_SHOWN], "drawn at random": drawn, "the worst by CIDEr": order[::-1][:_SHOWN]}


def _shown(row: Row, place: int, by_id: Mapping[str, Example]) -> dict[str, Any]:
    image = row.scores.images[place]
    example = by_id[image]
    shown: dict[str, Any] = {
        "text": row.system.captions[image],
        "image_id": image,
        "scores": {name: float(values[place]) for name, values in row.scores.per_image.items()},
        "references": example.references,
        "picture": "",
        "words": [],
    }
    try:
        photograph = decode_image(example.read(), LOCAL_IMAGE_LIMITS).upright()
    except (OSError, CaptionerError):
        return shown  # the references of captions made elsewhere need no pictures
    shown["picture"] = image_uri(photograph, _WIDTH)
    answer = _explained(row, example)
    if answer is not None:
        photograph.thumbnail((_WIDTH, _WIDTH))
        for word in answer.captions[0].words:
            reliance = "" if word.image_reliance is None else f", reliance {word.image_reliance:+.1f}"
            heat = image_uri(overlay(photograph, word, answer.grid), _TILE)
            shown["words"].append({"map": heat, "text": word.text, "figures": f"p {word.probability:.2f}{reliance}"})
    return shown


def _explained(row: Row, example: Example) -> CaptionResult | None:
    """Return the maps of the caption that was scored, where it is the work of a checkpoint."""
    captioner, text = row.system.captioner, row.system.captions[example.image_id]
    if captioner is None or not text:
        return None
    return captioner.explain([prepare(example.read(), captioner.image_config, LOCAL_IMAGE_LIMITS)], [[text]])[0]
