"""Captions and maps of many images with one Captioner, in batches, with a progress bar on standard error."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from PIL import Image
from tqdm import tqdm

from corpus import DataError, Example
from model import (
    LOCAL_IMAGE_LIMITS,
    Captioner,
    CaptionResult,
    ConfigError,
    GenerationOptions,
    ImageError,
    ImageView,
    prepare,
    read_reason,
)

BATCH_SIZE = 32  # images


def caption_images(
    captioner: Captioner, images: Sequence[bytes | Example], options: GenerationOptions, *, language: str = ""
) -> list[str]:
    """Return the best caption of each image, without maps and reliance, in a language if the checkpoint has it, else its own.

    Images are read and decoded one batch at a time. Raises DataError that names an image that cannot be read or decoded; so
    do the functions below.
    """
    try:
        language = captioner.language(language)
    except ConfigError:
        language = ""
    captions: list[str] = []
    for views in prepared_batches(captioner, images, "captions"):
        results = captioner.caption(views, options, maps="none", reliance=False, language=language)
        captions += [result.captions[0].text for result in results]
    return captions


def explain_images(
    captioner: Captioner, images: Sequence[bytes | Example], texts: Sequence[Sequence[str]], *, maps: str | None = None
) -> list[CaptionResult]:
    """Return maps and probabilities of each image's texts; `maps` is a map method, None for the checkpoint's."""
    results: list[CaptionResult] = []
    for views in prepared_batches(captioner, images, "explanations"):
        done = len(results)
        results += captioner.explain(views, texts[done : done + len(views)], maps=maps, reliance=False)
    return results


def png_bytes(image: Image.Image) -> bytes:
    """Return a rendered image as the bytes of a PNG file, so that it is decoded like any other image."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def prepared_batches(captioner: Captioner, images: Sequence[bytes | Example], description: str) -> Iterator[list[ImageView]]:
    """Yield the prepared images, one batch at a time; `description` labels the progress bar."""
    for first in tqdm(range(0, len(images), BATCH_SIZE), desc=description, unit="batch", leave=False, disable=None):
        yield [_prepared(captioner, image) for image in images[first : first + BATCH_SIZE]]


def _prepared(captioner: Captioner, image: bytes | Example) -> ImageView:
    if isinstance(image, bytes):
        return prepare(image, captioner.image_config, LOCAL_IMAGE_LIMITS)
    try:
        return prepare(image.read(), captioner.image_config, image.image_limits)
    except ImageError as error:
        raise DataError(f"{image.origin}: {image.location} cannot be used: {error}, or remove it") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{image.origin}: {image.location} cannot be read ({read_reason(error)}); copy or remove it") from error
