"""COCO: captions json (`images`; `annotations` with `image_id` and `caption`) and the boxes of the instances json beside it.

The split is an image's own `split`, else what the file's name says (captions_val2017.json: val), else train. A caption may
have a `language`. Boxes are [x, y, width, height].
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from corpus.errors import DataError
from corpus.example import Example, NamedBox
from corpus.formats.files import (
    Reading,
    box_of,
    find_picture,
    json_document,
    language_of,
    missing_picture,
    split_name,
    split_of_name,
    table,
    texts_of,
    value_of,
)
from corpus.formats.writing import NewFolder, numbered
from model import Box

_ID = (int, str)


def read_coco(paths: list[Path], reading: Reading) -> Iterator[Example]:
    """Read captions files; pictures lie in `images/` or a folder named like the split, beside the file or one above it."""
    for path in paths:
        with reading.faults:
            document = json_document(path)
            images, annotations = (table(document, name, path, "COCO captions file") for name in ("images", "annotations"))
            known = {str(record["id"]) for record in images if isinstance(record, dict) and "id" in record}
            captions = _captions(path, annotations, known, reading)
            objects: dict[str, list[NamedBox]] = defaultdict(list)
            with reading.faults:  # broken boxes leave the captions as they are
                objects = _objects(path.with_name(path.name.replace("captions", "instances")), path, reading)
            for number, record in enumerate(images):
                example = None
                with reading.faults:
                    example = _example(path, f"{path}: images[{number}]", record, captions, objects, reading)
                if example is not None:
                    yield example


def write_coco(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write annotations/captions_<split>.json, instances_<split>.json where there are boxes, and a folder of pictures a split."""
    images: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    captions: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    boxes: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    classes: dict[str, int] = {}
    count = 0
    for number, example in numbered(examples):
        name = folder.picture(example, number, example.split).partition("/")[2]
        image_id: int | str = example.image_id
        if re.fullmatch(r"0|[1-9]\d{0,17}", example.image_id, re.ASCII):
            image_id = int(example.image_id)  # as other programs have them
        images[example.split].append({"id": image_id, "file_name": name, "split": example.split})
        for text, language in zip(example.references, example.languages, strict=True):
            told = {"language": language} if language else {}
            captions[example.split].append({"id": count, "image_id": image_id, "caption": text, **told})
            count += 1
        for entry in example.objects:
            box = entry.box
            boxes[example.split].append(
                {
                    "id": len(boxes[example.split]),
                    "image_id": image_id,
                    "category_id": classes.setdefault(entry.name, len(classes) + 1),
                    "bbox": [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0],
                    "area": box.area,
                    "iscrowd": 0,
                }
            )
    for split, records in images.items():
        folder.write_json(f"annotations/captions_{split}.json", {"images": records, "annotations": captions[split]})
        if boxes[split]:
            categories = [{"id": number, "name": name} for name, number in classes.items()]
            document = {"images": records, "categories": categories, "annotations": boxes[split]}
            folder.write_json(f"annotations/instances_{split}.json", document)


def _example(
    path: Path,
    where: str,
    record: Any,
    captions: dict[str, list[tuple[str, str, str]]],
    objects: dict[str, list[NamedBox]],
    reading: Reading,
) -> Example:
    image_id = str(value_of(record, "id", _ID, where))
    name = str(value_of({"file_name": f"{image_id}.jpg", **record}, "file_name", (str,), where))
    split = split_name(str(record.get("split") or split_of_name(path.name)))
    file = find_picture([path.parent, path.parent.parent], name, split)  # COCO keeps its json in annotations/
    if file is None and reading.need_images:
        raise DataError(missing_picture(name, where, path.parent))
    texts, languages, sources = zip(*captions[image_id], strict=True) if captions[image_id] else ((), (), ())
    return Example(file or path.parent / name, texts, split, image_id, languages, tuple(objects[image_id]), where, sources)


def _captions(path: Path, annotations: list[Any], known: set[str], reading: Reading) -> dict[str, list[tuple[str, str, str]]]:
    found: defaultdict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for number, record in enumerate(annotations):
        with reading.faults:
            where = f"{path}: annotations[{number}]"
            image_id = str(value_of(record, "image_id", _ID, where))
            (text,) = texts_of(value_of(record, "caption", (str,), where), where)
            if image_id not in known:
                raise DataError(
                    f"{where} is about the image {image_id!r}, which is not in 'images'; every caption needs its image"
                )
            found[image_id].append((text, language_of(record, where), where))
    return found


def _objects(path: Path, captions: Path, reading: Reading) -> dict[str, list[NamedBox]]:
    """Return the boxes by image, where an instances file lies beside the captions."""
    found: defaultdict[str, list[NamedBox]] = defaultdict(list)
    if path == captions or not path.exists():
        return found
    document = json_document(path)
    names = {}
    for number, record in enumerate(table(document, "categories", path, "COCO instances file")):
        where = f"{path}: categories[{number}]"
        names[value_of(record, "id", _ID, where)] = str(value_of(record, "name", (str,), where))
    for number, record in enumerate(table(document, "annotations", path, "COCO instances file")):
        with reading.faults:
            where = f"{path}: annotations[{number}]"
            image_id, category = value_of(record, "image_id", _ID, where), value_of(record, "category_id", _ID, where)
            if category not in names:
                raise DataError(f"{where} is of category {category!r}, which is not in 'categories'")
            found[str(image_id)].append(NamedBox(names[category], _box(record, where)))
    return found


def _box(record: dict[str, Any], where: str) -> Box:
    try:
        left, top, width, height = map(float, record["bbox"])
        return box_of(left, top, left + width, top + height)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where} has the box {record.get('bbox')!r}; it must be [x, y, width, height] in pixels") from error
