"""Batches of one data source: cached features (or pixels), and all captions of an image that share one encoder pass.

Shapes: B images, R captions (rows), T tokens.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from corpus import CaptionedImage, is_mirrored, mirrored_caption
from model import CaptionTokenizer, ModelConfig, prefix_ids, to_device
from training.features import FeatureCache, view_pixels

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

    @property
    def num_images(self) -> int:
        return self.inputs[0].size(0)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return replace(
            self,
            inputs=tuple(to_device(value, device) for value in self.inputs),
            tokens=to_device(self.tokens, device),
            is_target=to_device(self.is_target, device),
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
    ) -> None:
        self._entries = entries
        self._image = config.image
        self._cache = cache
        self._num_views = num_views
        self._captions_per_image = captions_per_image
        self._images_per_epoch = min(max_images_per_epoch or len(entries), len(entries))
        self._pad = config.decoder.pad_token_id
        special = prefix_ids(config, tokenizer, language).special
        self._num_special = len(special)

        def ids(text: str) -> list[int]:
            """Special ids, at most max_caption_tokens tokens and, if the text is not cut, the end."""
            tokens = tokenizer.encode(text)
            end = [] if len(tokens) > max_caption_tokens else [config.decoder.eos_token_id]
            return [*special, *tokens[:max_caption_tokens], *end]

        self._ids = [[ids(text) for text in entry.captions] for entry in entries]
        self._mirrored = [[ids(mirrored_caption(text)) for text in entry.captions] for entry in entries]
        self._lengths = [max(map(len, captions)) for captions in self._ids]
        order = list(range(len(entries)))
        if shuffle_images:  # the control: every caption belongs to another image
            random.Random(0).shuffle(order)
        self._image_index = order

    def __len__(self) -> int:
        """Images per epoch."""
        return self._images_per_epoch

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
        """Return these images, one of their views each, with up to captions_per_image of their captions."""
        views = [rng.randrange(self._num_views) if self._entries[index].can_mirror else 0 for index in indices]
        images = [self._image_index[index] for index in indices]
        rows: list[list[int]] = []
        image_of: list[int] = []
        for number, (index, view) in enumerate(zip(indices, views, strict=True)):
            captions = (self._mirrored if is_mirrored(view) else self._ids)[index]
            if len(captions) > self._captions_per_image:
                captions = rng.sample(captions, self._captions_per_image)
            rows += captions
            image_of += [number] * len(captions)
        if self._cache is not None:
            stored = views if self._cache.num_views > 1 else [0] * len(views)
            inputs = self._cache.read(images, stored)
        else:
            pixels = [view_pixels(self._entries[i], view, self._image) for i, view in zip(images, views, strict=True)]
            inputs = (torch.stack(pixels),)
        longest = max(map(len, rows))
        tokens = torch.tensor([row + [self._pad] * (longest - len(row)) for row in rows])
        positions = torch.arange(1, longest)
        lengths = torch.tensor([len(row) for row in rows])[:, None]
        is_target = (positions < lengths) & (positions >= self._num_special)
        return Batch(inputs, tokens, is_target, tuple(image_of))
