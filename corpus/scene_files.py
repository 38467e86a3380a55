"""Synthetic scenes as a data set on disk in COCO's format: images, captions, and a mask per object."""

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
    """Write `count` scenes of the series `seed`: images/, captions.json and instances.json. Return their number.

    The "words" of a caption are the character ranges of shape names, each with the id of the annotation that it names.
    Masks are COCO's uncompressed run lengths. Raises DataError if the folder is not empty.
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
        scene.render().save(folder / "images" / name)
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
                    "attributes": {"color": entry.color, "size": entry.size},
                }
            )
        for caption in captions_of(scene, random.Random(f"captions {seed} {number}")):
            words = [{"start": word.start, "end": word.end, "annotation": first + word.object} for word in caption.words]
            captions.append({"id": len(captions), "image_id": number, "caption": caption.text, "words": words})
    categories = [{"id": index, "name": shape} for index, shape in enumerate(SHAPES)]
    _write_json(folder / "instances.json", {"images": images, "categories": categories, "annotations": instances})
    _write_json(folder / "captions.json", {"images": images, "annotations": captions})  # last: it marks a complete data set
    return count


def run_lengths(mask: Mask) -> list[int]:
    """Return COCO's uncompressed run lengths of a mask (height, width): column by column, starting with the zeros."""
    runs = [(bool(value), len(list(group))) for value, group in groupby(np.asarray(mask).flatten(order="F").tolist())]
    lengths = [length for _, length in runs]
    return [0, *lengths] if runs[0][0] else lengths


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")
