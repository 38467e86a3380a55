"""Captions of many pictures with one Captioner, in batches, with a progress bar on standard error."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from PIL import Image
from tqdm import tqdm

from corpus import OWN_DATA
from model import Captioner, GenerationOptions, ImageCaptions, ImageView, prepare

BATCH = 32


def caption_pictures(captioner: Captioner, pictures: Sequence[bytes], options: GenerationOptions) -> list[str]:
    """Return the best caption of each picture; maps and reliance are not computed."""
    captions: list[str] = []
    for views in _batches(captioner, pictures, "captions"):
        answers = captioner.caption(views, options, maps=False, reliance=False)
        captions += [answer.captions[0].text for answer in answers]
    return captions


def explain_pictures(captioner: Captioner, pictures: Sequence[bytes], texts: Sequence[Sequence[str]]) -> list[ImageCaptions]:
    """Return every picture's texts explained: maps and probabilities."""
    answers: list[ImageCaptions] = []
    for views in _batches(captioner, pictures, "explanations"):
        done = len(answers)
        answers += captioner.explain(views, texts[done : done + len(views)], reliance=False)
    return answers


def png_bytes(image: Image.Image) -> bytes:
    """Return a drawn picture as the bytes of a PNG file: drawn and photographed pictures take the same way in."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _batches(captioner: Captioner, pictures: Sequence[bytes], what: str) -> Iterator[list[ImageView]]:
    """Yield the pictures prepared, a batch at a time."""
    for first in tqdm(range(0, len(pictures), BATCH), desc=what, unit="batch", leave=False):
        yield [prepare(data, captioner.image_config, OWN_DATA) for data in pictures[first : first + BATCH]]
