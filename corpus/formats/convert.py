"""Conversion from any format to any other. What the target does not support is an error unless the conversion is lossy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.identity import unique_examples
from corpus.formats.reader import stream_data
from corpus.formats.registry import (
    ANY_SPLIT,
    BOXES,
    FORMATS,
    LANGUAGES,
    LINE_BREAKS,
    NO_CAPTIONS,
    Format,
)
from corpus.formats.splits import SPLITS
from corpus.formats.writer import NewFolder


def convert(data: str | Path, target: str, *, lossy: bool = False) -> tuple[int, dict[str, int]]:
    """Write the examples of `data` to `FORMAT:FOLDER`, a new folder.

    Returns the number of examples, and the number of images by feature that was lost. Raises DataError at the first error,
    or if the format does not support an example and the conversion is not `lossy`; then no folder is left.
    """
    name, _, folder = target.partition(":")
    if name not in FORMATS:
        raise DataError(f"{target!r} has no format: {name!r} is not one of {', '.join(FORMATS)}; write FORMAT:FOLDER")
    if not folder:
        raise DataError(f"{target!r} has no folder; write {name}:FOLDER")
    lost: Counter[str] = Counter()
    count = 0

    def supported_examples(examples: Iterable[Example]) -> Iterator[Example]:
        nonlocal count
        for example in tqdm(examples, desc=name, unit="image", mininterval=1):
            supported = _supported(example, FORMATS[name], lost, lossy=lossy)
            if supported is not None:
                count += 1
                yield supported

    with NewFolder(Path(folder)) as new:
        FORMATS[name].write(supported_examples(unique_examples(stream_data(data), data)), new)
        if not count:
            raise DataError(f"{data} has no example that {name} supports; nothing was written")
    return count, dict(lost)


def _supported(example: Example, target: Format, lost: Counter[str], *, lossy: bool) -> Example | None:
    """Return the part of an example that the format supports, None if it must be left out."""
    texts = example.references
    used = {
        ANY_SPLIT: example.split not in SPLITS,
        LANGUAGES: any(example.languages),
        BOXES: bool(example.objects),
        LINE_BREAKS: any(re.search(r"[\r\n]", text) for text in texts),
        NO_CAPTIONS: not texts,
    }
    losses = [feature for feature, is_used in used.items() if is_used and feature not in target.features]
    if losses and not lossy:
        raise DataError(
            f"{target.name} does not support {losses[0]}, which image {example.image_id!r} ({example.location}) needs; "
            "leave out what is not supported with --lossy, or convert to jsonl, which supports everything"
        )
    lost.update(losses)
    if ANY_SPLIT in losses or NO_CAPTIONS in losses:
        return None
    if LINE_BREAKS in losses:
        example = replace(example, references=tuple(re.sub(r"\s*[\r\n]+\s*", " ", text) for text in texts))
    if LANGUAGES in losses:
        example = replace(example, languages=("",) * len(texts))
    return replace(example, objects=()) if BOXES in losses else example
