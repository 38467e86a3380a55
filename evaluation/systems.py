"""Systems that are compared: a checkpoint with decoding options, or a file of captions of another program (COCO results)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus import DataError, Example
from evaluation.generation import caption_images
from model import Captioner, GenerationOptions

HUMAN, CONSTANT, SHUFFLED, NEAREST = "human", "best constant caption", "shuffled captions", "nearest-image captions"
_RESERVED_NAMES = (HUMAN, CONSTANT, SHUFFLED, NEAREST)


@dataclass(frozen=True, slots=True)
class System:
    """A name and one caption per image; captioner and options are those of a checkpoint, else None."""

    name: str
    captions: dict[str, str]
    captioner: Captioner | None = None
    options: GenerationOptions | None = None


def run_checkpoint(name: str, captioner: Captioner, options: GenerationOptions, examples: Sequence[Example]) -> System:
    """Caption the images of the examples. Raises DataError that names an image that cannot be read."""
    texts = caption_images(captioner, examples, options)
    captions = {example.image_id: text for example, text in zip(examples, texts, strict=True)}
    return System(name, captions, captioner, options)


def read_results(path: Path) -> System:
    """Read COCO results: [{"image_id", "caption"}, …]. Raises DataError that names the invalid record."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); expected a list of {{image_id, caption}}") from error
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path} has no captions; expected a list of {{image_id, caption}}")
    captions: dict[str, str] = {}
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or "image_id" not in row or not isinstance(row.get("caption"), str):
            raise DataError(f"{path}: record {index} is {str(row)[:60]}; it must have an 'image_id' and a 'caption'")
        image = str(row["image_id"])
        if image in captions:
            raise DataError(f"{path}: record {index} is a second caption of image {image!r}; expected one caption per image")
        captions[image] = row["caption"]
    return System(path.stem, captions)


def unique_names(names: Sequence[str]) -> list[str]:
    """Return the names, with a number after each one that is already used by another system or by a baseline."""
    used = set(_RESERVED_NAMES)
    result = []
    for name in names:
        number, candidate = 1, name
        while candidate in used:
            number += 1
            candidate = f"{name} ({number})"
        used.add(candidate)
        result.append(candidate)
    return result


def write_results(system: System, path: Path) -> None:
    """Write a system's captions as COCO results; a numeric image id is written as an integer, as in COCO."""
    rows = [
        {"image_id": int(image) if image.isascii() and image.isdigit() and str(int(image)) == image else image, "caption": text}
        for image, text in system.captions.items()
    ]
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
