"""Pages of data to look at in a browser: what a check found, and examples drawn at random."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw

from corpus.dataset import LOCAL_IMAGE_LIMITS
from corpus.example import Example
from corpus.findings import Report
from model import ImageError, decode_image
from report import image_uri, page

_CASES = 12  # of a finding that are shown
_EDGE = 320  # pixels of the longer edge
_INK = (255, 214, 10)


def check_page(report: Report) -> str:
    """Return the report of a check as HTML, a few cases of each finding with their pictures."""
    findings = [
        {
            "level": finding.level,
            "title": finding.title,
            "count": finding.count,
            "advice": finding.advice,
            "more": finding.count - len(finding.cases[:_CASES]),
            "cases": [
                {
                    "where": case.where,
                    "text": case.text,
                    "pictures": [uri for example in case.examples[:4] if (uri := _shown(example)[0])],
                }
                for case in finding.cases[:_CASES]
            ],
        }
        for finding in report.findings
    ]
    return page("check.html", title=f"Check of {report.data}", summary=report.summary(), findings=findings)


def examples_page(data: str, examples: Sequence[Example]) -> str:
    """Return examples as HTML: each picture with its boxes and its captions in all languages."""
    cards = []
    for example in examples:
        picture, size, error = _shown(example)
        captions = list(zip(example.languages, example.references, strict=True))
        cards.append(
            {
                "picture": picture,
                "size": size,
                "error": error,
                "captions": captions,
                "image_id": example.image_id,
                "split": example.split,
                "where": example.where,
            }
        )
    return page("examples.html", title=f"Examples of {data}", summary=f"{len(cards)} drawn at random", examples=cards)


def sample_examples(examples: Iterable[Example], count: int, seed: int) -> list[Example]:
    """Return `count` examples of a stream, each with equal probability (Vitter 1985, algorithm R)."""
    dice = random.Random(seed)
    kept: list[Example] = []
    for number, example in enumerate(examples):
        place = number if number < count else dice.randrange(number + 1)
        if place < count:
            kept[place : place + 1] = [example]
    return kept


def _shown(example: Example) -> tuple[str, tuple[int, int] | None, str]:
    """Return a picture as a data URI, its size, and why it cannot be shown."""
    try:
        picture = decode_image(example.read(), LOCAL_IMAGE_LIMITS)
        image = picture.upright()
    except (OSError, ValueError, ImageError) as error:
        return "", None, f"{example.place}: {error}"
    image.thumbnail((_EDGE, _EDGE))
    _draw_boxes(image, example, image.width / picture.upright_size[0])
    return image_uri(image, _EDGE), picture.upright_size, ""


def _draw_boxes(image: Image.Image, example: Example, scale: float) -> None:
    draw = ImageDraw.Draw(image)
    for entry in example.objects:
        corners = [scale * edge for edge in (entry.box.x0, entry.box.y0, entry.box.x1, entry.box.y1)]
        draw.rectangle(corners, outline=_INK, width=2)
        draw.text((corners[0] + 4, corners[1] + 2), entry.name, _INK, stroke_width=2, stroke_fill=(0, 0, 0))
