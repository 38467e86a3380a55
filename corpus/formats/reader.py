"""Reading of data in any format: a stream of examples, or a list."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from corpus.errors import DataError, ErrorLog
from corpus.example import Example
from corpus.formats.data_spec import parse_spec
from corpus.formats.detect import detect_format
from corpus.formats.identity import unique_examples
from corpus.formats.read_options import ReadOptions


def stream_data(data: str | Path, *, errors: ErrorLog | None = None, need_images: bool = True) -> Iterator[Example]:
    """Yield the examples of a file or folder in its order, with captions in all languages. No image is kept in memory.

    `data` is PATH, or FORMAT:PATH if the format cannot be detected. Raises DataError at the first error; if `errors` keeps
    messages, only if the data does not exist or its format is unknown. Image ids may occur twice: see `unique_examples`.
    """
    errors = errors or ErrorLog()
    data_format, paths, columns = detect_format(str(data))
    accept_truncated = parse_spec(str(data)).accept_truncated
    with errors:
        for example in data_format.read(paths, ReadOptions(errors, need_images, columns)):
            if accept_truncated:
                example = replace(example, accept_truncated=True)
            is_valid = example.image_id.isascii() and example.image_id.isprintable()
            with errors:
                is_valid = is_valid or _is_encodable(example)
            if is_valid:
                yield example


def read_data(
    data: str | Path,
    *,
    language: str = "en",
    need_captions: bool = True,
    need_images: bool = True,
    errors: ErrorLog | None = None,
) -> list[Example]:
    """Return all examples with their captions in `language` and those without a language.

    With `need_captions`, examples without such captions are left out. Raises DataError at the first error; if `errors` keeps
    messages, only if no example is left.
    """
    examples = list(unique_examples(stream_data(data, errors=errors, need_images=need_images), data, errors))
    if not examples:
        raise DataError(f"{data} has no image; name data with images, or its format: FORMAT:PATH")
    selected = [example.in_language(language) for example in examples]
    if any(example.references for example in examples) and not any(example.references for example in selected):
        tags = sorted({tag for example in examples for tag in example.languages})
        raise DataError(f"{data} has no caption in {language!r}; it has {', '.join(tags)}: choose one with --language")
    return [example for example in selected if example.references or not need_captions]


def _is_encodable(example: Example) -> bool:
    """Return True. Raises DataError if the image id, the split or a language has a character that cannot be written."""
    for name, text in (("image id", example.image_id), ("split", example.split), ("language", " ".join(example.languages))):
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
            raise DataError(f"{example.origin}: the {name} {text!r} has a control character or an unpaired surrogate; change it")
    return True
