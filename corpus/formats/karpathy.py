"""Karpathy's split json (Karpathy and Fei-Fei 2015): `images` with `filename`, `split` and `sentences` of `raw` captions.

COCO's restval is read as train, as papers do. A sentence may have a `language`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.files import (
    Reading,
    find_picture,
    id_of,
    json_document,
    language_of,
    missing_picture,
    split_name,
    table,
    texts_of,
    value_of,
    without_ending,
)
from corpus.formats.writing import NewFolder, numbered


def read_karpathy(paths: list[Path], reading: Reading) -> Iterator[Example]:
    """Read split files; pictures lie beside them, in images/ or in the folder that `filepath` names.

    The image id is the picture's name without its ending, or `image_id` where a record has one.
    """
    for path in paths:
        with reading.faults:
            for number, record in enumerate(table(json_document(path), "images", path, "Karpathy split file")):
                example = None
                with reading.faults:
                    example = _example(path, f"{path}: images[{number}]", record, reading)
                if example is not None:
                    yield example


def write_karpathy(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write dataset.json, and the pictures in images/."""
    images: list[dict[str, Any]] = []
    sentences = 0
    for number, example in numbered(examples):
        name = folder.picture(example, number, "images").partition("/")[2]
        told = []
        for text, language in zip(example.references, example.languages, strict=True):
            entry = {"raw": text, "tokens": text.lower().split(), "imgid": number, "sentid": sentences}
            told.append(entry | ({"language": language} if language else {}))
            sentences += 1
        record = {"imgid": number, "image_id": example.image_id, "filename": name, "split": example.split, "sentences": told}
        images.append(record | {"sentids": [entry["sentid"] for entry in told]})
    folder.write_json("dataset.json", {"images": images, "dataset": folder.path.name})


def _example(path: Path, where: str, record: Any, reading: Reading) -> Example:
    name = value_of(record, "filename", (str,), where)
    split = split_name(value_of(record, "split", (str,), where))
    texts, languages = [], []
    for number, sentence in enumerate(value_of(record, "sentences", (list,), where)):
        texts += texts_of(value_of(sentence, "raw", (str,), f"{where}.sentences[{number}]"), where)
        languages.append(language_of(sentence, where))
    folder = str(record.get("filepath") or "")
    roots = [path.parent / folder, path.parent / "images" / folder, path.parent]
    file = find_picture(roots, name, split)
    if file is None and reading.need_images:
        raise DataError(missing_picture(name, where, path.parent))
    image_id = id_of(record.get("image_id"), where) or without_ending(name)
    return Example(file or path.parent / name, tuple(texts), split, image_id, tuple(languages), where=where)
