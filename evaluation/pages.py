"""HTML page of a comparison: the table, and the best, the worst and some random captions with their images and maps."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from corpus import Example
from evaluation.compare import Comparison, SystemScores
from model import CaptionerError, CaptionResult, decode_image, prepare
from report import image_uri, overlay, page

_CAPTIONS_PER_SECTION = 6
_IMAGE_SIZE, _MAP_SIZE = 300, 130  # pixels of the longer edge: an image, and the map of a word
COLUMNS = ("CIDEr", "BLEU-4", "BLEU-1", "METEOR", "ROUGE-L", "CHAIRi", "CHAIRs", "distinct", "copied", "vocabulary", "words")


def captions_page(title: str, comparison: Comparison, examples: Sequence[Example]) -> str:
    """Return the comparison as self-contained HTML; maps are computed for the few captions that are shown."""
    by_id = {example.image_id: example for example in examples}
    rows = [*comparison.rows, *comparison.baselines]
    columns = [name for name in COLUMNS if any(row.as_json().get(name) is not None for row in rows)]
    table = [(row.system.name, [format_cell(row.as_json().get(name), name) for name in columns]) for row in rows]
    leave_one_out = [
        (name, [format_cell(figures[key], key) for key in ("CIDEr", "BLEU-4", "ROUGE-L")])
        for name, figures in comparison.leave_one_out.items()
    ]
    sections = [
        {"title": f"{row.system.name}: {kind}", "captions": [_caption_card(row, index, by_id) for index in indices]}
        for row in comparison.rows
        for kind, indices in _select_captions(row).items()
    ]
    return page(
        "captions.html",
        title=title,
        columns=columns,
        table=table,
        left=leave_one_out,
        sections=sections,
        tokens=rows[0].scores.tokens,
    )


def format_cell(value: Any, column: str) -> str:
    """Return a value as text for a table: shares x 100, counts and lengths as they are, a dash for None."""
    if value is None:
        return "–"
    if not isinstance(value, float):
        return f"{value:,}"
    return f"{value:.1f}" if column == "words" else f"{100 * value:.1f}"


def _select_captions(row: SystemScores) -> dict[str, list[int]]:
    """Return indices of images by the title of the section that shows them."""
    scores = row.scores.per_image["CIDEr"]
    order = np.argsort(-scores, kind="stable").tolist()
    count = min(_CAPTIONS_PER_SECTION, len(order))
    sample = random.Random(0).sample(range(len(order)), count)
    return {"best by CIDEr": order[:count], "random sample": sample, "worst by CIDEr": order[::-1][:count]}


def _caption_card(row: SystemScores, index: int, by_id: Mapping[str, Example]) -> dict[str, Any]:
    image = row.scores.images[index]
    example = by_id[image]
    card: dict[str, Any] = {
        "text": row.system.captions[image],
        "image_id": image,
        "scores": {name: float(values[index]) for name, values in row.scores.per_image.items()},
        "references": example.references,
        "picture": "",
        "words": [],
    }
    try:
        decoded = decode_image(example.read(), example.image_limits).upright()
    except (OSError, CaptionerError):
        return card  # scoring captions of another program needs no image files
    card["picture"] = image_uri(decoded, _IMAGE_SIZE)
    result = _explained(row, example)
    if result is not None:
        decoded.thumbnail((_IMAGE_SIZE, _IMAGE_SIZE))
        for word in result.captions[0].words:
            reliance = "" if word.image_reliance is None else f", reliance {word.image_reliance:+.1f}"
            heat = image_uri(overlay(decoded, word, result.grid), _MAP_SIZE)
            card["words"].append({"map": heat, "text": word.text, "figures": f"p {word.probability:.2f}{reliance}"})
    return card


def _explained(row: SystemScores, example: Example) -> CaptionResult | None:
    """Return the maps of the scored caption if a checkpoint generated it, else None."""
    captioner, text = row.system.captioner, row.system.captions[example.image_id]
    if captioner is None or not text:
        return None
    return captioner.explain([prepare(example.read(), captioner.image_config, example.image_limits)], [[text]])[0]
