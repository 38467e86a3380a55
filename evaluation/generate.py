"""Captions of many pictures with one Captioner, in batches, with a progress bar on standard error."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from PIL import Image
from tqdm import tqdm

from corpus import LOCAL_IMAGE_LIMITS, DataError, Example
from model import Captioner, CaptionResult, GenerationOptions, ImageError, ImageView, prepare

BATCH = 32


def caption_images(captioner: Captioner, pictures: Sequence[bytes | Example], options: GenerationOptions) -> list[str]:
    """Return the best caption of each picture; maps and reliance are not computed.

    Here and below pictures are read and decoded a batch at a time. Raises DataError that names one that cannot be.
    """
    captions: list[str] = []
    for views in prepared_batches(captioner, pictures, "captions"):
        answers = captioner.caption(views, options, maps="none", reliance=False)
        captions += [answer.captions[0].text for answer in answers]
    return captions


def explain_images(
    captioner: Captioner, pictures: Sequence[bytes | Example], texts: Sequence[Sequence[str]]
) -> list[CaptionResult]:
    """Return every picture's texts explained: maps and probabilities."""
    answers: list[CaptionResult] = []
    for views in prepared_batches(captioner, pictures, "explanations"):
        done = len(answers)
        answers += captioner.explain(views, texts[done : done + len(views)], reliance=False)
    return answers


def png_bytes(image: Image.Image) -> bytes:
    """Return a drawn picture as the bytes of a PNG file: drawn and photographed pictures take the same way in."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def prepared_batches(captioner: Captioner, pictures: Sequence[bytes | Example], what: str) -> Iterator[list[ImageView]]:
    """Yield the pictures prepared, a batch at a time."""
    for first in tqdm(range(0, len(pictures), BATCH), desc=what, unit="batch", leave=False):
        yield [_prepared(captioner, picture) for picture in pictures[first : first + BATCH]]


def _prepared(captioner: Captioner, picture: bytes | Example) -> ImageView:
    if isinstance(picture, bytes):
        return prepare(picture, captioner.image_config, LOCAL_IMAGE_LIMITS)
    try:
        return prepare(picture.read(), captioner.image_config, LOCAL_IMAGE_LIMITS)
    except (OSError, ValueError, ImageError) as error:
        raise DataError(f"{picture.origin}: {picture.location} cannot be used ({error}); mend it, or take it out") from error
