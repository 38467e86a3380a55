"""HTML pages of data: the report of a check, and a random sample of examples."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw

from corpus.example import Example
from corpus.findings import Report
from model import ImageError, decode_image
from report import image_uri, page

_MAX_CASES = 12  # per finding
_MAX_IMAGES = 4  # per case
_MAX_EDGE = 320  # pixels of the longer edge
_BOX_COLOR = (255, 214, 10)


def check_page(report: Report) -> str:
    """Return the report of a check as HTML: up to 12 cases per finding, with their images."""
    findings = [
        {
            "level": finding.level,
            "title": finding.title,
            "count": finding.count,
            "advice": finding.advice,
            "more": finding.count - len(finding.cases[:_MAX_CASES]),
            "cases": [
                {
                    "origin": case.origin,
                    "text": case.text,
                    "images": [uri for example in case.examples[:_MAX_IMAGES] if (uri := _rendered(example)[0])],
                }
                for case in finding.cases[:_MAX_CASES]
            ],
        }
        for finding in report.findings
    ]
    return page("check.html", title=f"Check of {report.data}", summary=report.summary(), findings=findings)


def examples_page(data: str, examples: Sequence[Example]) -> str:
    """Return examples as HTML: each image with its boxes and its captions in all languages."""
    cards = []
    for example in examples:
        image, size, error = _rendered(example)
        captions = list(zip(example.languages, example.references, strict=True))
        cards.append(
            {
                "image": image,
                "size": size,
                "error": error,
                "captions": captions,
                "image_id": example.image_id,
                "split": example.split,
                "origin": example.origin,
            }
        )
    return page("examples.html", title=f"Examples of {data}", summary=f"a random sample of {len(cards)}", examples=cards)


def sample_examples(examples: Iterable[Example], count: int, seed: int) -> list[Example]:
    """Return `count` examples of a stream, each with equal probability (Vitter 1985, algorithm R)."""
    rng = random.Random(seed)
    sample: list[Example] = []
    for number, example in enumerate(examples):
        index = number if number < count else rng.randrange(number + 1)
        if index < count:
            sample[index : index + 1] = [example]
    return sample


def _rendered(example: Example) -> tuple[str, tuple[int, int] | None, str]:
    """Return an image with its boxes as a data URI, its size (width, height), and an error message if it cannot be decoded."""
    try:
        decoded = decode_image(example.read(), example.image_limits)
        image = decoded.upright()
    except (OSError, ValueError, ImageError) as error:
        return "", None, f"{example.location}: {error}"
    image.thumbnail((_MAX_EDGE, _MAX_EDGE))
    _draw_boxes(image, example, image.width / decoded.upright_size[0])
    return image_uri(image, _MAX_EDGE), decoded.upright_size, ""


def _draw_boxes(image: Image.Image, example: Example, scale: float) -> None:
    draw = ImageDraw.Draw(image)
    for entry in example.objects:
        corners = [scale * edge for edge in (entry.box.x0, entry.box.y0, entry.box.x1, entry.box.y1)]
        draw.rectangle(corners, outline=_BOX_COLOR, width=2)
        draw.text((corners[0] + 4, corners[1] + 2), entry.name, _BOX_COLOR, stroke_width=2, stroke_fill=(0, 0, 0))
