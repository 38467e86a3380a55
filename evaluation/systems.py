"""Who captions: a checkpoint with some options, or a file of captions that somebody made elsewhere (COCO results)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus import DataError, Example
from evaluation.generate import caption_images
from model import Captioner, GenerationOptions

HUMAN, CONSTANT, WRONG, NEAREST = "human", "best constant caption", "on wrong pictures", "of the nearest pictures"
_TAKEN = (HUMAN, CONSTANT, WRONG, NEAREST)


@dataclass(frozen=True, slots=True)
class System:
    """A name and one caption an image; who made them, where that is known."""

    name: str
    captions: dict[str, str]
    captioner: Captioner | None = None
    options: GenerationOptions | None = None


def run_checkpoint(name: str, captioner: Captioner, options: GenerationOptions, examples: Sequence[Example]) -> System:
    """Caption the examples' pictures."""
    texts = caption_images(captioner, examples, options)
    captions = {example.image_id: text for example, text in zip(examples, texts, strict=True)}
    return System(name, captions, captioner, options)


def read_results(path: Path) -> System:
    """Read COCO results: [{"image_id", "caption"}, …]. Raises DataError that names the record."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); results are [{{image_id, caption}}, …]") from error
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path} holds no captions; results are a list of {{image_id, caption}}")
    captions: dict[str, str] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or "image_id" not in row or not isinstance(row.get("caption"), str):
            raise DataError(f"{path}: record {number} is {str(row)[:60]}; it must have an 'image_id' and a 'caption'")
        image = str(row["image_id"])
        if image in captions:
            raise DataError(f"{path}: record {number} is a second caption of image {image!r}; one an image")
        captions[image] = row["caption"]
    return System(path.stem, captions)


def distinct(names: Sequence[str]) -> list[str]:
    """Return the names with a number behind those that are taken: by another, or by a row of the table."""
    taken = set(_TAKEN)
    found = []
    for name in names:
        number, told = 1, name
        while told in taken:
            number += 1
            told = f"{name} ({number})"
        taken.add(told)
        found.append(told)
    return found


def write_results(system: System, path: Path) -> None:
    """Write a system's captions as COCO results; an id that is a number is written as one, as COCO's are."""
    rows = [
        {"image_id": int(image) if image.isascii() and image.isdigit() and str(int(image)) == image else image, "caption": text}
        for image, text in system.captions.items()
    ]
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
