"""Karpathy's split json (Karpathy and Fei-Fei 2015): `images` with `filename`, `split` and `sentences` of `raw` captions.

COCO's restval is read as train, as in papers. A sentence may have a `language`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.fields import captions_from, image_id_from, is_null, language_from, list_of, value_of
from corpus.formats.image_files import image_roots, missing_image_message, normalize_name, without_image_suffix
from corpus.formats.read_options import ReadOptions
from corpus.formats.splits import normalize_split
from corpus.formats.text_files import json_document
from corpus.formats.writer import NewFolder, enumerate_valid


def read_karpathy(paths: list[Path], options: ReadOptions) -> Iterator[Example]:
    """Read split files; images are next to them, in images/ or in the folder `filepath`.

    The image id is the field of `?id=FIELD`, such as cocoid; else `image_id` if a record has it, or the name of the image without
    its suffix.
    """
    for path in paths:
        with options.errors:
            for number, record in enumerate(list_of(json_document(path), "images", path, "Karpathy split file")):
                example = None
                with options.errors:
                    example = _example(path, f"{path}: images[{number}]", record, options)
                if example is not None:
                    yield example


def write_karpathy(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write dataset.json, and the images in images/."""
    images: list[dict[str, Any]] = []
    num_sentences = 0
    for number, example in enumerate_valid(examples):
        name = folder.write_image(example, number, "images").partition("/")[2]
        sentences = []
        for text, language in zip(example.references, example.languages, strict=True):
            entry = {"raw": text, "tokens": text.lower().split(), "imgid": number, "sentid": num_sentences}
            sentences.append(entry | ({"language": language} if language else {}))
            num_sentences += 1
        record = {"imgid": number, "image_id": example.image_id, "filename": name, "split": example.split, "sentences": sentences}
        images.append(record | {"sentids": [entry["sentid"] for entry in sentences]})
    folder.write_json("dataset.json", {"images": images, "dataset": folder.path.name})


def _example(path: Path, origin: str, record: Any, options: ReadOptions) -> Example:
    name = value_of(record, "filename", (str,), origin)
    split = normalize_split(value_of(record, "split", (str,), origin))
    texts: list[str] = []
    languages: list[str] = []
    for number, sentence in enumerate(value_of(record, "sentences", (list,), origin)):
        source = f"{origin}.sentences[{number}]"
        raw = None if is_null(sentence, "raw") else value_of(sentence, "raw", (str,), source)
        kept, tags = captions_from(raw, language_from(sentence, origin), source, options.errors)
        if not kept:
            options.errors.skip(source, "an empty caption")
        texts, languages = texts + kept, languages + tags
    folder = normalize_name(str(record.get("filepath") or ""))
    roots = [path.parent / folder, path.parent / "images" / folder, *image_roots(path)]
    file = options.images.find(roots, name, split)
    if file is None and options.need_images:
        raise DataError(missing_image_message(name, origin, path.parent))
    image_id = _image_id(record, origin, options) or without_image_suffix(normalize_name(name))
    return Example(file or path.parent / folder / name, tuple(texts), split, image_id, tuple(languages), origin=origin)


def _image_id(record: dict[str, Any], origin: str, options: ReadOptions) -> str | None:
    """Return the id in the field of `?id=FIELD`, or `image_id`."""
    field = options.columns.get("id", "")
    if field and image_id_from(record.get(field), origin) is None:
        raise DataError(f"{origin} has no {field!r}; it has {', '.join(map(repr, record))}: name one of these, as in ?id=cocoid")
    return image_id_from(record.get(field or "image_id"), origin)
