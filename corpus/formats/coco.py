"""COCO: captions json (`images`; `annotations` with `image_id` and `caption`) and the boxes of the instances json next to it.

The split is the `split` of an image, else that in the file name (captions_val2017.json: val), else train. A caption may have
a `language`. Boxes are [x, y, width, height].
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from corpus.errors import DataError
from corpus.example import Example, NamedBox
from corpus.formats.fields import box_from_corners, captions_from, is_null, language_from, list_of, value_of
from corpus.formats.image_files import image_roots, missing_image_message
from corpus.formats.read_options import ReadOptions
from corpus.formats.records import split_source
from corpus.formats.splits import normalize_split, split_from_name
from corpus.formats.text_files import json_document
from corpus.formats.writer import NewFolder, enumerate_valid, with_own_id
from model import Box

_ID = (int, str)
_DECIMAL_ID = re.compile(r"0|[1-9]\d{0,17}", re.ASCII)
_Caption = tuple[str, str, str]  # text, language, origin


def read_coco(paths: list[Path], options: ReadOptions) -> Iterator[Example]:
    """Read captions files; images are in `images/` or a folder named like the split, next to the file or one folder above."""
    for path in paths:
        with options.errors:
            document = json_document(path)
            images, annotations = (list_of(document, name, path, "COCO captions file") for name in ("images", "annotations"))
            image_ids = {str(record["id"]) for record in images if isinstance(record, dict) and "id" in record}
            captions = _read_captions(path, annotations, image_ids, options)
            objects: dict[str, list[NamedBox]] = defaultdict(list)
            with options.errors:  # captions are kept if the boxes are invalid
                objects = _read_objects(path.with_name(path.name.replace("captions", "instances")), path, options)
            for number, record in enumerate(images):
                example = None
                with options.errors:
                    origin = f"{path}: images[{number}]"
                    example = _example(path, split_source(path, paths), origin, record, captions, objects, options)
                if example is not None:
                    yield example


def write_coco(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write per split annotations/captions_<split>.json, instances_<split>.json if there are boxes, and a folder of images."""
    images: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    captions: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    boxes: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    classes: dict[str, int] = {}
    count = 0
    for number, example in enumerate_valid(map(with_own_id, examples)):
        name = folder.write_image(example, number, example.split).partition("/")[2]
        image_id: int | str = example.image_id
        if _DECIMAL_ID.fullmatch(example.image_id):
            image_id = int(example.image_id)  # other programs expect integers
        images[example.split].append({"id": image_id, "file_name": name, "split": example.split})
        for text, language in zip(example.references, example.languages, strict=True):
            optional = {"language": language} if language else {}
            captions[example.split].append({"id": count, "image_id": image_id, "caption": text, **optional})
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
    source: str,
    origin: str,
    record: Any,
    captions: dict[str, list[_Caption]],
    objects: dict[str, list[NamedBox]],
    options: ReadOptions,
) -> Example:
    image_id = str(value_of(record, "id", _ID, origin))
    name = str(value_of({"file_name": f"{image_id}.jpg", **record}, "file_name", (str,), origin))
    split = normalize_split(str(record.get("split") or split_from_name(source)))
    roots = list(dict.fromkeys([path.parent, path.parent.parent, *image_roots(path)]))  # COCO keeps its json in annotations/
    file = options.images.find(roots, name, split)
    if file is None and options.need_images:
        raise DataError(missing_image_message(name, origin, path.parent))
    texts, languages, origins = zip(*captions[image_id], strict=True) if captions[image_id] else ((), (), ())
    return Example(file or path.parent / name, texts, split, image_id, languages, tuple(objects[image_id]), origin, origins)


def _read_captions(path: Path, annotations: list[Any], image_ids: set[str], options: ReadOptions) -> dict[str, list[_Caption]]:
    captions: defaultdict[str, list[_Caption]] = defaultdict(list)
    for number, record in enumerate(annotations):
        with options.errors:
            origin = f"{path}: annotations[{number}]"
            image_id = str(value_of(record, "image_id", _ID, origin))
            caption = record.get("caption") if is_null(record, "caption") else value_of(record, "caption", (str,), origin)
            texts, languages = captions_from(caption, language_from(record, origin), origin, options.errors)
            if image_id not in image_ids:
                raise DataError(f"{origin} has the image id {image_id!r}, which is not in 'images'; add the image there")
            if not texts:
                options.errors.skip(origin, f"an empty caption of image {image_id!r}")
            captions[image_id] += [(text, language, origin) for text, language in zip(texts, languages, strict=True)]
    return captions


def _read_objects(path: Path, captions_path: Path, options: ReadOptions) -> dict[str, list[NamedBox]]:
    """Return the boxes by image id, none if there is no instances file next to the captions."""
    objects: defaultdict[str, list[NamedBox]] = defaultdict(list)
    if path == captions_path or not path.exists():
        return objects
    document = json_document(path)
    names = {}
    for number, record in enumerate(list_of(document, "categories", path, "COCO instances file")):
        origin = f"{path}: categories[{number}]"
        names[value_of(record, "id", _ID, origin)] = str(value_of(record, "name", (str,), origin))
    for number, record in enumerate(list_of(document, "annotations", path, "COCO instances file")):
        with options.errors:
            origin = f"{path}: annotations[{number}]"
            image_id, category = value_of(record, "image_id", _ID, origin), value_of(record, "category_id", _ID, origin)
            if category not in names:
                raise DataError(f"{origin} has the category {category!r}, which is not in 'categories'; add it there")
            objects[str(image_id)].append(NamedBox(names[category], _box(record, origin)))
    return objects


def _box(record: dict[str, Any], origin: str) -> Box:
    try:
        left, top, width, height = map(float, record["bbox"])
        return box_from_corners(left, top, left + width, top + height)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{origin} has the box {record.get('bbox')!r}; it must be [x, y, width, height] in pixels") from error
