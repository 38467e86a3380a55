"""Drawn scenes as a data set on disk, in COCO's format: pictures, captions, and a mask for every object."""

from __future__ import annotations

import json
import random
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from corpus.errors import DataError
from corpus.scene_captions import captions_of
from corpus.scenes import SHAPES, SIDE, Mask, draw_scene


def write_scenes(folder: Path, count: int, seed: int, *, split: str = "train", unseen: bool = False) -> int:
    """Write `count` scenes: images/, captions.json and instances.json. Returns their number.

    A caption's "words" name the annotation that each shape's name refers to; its mask is COCO's uncompressed run
    lengths. Raises DataError where the folder holds a data set already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not empty; name a new folder")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    for number in range(count):
        scene = draw_scene(seed, number, unseen=unseen)
        name = f"{seed}-{number:06d}.png"
        scene.paint().save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE, "split": split})
        first = len(instances)
        for entry in scene.objects:
            box = entry.box
            instances.append(
                {
                    "id": len(instances),
                    "image_id": number,
                    "category_id": SHAPES.index(entry.shape),
                    "bbox": [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0],
                    "area": int(entry.mask.sum()),
                    "segmentation": {"size": [SIDE, SIDE], "counts": run_lengths(entry.mask)},
                    "iscrowd": 0,
                    "attributes": {"colour": entry.colour, "size": entry.size},
                }
            )
        for caption in captions_of(scene, random.Random(f"captions {seed} {number}")):
            words = [{"start": word.start, "end": word.end, "annotation": first + word.object} for word in caption.words]
            captions.append({"id": len(captions), "image_id": number, "caption": caption.text, "words": words})
    categories = [{"id": index, "name": shape} for index, shape in enumerate(SHAPES)]
    _write(folder / "instances.json", {"images": images, "categories": categories, "annotations": instances})
    _write(folder / "captions.json", {"images": images, "annotations": captions})  # last: it marks a whole data set
    return count


def run_lengths(mask: Mask) -> list[int]:
    """Return COCO's uncompressed run lengths: column by column, beginning with the zeros."""
    runs = [(bool(value), len(list(group))) for value, group in groupby(np.asarray(mask).flatten(order="F").tolist())]
    lengths = [length for _, length in runs]
    return [0, *lengths] if runs[0][0] else lengths


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")
