"""Rows of the field report about what the embedded checkpoint says and where its maps point."""

from __future__ import annotations

import random
import re
from pathlib import Path

from corpus import SHAPES, Example, captions_of, read_data
from evaluation import held_out_scenes, png_bytes
from model import Caption, Captioner, prepare
from tests.proofs.field.row import Row

_NUM_IMAGES = 107
_BATCH_SIZE = 8
_ENTRY = "Rows of the field report that belong to the weights"


def _captions(folder: Path) -> list[Caption]:
    """Caption COCO photographs with the embedded checkpoint; their folder is beside the report's."""
    examples: list[Example] = read_data(f"shards:{folder.parent / 'data/coco/photographs.jsonl'}")[:_NUM_IMAGES]
    captioner = Captioner.load(dtype="float32")
    captions: list[Caption] = []
    for first in range(0, len(examples), _BATCH_SIZE):
        batch = examples[first : first + _BATCH_SIZE]
        views = [prepare(example.read(), captioner.image_config, example.image_limits) for example in batch]
        captions += [result.captions[0] for result in captioner.caption(views, maps="none", reliance=False)]
    return captions


def _domains(folder: Path, scratch: Path) -> tuple[bool, str]:
    captions = _captions(folder)
    scenes = [caption.text for caption in captions if set(re.findall(r"\w+", caption.text.lower())) & set(SHAPES)]
    return not scenes, f"{len(scenes)} of {len(captions)} COCO photographs are captioned as drawn scenes"


def _boxes(folder: Path, scratch: Path) -> tuple[bool, str]:
    from service.http.dialects.native.schemas import WordBody

    text = str(WordBody.model_fields["box"].description)
    return "peak" in text, f"documented as: {text}"


def _color_words(folder: Path, scratch: Path) -> tuple[bool, str]:
    """Count the words whose map peaks nearer to the own object's center than to that of any other object."""
    captioner, right, total = Captioner.load(dtype="float32"), {"color": 0, "shape": 0}, 0
    for scene in held_out_scenes(75):
        caption = captions_of(scene, random.Random(0))[0]
        view = prepare(png_bytes(scene.render()), captioner.image_config)
        words = {word.start: word for word in captioner.explain([view], [[caption.text]])[0].captions[0].words}
        for named in caption.words:
            color_start = caption.text.rindex(" ", 0, named.start - 1) + 1 if " " in caption.text[: named.start - 1] else 0
            total += 1
            for kind, start in (("color", color_start), ("shape", named.start)):
                box = words[start].box
                assert box is not None, "maps were requested"
                x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
                distances = [(x - entry.center[0]) ** 2 + (y - entry.center[1]) ** 2 for entry in scene.objects]
                right[kind] += distances.index(min(distances)) == named.object
    result = f"of {total} words each, the peak is nearest to the own object for {right['color']} colors, {right['shape']} nouns"
    return right["color"] >= 0.95 * total, result


ROWS = [
    Row("maps of color words on drawn scenes", "peak on the own object", _color_words, _ENTRY),
    Row("photographs", "never captioned as drawn scenes", _domains, _ENTRY),
    Row("box of a word", "covers what the map covers, or is called peak", _boxes),
]
