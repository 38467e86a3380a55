"""Whether maps show what the captioner uses: words lose probability when the patches that their maps name are taken away.

Deletion and insertion (Petsiuk et al. 2018, "RISE", section 3.3) on the patches that the decoder reads, beside two orders that a
map must beat: a random one, and that of another word's map. `pixel_occlusion` compares maps with what hiding squares of the image
does to the word (Zeiler and Fergus 2014, section 4.2), and `erased` erases objects from synthetic scenes.

Shapes: N words, P patches, T tokens, S image keys, R rows.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from corpus import DataError, Example, Scene, captions_of
from evaluation.calibration import mean_ranks
from evaluation.generation import explain_images, png_bytes
from evaluation.map_controls import correlation
from model import (
    LOCAL_IMAGE_LIMITS,
    Captioner,
    CaptionResult,
    DecoderState,
    ImageFeatures,
    decode_image,
    plain_form,
    prefix_ids,
    prepare,
    resize_and_normalize,
)

SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 0.95)  # of the patches that are taken away, or shown
MIN_LETTERS = 4  # of a word: shorter ones say little about an image
MAX_IMAGES, OCCLUDED_IMAGES = 100, 20
SQUARES = 7  # per side of an image, for pixel occlusion
_GRAY = (128, 128, 128)
_ORDERS = ("", "_random", "_other")
_BATCH = 8  # images per encoder call


@dataclass(frozen=True, slots=True)
class _Words:
    """Words of a caption: their tokens, and their maps (N, P)."""

    tokens: list[tuple[int, ...]]
    maps: Tensor


@torch.inference_mode()
def deletion_insertion(
    captioner: Captioner, images: Sequence[bytes], texts: Sequence[str], *, maps: str | None = None
) -> dict[str, float]:
    """Return means over words of at least four letters of captions that have two or more of them.

    `deletion` and `insertion`: mean log-probability of the word, in nats, over the shares of patches that are taken away, or
    shown. `…_random` and `…_other` have a random order and that of another word's map. `deletion_wins` is the share of words
    that lose more than by both.
    """
    rng = random.Random(0)
    curves: dict[str, list[float]] = {f"{kind}{order}": [] for kind in ("deletion", "insertion") for order in _ORDERS}
    wins: list[bool] = []
    texts = _spelled(captioner, texts)
    for image, result, text in zip(images, _explained(captioner, images, texts, maps), texts, strict=True):
        words = _words(captioner, result, text)
        if len(words.tokens) < 2:
            continue
        features = captioner.runtime.encode(prepare(image, captioner.image_config, LOCAL_IMAGE_LIMITS).pixels[None])
        num_patches = words.maps.size(1)
        own = words.maps.argsort(dim=1, descending=True)
        randomly = torch.tensor([rng.sample(range(num_patches), num_patches) for _ in words.tokens])
        orders = torch.cat([own, randomly, own.roll(1, dims=0)])  # (3 N, P), as _ORDERS
        counts = [max(1, round(share * num_patches)) for share in SHARES]
        deleted = torch.stack([_limited(captioner, features, text, words, orders[:, count:]) for count in counts]).mean(dim=0)
        shown = torch.stack([_limited(captioner, features, text, words, orders[:, :count]) for count in counts]).mean(dim=0)
        for index, order in enumerate(_ORDERS):
            curves[f"deletion{order}"] += deleted[index].tolist()
            curves[f"insertion{order}"] += shown[index].tolist()
        wins += ((deleted[0] < deleted[1]) & (deleted[0] < deleted[2])).tolist()
    if not wins:
        raise DataError(f"no caption has two words of {MIN_LETTERS} letters; use other images")
    return {name: mean(values) for name, values in curves.items()} | {"deletion_wins": mean(wins), "words": len(wins)}


@torch.inference_mode()
def pixel_occlusion(captioner: Captioner, images: Sequence[bytes], texts: Sequence[str], *, maps: str | None = None) -> float:
    """Return the mean rank correlation (Spearman 1904) of maps with the fall of a word's log-probability by gray squares."""
    values = []
    texts = _spelled(captioner, texts)
    for image, result, text in zip(images, _explained(captioner, images, texts, maps), texts, strict=True):
        words = _words(captioner, result, text)
        if not words.tokens:
            continue
        upright = decode_image(image, LOCAL_IMAGE_LIMITS).upright().convert("RGB")
        views = [upright, *(_hidden(upright, number) for number in range(SQUARES**2))]
        scores = _log_probs(captioner, views, text, words)  # (1 + Q, N)
        grid = words.maps.reshape(-1, 1, result.grid.rows, result.grid.columns)
        pooled = torch.nn.functional.adaptive_avg_pool2d(grid, SQUARES).flatten(1)  # (N, Q)
        for own, fall in zip(pooled.numpy(), (scores[0] - scores[1:]).T.numpy(), strict=True):
            values.append(correlation(mean_ranks(own.reshape(1, -1)), mean_ranks(fall.reshape(1, -1))))
    return mean(values)


@torch.inference_mode()
def erased(captioner: Captioner, scenes: Sequence[Scene]) -> float:
    """Return the share of shape words of scenes that lose most when their own object is erased, not another one."""
    hits = []
    for scene in scenes:
        caption = captions_of(scene, random.Random(0))[0]
        named = {word.object: word.start for word in caption.words}
        if len(named) < 2:
            continue
        tokenizer = captioner.tokenizer
        spans = {span.start: span.tokens for span in tokenizer.words(tokenizer.encode(caption.text))}
        words = _Words([spans[start] for start in named.values()], torch.empty(0))
        views = [scene.render(), *(_erase(scene, number) for number in named)]
        scores = _log_probs(captioner, views, caption.text, words)  # (1 + erased, words)
        falls = scores[0] - scores[1:]
        hits += (falls.argmax(dim=0) == torch.arange(len(named))).tolist()
    return mean(hits)


def scene_faithfulness(captioner: Captioner, scenes: Sequence[Scene], *, maps: str | None = None) -> dict[str, float]:
    """Return the figures on at most MAX_IMAGES synthetic scenes with their exact captions."""
    chosen = scenes[:MAX_IMAGES]
    texts = [captions_of(scene, random.Random(0))[0].text for scene in chosen]
    figures = deletion_insertion(captioner, [png_bytes(scene.render()) for scene in chosen], texts, maps=maps)
    return figures | {"erased": erased(captioner, chosen)}


def image_faithfulness(captioner: Captioner, examples: Sequence[Example], *, maps: str | None = None) -> dict[str, float]:
    """Return the figures on at most MAX_IMAGES images with the first of their captions; pixel occlusion on few of them."""
    images, texts = images_and_texts(examples, MAX_IMAGES)
    figures = deletion_insertion(captioner, images, texts, maps=maps)
    few = slice(0, OCCLUDED_IMAGES)
    return figures | {"pixel_occlusion": pixel_occlusion(captioner, images[few], texts[few], maps=maps)}


def images_and_texts(examples: Sequence[Example], count: int) -> tuple[list[bytes], list[str]]:
    """Return the bytes and the first caption of at most `count` images."""
    chosen = [example for example in examples if example.references][:count]
    return [example.read() for example in chosen], [example.references[0] for example in chosen]


def _spelled(captioner: Captioner, texts: Sequence[str]) -> list[str]:
    """Return the texts as the network spells them: what is explained and what is scored must be the same tokens."""
    return [plain_form(text, captioner.config.generation.style)[0] for text in texts]


def _explained(captioner: Captioner, images: Sequence[bytes], texts: Sequence[str], maps: str | None) -> list[CaptionResult]:
    return explain_images(captioner, images, [[text] for text in texts], maps=maps)


def _words(captioner: Captioner, result: CaptionResult, text: str) -> _Words:
    spans = {span.start: span.tokens for span in captioner.tokenizer.words(captioner.tokenizer.encode(text))}
    chosen = [
        word
        for word in result.captions[0].words
        if len(word.text) >= MIN_LETTERS and word.map is not None and word.start in spans
    ]
    maps = [word.map.values for word in chosen if word.map is not None]
    return _Words([tuple(spans[word.start]) for word in chosen], torch.stack(maps) if maps else torch.empty(0))


def _log_probs(captioner: Captioner, images: Sequence[Image.Image], text: str, words: _Words) -> Tensor:
    """Return log p of each word of a text given each image (B, N)."""
    pixels = torch.stack([resize_and_normalize(image, captioner.image_config) for image in images])
    parts = [captioner.runtime.encode(part) for part in pixels.split(_BATCH)]
    return torch.cat([_scores(captioner, features, text, words.tokens, None) for features in parts])


def _limited(captioner: Captioner, features: ImageFeatures, text: str, words: _Words, kept: Tensor) -> Tensor:
    """Return log p of each word (3, N) if only its own `kept` patches (3 N, Q) can be attended to."""
    scores = _scores(captioner, features, text, words.tokens, kept)  # (3 N, N)
    return scores.unflatten(0, (len(_ORDERS), -1)).diagonal(dim1=1, dim2=2)


def _scores(
    captioner: Captioner, features: ImageFeatures, text: str, tokens_of: Sequence[tuple[int, ...]], kept: Tensor | None
) -> Tensor:
    """Return log p (R, N) of N words given R images; or given one image, if the patches kept (R, Q) can be attended to."""
    runtime, config = captioner.runtime, captioner.config
    ids = captioner.tokenizer.encode(text)
    special = prefix_ids(config, captioner.tokenizer).special
    num_rows = features.num_images if kept is None else len(kept)
    state = runtime.start(features, None if kept is None else (0,) * num_rows)
    state = state if kept is None else _with_patches(state, features, kept)
    inputs = torch.tensor([[*special, *ids]] * num_rows, device=runtime.device)
    logits, _, _ = runtime.decode(inputs[:, :-1], state)
    scores = logits[:, len(special) - 1 :].double().log_softmax(dim=-1)
    chosen = scores.gather(2, inputs[:, len(special) :, None]).squeeze(2).cpu()  # (R, T)
    return torch.stack([chosen[:, list(tokens)].sum(dim=1) for tokens in tokens_of], dim=1)


def _with_patches(state: DecoderState, features: ImageFeatures, kept: Tensor) -> DecoderState:
    """Return the state of one image in which each row has only the patches kept (R, Q), and every key that is no patch."""
    num_keys, first = state.cross_key[0].size(2), features.num_prefix_tokens
    others = [key for key in range(num_keys) if not first <= key < first + features.grid.num_patches]
    keys = torch.cat([kept + first, torch.tensor(others, dtype=torch.long).expand(len(kept), -1)], dim=1)  # (R, S')

    def selected(values: Tensor) -> Tensor:  # (1, H, S, K) -> (R, H, S', K)
        return values[0][:, keys.to(values.device)].transpose(0, 1)

    return dataclasses.replace(
        state,
        cross_key=tuple(selected(key) for key in state.cross_key),
        cross_value=tuple(selected(value) for value in state.cross_value),
        image_of=tuple(range(len(kept))),
        num_keys=(keys.size(1),) * len(kept),
    )


def _hidden(image: Image.Image, number: int) -> Image.Image:
    """Return the image with one of its squares gray."""
    row, column = divmod(number, SQUARES)
    x, y = (np.linspace(0, size, SQUARES + 1).round().astype(int) for size in image.size)
    hidden = image.copy()
    hidden.paste(_GRAY, (int(x[column]), int(y[row]), int(x[column + 1]), int(y[row + 1])))
    return hidden


def _erase(scene: Scene, number: int) -> Image.Image:
    """Return the scene without one of its objects."""
    own = scene.objects[number]
    layers = tuple(
        layer for layer in scene.layers if (layer.shape, layer.color, layer.center) != (own.shape, own.color, own.center)
    )
    return dataclasses.replace(scene, layers=layers).render()
