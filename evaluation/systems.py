"""Systems that are compared: a checkpoint with decoding options, or a file of captions of another program (COCO results)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from corpus import DataError, Example, json_document
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


def run_checkpoint(
    name: str, captioner: Captioner, options: GenerationOptions, examples: Sequence[Example], *, language: str = ""
) -> System:
    """Caption the images of the examples, in a language if the checkpoint has it.

    Raises DataError that names an image that cannot be read.
    """
    texts = caption_images(captioner, examples, options, language=language)
    captions = {example.image_id: text for example, text in zip(examples, texts, strict=True)}
    return System(name, captions, captioner, options)


def read_results(path: Path) -> System:
    """Read COCO results: [{"image_id", "caption"}, …]. Raises DataError that names the invalid record."""
    rows = json_document(path)
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path} has no captions; expected a list of {{image_id, caption}}")
    captions: dict[str, str] = {}
    for index, row in enumerate(rows):
        image = _image_id(row.get("image_id")) if isinstance(row, dict) else ""
        if not image or not isinstance(row.get("caption"), str):
            raise DataError(f"{path}: record {index} is {str(row)[:60]}; it must have an 'image_id' and a 'caption'")
        if image in captions:
            raise DataError(f"{path}: record {index} is a second caption of image {image!r}; expected one caption per image")
        captions[image] = row["caption"]
    return System(path.stem, captions)


def match_results(system: System, examples: Sequence[Example]) -> System:
    """Return a system whose captions have the image ids of the examples; ids of other images are kept as they are.

    If several images have the same id in the data, their image ids differ from it, and both can be written in results.
    Raises DataError if an id means several of the examples, or if two ids mean the same.
    """
    image_ids = {example.image_id for example in examples}
    by_own_id: defaultdict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_own_id[example.own_id].append(example)
    captions: dict[str, str] = {}
    for written_id, text in system.captions.items():
        same = [] if written_id in image_ids else by_own_id.get(written_id, [])
        if len(same) > 1:
            names = " and ".join(f"{example.image_id!r} ({example.origin})" for example in same[:2])
            raise DataError(
                f"{system.name}: the image id {written_id!r} means {names}; write those ids, or choose one of the splits with "
                "--split"
            )
        image_id = same[0].image_id if same else written_id
        if image_id in captions:
            raise DataError(f"{system.name} has two captions of image {image_id!r}, one of them as {written_id!r}; remove one")
        captions[image_id] = text
    return replace(system, captions=captions)


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


def _image_id(value: object) -> str:
    """Return an image id of results as a text, "" if it is none; 1.0 is 1, as some programs write integers."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
