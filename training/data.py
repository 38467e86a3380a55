"""Batches of one data source: cached features (or pixels), and all captions of an image that share one encoder pass.

Shapes: B images, R captions (rows), T tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from corpus import Augmentation, CaptionedImage, DataError, is_mirrored, mirrored_caption, normalize_caption, read_text
from model import CaptionTokenizer, ModelConfig, prefix_ids, to_device
from training.features import FeatureCache, random_view_pixels, view_pixels
from training.regions import RegionBatch, RegionFinder, collate_regions
from training.token_lists import TokenLists

_TRANSLATED_SHARE = 0.2  # of the batches of data that has captions in other languages
_WINDOW = 12  # batches within which images are sorted by caption length: less padding, still a random order


@dataclass(frozen=True, slots=True)
class Batch:
    """tokens (R, T+1): special ids, caption, end, then padding; is_target (R, T) says which of tokens[:, 1:] are targets.

    GPT-2's padding is its end token, so padding cannot be recognized by its id. image_of is the image of each row.
    """

    inputs: tuple[Tensor, ...]  # what FrozenPart.features takes: feature maps, tokens or pixels
    tokens: Tensor
    is_target: Tensor
    image_of: tuple[int, ...]
    regions: RegionBatch | None = None
    image_keys: tuple[str, ...] = ()  # of the images, if the captions are in the run's own language
    num_special: int = 1  # special ids before each caption
    is_dropped: Tensor | None = None  # (B,) bool: the images that "no image" replaces
    teacher_inputs: tuple[Tensor, ...] = ()  # the same images' features of the teacher's encoder

    @property
    def num_images(self) -> int:
        """0 for captions without an image."""
        return self.inputs[0].size(0) if self.inputs else 0

    @property
    def num_targets(self) -> int:
        return int(self.is_target.sum())

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return self._mapped(lambda value: to_device(value, device))

    def pin_memory(self) -> Batch:
        """Return the batch in memory that a GPU can copy from without waiting; torch's DataLoader calls it."""
        return self._mapped(Tensor.pin_memory)

    def without_targets(self) -> Batch:
        """Return the batch with a loss of 0: for a rank that has no image of its own in a step."""
        regions = None if self.regions is None else self.regions.select(torch.zeros(len(self.regions.rows), dtype=torch.bool))
        return replace(self, is_target=torch.zeros_like(self.is_target), regions=regions, image_keys=())

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            inputs=tuple(map(change, self.inputs)),
            tokens=change(self.tokens),
            is_target=change(self.is_target),
            regions=None if self.regions is None else self.regions.mapped(change),
            is_dropped=None if self.is_dropped is None else change(self.is_dropped),
            teacher_inputs=tuple(map(change, self.teacher_inputs)),
        )


class TrainingData:
    """The training split of one data source, tokenized."""

    def __init__(
        self,
        entries: list[CaptionedImage],
        tokenizer: CaptionTokenizer,
        config: ModelConfig,
        cache: FeatureCache | None,
        *,
        num_views: int,
        captions_per_image: int,
        max_caption_tokens: int,
        language: str = "",
        max_images_per_epoch: int = 0,
        shuffle_images: bool = False,
        unconditional_ratio: float = 0.0,
        augmentation: Augmentation | None = None,
        finder: RegionFinder | None = None,
        teacher_cache: FeatureCache | None = None,
    ) -> None:
        self._entries = entries
        self._image = config.image
        self._cache, self._teacher_cache = cache, teacher_cache
        self._augmentation = augmentation if augmentation and augmentation.is_active else None
        self._unconditional_ratio = unconditional_ratio
        self._num_views = num_views
        self._captions_per_image = captions_per_image
        self._images_per_epoch = min(max_images_per_epoch or len(entries), len(entries))
        self._pad = config.decoder.pad_token_id
        encode = CaptionEncoder(tokenizer, config, max_caption_tokens)
        self._num_special = len(prefix_ids(config, tokenizer, language).special)
        self._ids = TokenLists([encode(text, language) for text in entry.captions] for entry in entries)
        mirrored = {  # where left and right are named
            index: [encode(mirrored_caption(text), language) for text in entry.captions]
            for index, entry in enumerate(entries)
            if num_views > 1 and any(mirrored_caption(text) != text for text in entry.captions)
        }
        self._mirrored = TokenLists(mirrored.get(index, []) for index in range(len(entries)))
        self._translated = [
            {other: [encode(text, other) for text in texts] for other, texts in entry.translations} for entry in entries
        ]
        self._languages = sorted({other for translated in self._translated for other in translated})
        self._regions = [_uncut(finder.regions(entry), max_caption_tokens) for entry in entries] if finder else None
        self._num_patches = finder.grid.num_patches if finder else 0
        self._lengths = self._ids.longest()
        order = list(range(len(entries)))
        if shuffle_images:  # the control: every caption belongs to another image
            random.Random(0).shuffle(order)
        self._image_index = order

    def __len__(self) -> int:
        """Images per epoch."""
        return self._images_per_epoch

    @property
    def is_cached(self) -> bool:
        """Whether a batch has cached features, else images are decoded for it."""
        return self._cache is not None

    def plan(self, epoch: int, seed: int, batch_size: int) -> list[list[int]]:
        """Return the images of every batch of an epoch: none twice, similar caption lengths together."""
        rng = random.Random(f"plan {seed} {epoch}")
        order = rng.sample(range(len(self._entries)), len(self))
        batches = []
        for first in range(0, len(order), batch_size * _WINDOW):
            window = sorted(order[first : first + batch_size * _WINDOW], key=lambda index: self._lengths[index])
            batches += [window[at : at + batch_size] for at in range(0, len(window), batch_size)]
        rng.shuffle(batches)
        return batches

    def batch(self, indices: list[int], rng: random.Random) -> Batch:
        """Return these images, one of their views each, with up to captions_per_image of their captions.

        What is drawn for an image depends on the random state and the image, not on the other images: ranks that share a batch
        draw what one rank would.
        """
        language, key = self._choose_language(rng), rng.getrandbits(64)
        rngs = [random.Random(f"{key} {index}") for index in indices]
        views = [self._choose_view(index, language, own) for index, own in zip(indices, rngs, strict=True)]
        is_dropped = torch.tensor([own.random() < self._unconditional_ratio for own in rngs])
        images = [self._image_index[index] for index in indices]
        rows: list[list[int]] = []
        image_of: list[int] = []
        regions: list[list[tuple[int, Tensor]]] = []
        for number, (index, view) in enumerate(zip(indices, views, strict=True)):
            own = (
                self._translated[index].get(language) or (self._mirrored[index] if is_mirrored(view) else []) or self._ids[index]
            )
            chosen = rngs[number].sample(range(len(own)), min(len(own), self._captions_per_image))
            rows += [own[caption] for caption in chosen]
            image_of += [number] * len(chosen)
            if self._regions is not None:  # boxes and masks are those of the image as it is, words are those of its own captions
                known = [] if view or language in self._translated[index] or is_dropped[number] else self._regions[index]
                regions += [known[caption] if known else [] for caption in chosen]
        tokens, is_target = collate(rows, self._num_special, self._pad)
        batch = None
        if self._regions is not None:
            batch = collate_regions(regions, self._num_special - 1, self._num_patches)
        keys = () if language else tuple(self._entries[index].key for index in indices)
        return Batch(
            self._inputs(images, views, rngs), tokens, is_target, tuple(image_of), batch, keys, self._num_special, is_dropped,
            _cached(self._teacher_cache, images, views) if self._teacher_cache else (),
        )  # fmt: skip

    def _inputs(self, images: Sequence[int], views: Sequence[int], rngs: Sequence[random.Random]) -> tuple[Tensor, ...]:
        if self._cache is not None:
            return _cached(self._cache, images, views)
        changes = self._augmentation
        pixels = [
            random_view_pixels(self._entries[image], is_mirrored(view), changes, rng, self._image)
            if changes
            else view_pixels(self._entries[image], view, self._image)
            for image, view, rng in zip(images, views, rngs, strict=True)
        ]
        return (torch.stack(pixels),)

    def _choose_view(self, index: int, language: str, rng: random.Random) -> int:
        """Return a view of an image: the image itself where left and right cannot be exchanged in the captions."""
        is_fixed = not self._entries[index].can_mirror or language in self._translated[index]
        return 0 if is_fixed else rng.randrange(self._num_views)

    def _choose_language(self, rng: random.Random) -> str:
        """Return the other language of a batch, "" for the captions' own.

        A batch has one language: tokens per caption differ by a factor of five, and rows are padded to the longest.
        """
        if not self._languages or rng.random() >= _TRANSLATED_SHARE:
            return ""
        return rng.choice(self._languages)


def _cached(cache: FeatureCache, images: Sequence[int], views: Sequence[int]) -> tuple[Tensor, ...]:
    return cache.read(images, views if cache.num_views > 1 else [0] * len(views))


def _uncut(captions: list[list[tuple[int, Tensor]]], max_tokens: int) -> list[list[tuple[int, Tensor]]]:
    """Return the regions of the tokens that are left of captions of at most `max_tokens`."""
    return [[(token, patches) for token, patches in regions if token < max_tokens] for regions in captions]


class TextData:
    """Captions without images: the decoder learns them as what it would say without an image."""

    def __init__(
        self, texts: Sequence[str], tokenizer: CaptionTokenizer, config: ModelConfig, max_tokens: int, language: str
    ) -> None:
        encode = CaptionEncoder(tokenizer, config, max_tokens)
        self._ids = sorted((encode(text, language) for text in texts), key=len)
        self._num_special = len(prefix_ids(config, tokenizer, language).special)
        self._pad = config.decoder.pad_token_id

    def plan(self, epoch: int, seed: int, batch_size: int) -> list[list[int]]:
        """Return the texts of every batch of an epoch: captions of a length together, shuffled."""
        rng = random.Random(f"text {seed} {epoch}")
        batches = [list(range(at, min(at + batch_size, len(self._ids)))) for at in range(0, len(self._ids), batch_size)]
        rng.shuffle(batches)
        return batches

    def batch(self, indices: list[int], rng: random.Random) -> Batch:
        """Return these texts, with no image."""
        rows = [self._ids[index] for index in indices]
        tokens, is_target = collate(rows, self._num_special, self._pad)
        return Batch((), tokens, is_target, (0,) * len(rows))


def read_texts(path: Path) -> list[str]:
    """Return the captions of a file of --text, one per line. Raises DataError."""
    texts = [text for line in read_text(path).splitlines() if (text := normalize_caption(line))]
    if not texts:
        raise DataError(f"{path} has no captions; it must have one per line")
    return texts


class CaptionEncoder:
    """Captions to ids: special ids, at most `max_tokens` tokens and, if the text is not cut, the end."""

    def __init__(self, tokenizer: CaptionTokenizer, config: ModelConfig, max_tokens: int) -> None:
        self._tokenizer, self._config, self._max_tokens = tokenizer, config, max_tokens

    def __call__(self, text: str, language: str) -> list[int]:
        """Return the ids of a caption in a language."""
        tokens = self._tokenizer.encode(text)
        end = [] if len(tokens) > self._max_tokens else [self._config.decoder.eos_token_id]
        special = prefix_ids(self._config, self._tokenizer, language).special
        return [*special, *tokens[: self._max_tokens], *end]


def collate(rows: Sequence[list[int]], num_special: int, pad: int) -> tuple[Tensor, Tensor]:
    """Return tokens (R, T+1), padded at the end, and which of tokens[:, 1:] are targets (R, T)."""
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    positions = torch.arange(1, longest)
    lengths = torch.tensor([len(row) for row in rows])[:, None]
    return tokens, (positions < lengths) & (positions >= num_special)
