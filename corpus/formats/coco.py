"""COCO captions json: `images` and `annotations` with `image_id` and `caption`.

The split is an image's own `split`, else what the file's name says (captions_val2017.json: val), else train.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from corpus.errors import DataError
from corpus.example import Example


def read_coco(path: Path, *, need_images: bool = True) -> list[Example]:
    """Read a captions json; pictures lie in `images/` or a folder named like the split, beside the file, or with it.

    Raises DataError that names the file and the record; with `need_images` a missing picture is one.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        images, annotations = document["images"], document["annotations"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no COCO captions file ({error!r}); it needs 'images' and 'annotations'") from error
    captions: dict[str, list[str]] = defaultdict(list)
    for number, record in enumerate(annotations):
        image_id, caption = _field(path, "annotations", number, record, "image_id"), _field(
            path, "annotations", number, record, "caption")  # fmt: skip
        captions[str(image_id)].append(str(caption).strip())
    examples = []
    for number, record in enumerate(images):
        image_id = str(_field(path, "images", number, record, "id"))
        name = str(record.get("file_name", f"{image_id}.jpg"))
        split = str(record.get("split") or _split_of(path.name))
        file = _locate(path.parent, name, split)
        if file is None and need_images:
            raise DataError(
                f"{path}: images[{number}] is {name!r}, which is not in {path.parent}, its images/ or {split}*/; "
                "put the pictures there"
            )
        if captions[image_id]:
            examples.append(Example(file or b"", tuple(captions[image_id]), split, image_id))
    return examples


def _field(path: Path, table: str, number: int, record: Any, name: str) -> Any:
    if not isinstance(record, dict) or name not in record:
        raise DataError(f"{path}: {table}[{number}] has no {name!r}; every record needs it")
    return record[name]


def _split_of(name: str) -> str:
    found = re.search("val|test|train", name)
    return found.group() if found else "train"


def _locate(folder: Path, name: str, split: str) -> Path | None:
    for root in (folder, folder.parent):  # COCO keeps its json in annotations/, beside the folders of pictures
        for place in (root / "images", root, root / split, root / f"{split}2017", root / f"{split}2014"):
            if (place / name).is_file():
                return place / name
    return None
