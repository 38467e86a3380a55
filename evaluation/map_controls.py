"""Controls of maps: what they should follow (a mirror image) and what they should not depend on alone (weights, another image).

Adebayo et al. 2018, "Sanity checks for saliency maps", section 3: a method whose maps survive random weights shows the image, not
the network.

Shapes: P patches.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import mean

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from corpus import DataError, Example, captions_of
from evaluation.calibration import mean_ranks
from evaluation.generation import explain_images, png_bytes
from evaluation.scenes import held_out_scenes
from model import Captioner, CaptionNetwork, CaptionResult, Checkpoint, decode_image

MAX_IMAGES = 100  # the controls need few
_SIDES = ("left", "right")  # words that a mirror image makes untrue


def scene_controls(captioner: Captioner, count: int, *, maps: str | None = None) -> dict[str, float]:
    """Return the controls on synthetic scenes, with their exact captions; captions with a side are left out."""
    images: list[Image.Image] = []
    texts: list[str] = []
    for scene in held_out_scenes(count):
        text = captions_of(scene, random.Random(0))[0].text
        if not any(side in text for side in _SIDES):
            images.append(scene.render())
            texts.append(text)
    return map_controls(captioner, images[:MAX_IMAGES], texts[:MAX_IMAGES], maps=maps)


def image_controls(captioner: Captioner, examples: Sequence[Example], *, maps: str | None = None) -> dict[str, float]:
    """Return the controls on images with captions: the first caption of each that names no side."""
    images: list[Image.Image] = []
    texts: list[str] = []
    for example in examples:
        text = next((text for text in example.references if not any(side in text.lower() for side in _SIDES)), None)
        if text and len(images) < MAX_IMAGES:
            images.append(decode_image(example.read(), example.image_limits).upright())
            texts.append(text)
    return map_controls(captioner, images, texts, maps=maps)


def map_controls(
    captioner: Captioner, images: Sequence[Image.Image], texts: Sequence[str], *, maps: str | None = None
) -> dict[str, float]:
    """Return means over words of at least three letters. Raises DataError with fewer than two images.

    `flip`: correlation of a map with the mirrored map of the mirror image (1: the map moves with the image). `random_weights`:
    rank correlation (Spearman 1904) with the map of the same network with random weights (0: nothing survives).
    `other_image`: correlation with the word's map over another image (1: the map does not depend on the image).
    """
    if len(images) < 2:
        raise DataError(f"{len(images)} images have a caption that names no side; the controls of maps need two or more")
    files = [png_bytes(image) for image in images]
    own = explain_images(captioner, files, [[text] for text in texts], maps=maps)
    mirrored = explain_images(captioner, [png_bytes(ImageOps.mirror(image)) for image in images], [[t] for t in texts], maps=maps)
    untrained = explain_images(with_random_weights(captioner), files, [[text] for text in texts], maps=maps)
    others = explain_images(captioner, [*files[1:], files[0]], [[text] for text in texts], maps=maps)
    flips, randoms, wrongs = [], [], []
    for result, flipped, untrained_result, other in zip(own, mirrored, untrained, others, strict=True):
        grids = [_word_maps(entry) for entry in (result, flipped, untrained_result, other)]
        for plain, mirror, noise, elsewhere in zip(*grids, strict=True):
            flips.append(correlation(plain, mirror[:, ::-1]))
            randoms.append(correlation(mean_ranks(plain), mean_ranks(noise)))
            wrongs.append(correlation(plain, elsewhere))
    return {"flip": mean(flips), "random_weights": mean(randoms), "other_image": mean(wrongs)}


def with_random_weights(captioner: Captioner) -> Captioner:
    """Return a captioner of the same config and tokenizer with weights as at the start of a training."""
    state = torch.get_rng_state()
    torch.manual_seed(0)
    network = CaptionNetwork(captioner.config)
    torch.set_rng_state(state)
    return Captioner.from_checkpoint(Checkpoint(network, captioner.tokenizer, ""))


def _word_maps(result: CaptionResult) -> list[NDArray[np.float64]]:
    """Return the maps (rows, columns) of the words of at least three letters."""
    grid = result.grid
    words = [word for word in result.captions[0].words if len(word.text) >= 3 and word.map is not None]
    return [word.map.values.numpy().reshape(grid.rows, grid.columns) for word in words if word.map is not None]


def correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return Pearson's correlation; 0 if one is constant."""
    if not first.std() or not second.std():
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
