"""From any format to any other, whole or not at all; what the other cannot hold is an error unless losing it is allowed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.known import BOXES, BREAKS, EMPTY, FORMATS, LANGUAGES, SILENT, SPLITS, Format
from corpus.formats.reading import stream_data, unique
from corpus.formats.writing import NewFolder

_USUAL_SPLITS = ("train", "val", "test")


def convert(data: str | Path, target: str, *, lossy: bool = False) -> tuple[int, dict[str, int]]:
    """Write the examples of `data` to `FORMAT:FOLDER`, a new folder; returns their number and what was lost, by kind.

    Raises DataError, and leaves nothing behind, at the first fault, or where the format cannot hold an example and the
    conversion is not `lossy`.
    """
    kind, _, folder = target.partition(":")
    if kind not in FORMATS:
        raise DataError(f"{target!r} says no format to write: {kind!r} is none of {', '.join(FORMATS)}; say FORMAT:FOLDER")
    if not folder:
        raise DataError(f"{target!r} says no format to write and its folder; say {kind}:FOLDER")
    lost: Counter[str] = Counter()
    count = 0

    def counted(examples: Iterable[Example]) -> Iterator[Example]:
        nonlocal count
        for example in tqdm(examples, desc=kind, unit="picture", mininterval=1):
            held = _held(example, FORMATS[kind], lost, lossy=lossy)
            if held is not None:
                count += 1
                yield held

    with NewFolder(Path(folder)) as new:
        FORMATS[kind].write(counted(unique(stream_data(data), data)), new)
        if not count:
            raise DataError(f"{data} has no example that {kind} can hold; nothing was written")
    return count, dict(lost)


def _held(example: Example, target: Format, lost: Counter[str], *, lossy: bool) -> Example | None:
    """Return what the format can hold of an example, None where that is nothing."""
    texts = example.references
    absent = {
        SPLITS: example.split not in _USUAL_SPLITS,
        LANGUAGES: any(example.languages),
        BOXES: bool(example.objects),
        BREAKS: any(re.search(r"[\r\n]", text) for text in texts),
        EMPTY: "" in texts,
        SILENT: not texts,
    }
    losses = [what for what, there in absent.items() if there and what not in target.holds]
    if losses and not lossy:
        raise DataError(
            f"{target.name} cannot hold {losses[0]}, and image {example.image_id!r} ({example.place}) has some; "
            "say --lossy to do without, or convert to jsonl, which holds everything"
        )
    lost.update(losses)
    if SPLITS in losses or SILENT in losses:
        return None
    if EMPTY in losses or BREAKS in losses:
        kept = [place for place, text in enumerate(texts) if text or EMPTY not in losses]
        if not kept and SILENT not in target.holds:
            return None
        texts = tuple(re.sub(r"\s*[\r\n]+\s*", " ", texts[place]) if BREAKS in losses else texts[place] for place in kept)
        languages, sources = (tuple(values[place] for place in kept) for values in (example.languages, example.sources))
        example = replace(example, references=texts, languages=languages, sources=sources)
    if LANGUAGES in losses:
        example = replace(example, languages=("",) * len(texts))
    return replace(example, objects=()) if BOXES in losses else example
