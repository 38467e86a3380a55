"""The command `python -m evaluation boxes`: the threshold of a checkpoint's boxes, chosen by their overlap with annotated ones.

A word's box is around the connected patches above a share of the map's peak (model/maps/word_map.py). Which share fits depends
on how far a checkpoint's attention spreads over an object.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from corpus import DataError, Example, read_data
from evaluation.generation import explain_images
from evaluation.pointing import box_iou
from evaluation.synonyms import find_class_mention
from model import Box, Captioner, decode_image, peak_box, read_config, write_config

THRESHOLDS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)


def overlaps(captioner: Captioner, examples: Sequence[Example], *, maps: str | None = None) -> dict[float, float]:
    """Return the mean IoU of word boxes with annotated ones for each threshold; of a class with several boxes the best counts.

    Words are those of human captions that name a boxed class. Raises DataError if there is none.
    """
    boxed = [example for example in examples if example.objects and example.references]
    overlaps_at: dict[float, list[float]] = {threshold: [] for threshold in THRESHOLDS}
    results = explain_images(captioner, boxed, [example.references for example in boxed], maps=maps)
    for example, result in zip(boxed, results, strict=True):
        width, height = decode_image(example.read(), example.image_limits).upright_size
        for name in {entry.name for entry in example.objects}:
            boxes = [entry.box for entry in example.objects if entry.name == name]
            for caption in result.captions:
                start = find_class_mention(name, caption.text)
                word = next((word for word in caption.words if word.start == start), None)
                if word is None or word.map is None:
                    continue
                for threshold in THRESHOLDS:
                    own = Box(*peak_box(word.map.values, result.grid, Box(0, 0, width, height), threshold))
                    overlaps_at[threshold].append(max(box_iou(own, box) for box in boxes))
    if not overlaps_at[THRESHOLDS[0]]:
        raise DataError("no caption names a boxed object; use images with boxes and captions")
    return {threshold: mean(values) for threshold, values in overlaps_at.items()}


def run_boxes(options: Any, captioner: Captioner, folder: Path) -> dict[str, Any]:
    """Choose the threshold with the largest overlap; with --write it is stored in the checkpoint."""
    examples = [example for example in read_data(options.data) if options.split in (None, example.split)]
    by_threshold = overlaps(captioner, examples)
    best = max(by_threshold, key=by_threshold.__getitem__)
    if options.write:
        config = read_config(folder)
        write_config(folder, dataclasses.replace(config, maps=dataclasses.replace(config.maps, box_threshold=best)))
    return {"box_threshold": best, "box_iou": {str(threshold): value for threshold, value in by_threshold.items()}}
