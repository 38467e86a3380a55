"""Batches of one source each: cached stem maps (or pixels), and the captions of every picture behind one encoder pass.

Shapes: B pictures, R captions (rows), T tokens.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from corpus import Captioned, is_mirrored, mirrored_caption
from model import CaptionTokenizer, DecoderConfig, ImageConfig
from training.features import FeatureCache, view_pixels

WINDOW = 12  # batches among which pictures are sorted by caption length: less padding, still a fair mixture


@dataclass(frozen=True, slots=True)
class Batch:
    """tokens (R, T+1) with start and end, then padding; real (R, T) says which of tokens[:, 1:] are targets.

    GPT-2's padding is its end token, so that padding cannot be told by its id. image_of names each row's picture.
    """

    maps: tuple[Tensor, ...]
    tokens: Tensor
    real: Tensor
    image_of: tuple[int, ...]

    @property
    def pictures(self) -> int:
        return self.maps[0].size(0)


class TrainingSource:
    """The training split of one source, tokenised."""

    def __init__(
        self,
        entries: list[Captioned],
        tokenizer: CaptionTokenizer,
        image: ImageConfig,
        decoder: DecoderConfig,
        cache: FeatureCache | None,
        *,
        views: int,
        most_captions: int,
        most_tokens: int,
        epoch_pictures: int = 0,
        shuffle_pictures: bool = False,
    ) -> None:
        self._entries = entries
        self._image = image
        self._cache = cache
        self._views = views
        self._most_captions = most_captions
        self._epoch_pictures = min(epoch_pictures or len(entries), len(entries))
        self._pad = decoder.pad_id
        self._ids = [[_ids(tokenizer, decoder, text, most_tokens) for text in entry.captions] for entry in entries]
        self._mirrored = [
            [_ids(tokenizer, decoder, mirrored_caption(text), most_tokens) for text in entry.captions] for entry in entries
        ]
        self._longest = [max(map(len, ids)) for ids in self._ids]
        order = list(range(len(entries)))
        if shuffle_pictures:  # the control: every caption belongs to another picture
            random.Random(0).shuffle(order)
        self._picture_of = order

    def __len__(self) -> int:
        """Pictures that an epoch goes through."""
        return self._epoch_pictures

    def plan(self, epoch: int, seed: int, size: int) -> list[list[int]]:
        """Return the pictures of every batch of an epoch: none twice, similar caption lengths together."""
        dice = random.Random(f"plan {seed} {epoch}")
        order = dice.sample(range(len(self._entries)), len(self))
        batches = []
        for first in range(0, len(order), size * WINDOW):
            window = sorted(order[first : first + size * WINDOW], key=lambda index: self._longest[index])
            batches += [window[at : at + size] for at in range(0, len(window), size)]
        dice.shuffle(batches)
        return batches

    def batch(self, indices: list[int], dice: random.Random) -> Batch:
        """Return these pictures, one of their views each, with up to `most_captions` of their captions."""
        views = [dice.randrange(self._views) if self._entries[index].may_flip else 0 for index in indices]
        pictures = [self._picture_of[index] for index in indices]
        rows: list[list[int]] = []
        image_of: list[int] = []
        for place, (index, view) in enumerate(zip(indices, views, strict=True)):
            known = (self._mirrored if is_mirrored(view) else self._ids)[index]
            chosen = known if len(known) <= self._most_captions else dice.sample(known, self._most_captions)
            rows += chosen
            image_of += [place] * len(chosen)
        if self._cache is not None:
            stored = views if self._cache.views > 1 else [0] * len(views)
            maps = self._cache.read(pictures, stored)
        else:
            maps = (torch.stack([view_pixels(self._entries[p], v, self._image) for p, v in zip(pictures, views, strict=True)]),)
        longest = max(map(len, rows))
        tokens = torch.tensor([row + [self._pad] * (longest - len(row)) for row in rows])
        real = torch.arange(1, longest) < torch.tensor([len(row) for row in rows])[:, None]
        return Batch(maps, tokens, real, tuple(image_of))


def _ids(tokenizer: CaptionTokenizer, decoder: DecoderConfig, text: str, most: int) -> list[int]:
    """Return start, at most `most` tokens and, where the text is not cut, the end."""
    ids = tokenizer.encode(text)
    return [decoder.start_id, *ids[:most]] if len(ids) > most else [decoder.start_id, *ids, decoder.end_id]
