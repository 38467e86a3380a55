"""What the decoder remembers between steps, as a value: nothing is changed in place.

Rows may have different lengths and belong to different images. Self keys and values are aligned to the right:
the newest position of every row is the last column, so a step is one concatenation for all rows, and a row that is
shorter than its neighbours has unused columns on the left, which `self_mask` hides.

Shapes: B images, R rows, M columns of the self cache, S image keys (null key included), H heads, K head width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class RowGroups:
    """The rows of each image side by side, so that cross keys and values are never copied a row.

    Folding puts the N rows of an image behind each other on the query axis: (R, T, C) -> (B, N*T, C).
    """

    image_of: Tensor  # (R,)
    slot: Tensor  # (R,) place of a row among the rows of its image
    images: int
    slots: int  # N: rows of the image that has most
    regular: bool  # every image has N rows, in order: folding is a reshape

    @classmethod
    def of(cls, image_of: Tensor, images: int) -> RowGroups:
        """Group rows by the image that they belong to, image_of (R,) in 0..images-1."""
        listed: list[int] = image_of.tolist()
        filled = [0] * images
        slot = []
        for image in listed:
            slot.append(filled[image])
            filled[image] += 1
        slots = max(filled, default=1)
        regular = listed == [image for image in range(images) for _ in range(slots)]
        return cls(image_of, torch.tensor(slot, dtype=torch.long, device=image_of.device), images, slots, regular)

    def fold(self, tokens: Tensor) -> Tensor:
        """(R, T, C) -> (B, N*T, C); places without a row hold zeros."""
        if self.regular:
            return tokens.unflatten(0, (self.images, self.slots)).flatten(1, 2)
        padded = tokens.new_zeros(self.images, self.slots, *tokens.shape[1:])
        return padded.index_put((self.image_of, self.slot), tokens).flatten(1, 2)

    def unfold(self, tokens: Tensor) -> Tensor:
        """(B, N*T, C) -> (R, T, C)."""
        grouped = tokens.unflatten(1, (self.slots, -1))  # (B, N, T, C)
        return grouped.flatten(0, 1) if self.regular else grouped[self.image_of, self.slot]

    def unfold_weights(self, weights: Tensor) -> Tensor:
        """(B, H, N*T, S) -> (R, H, T, S)."""
        grouped = weights.unflatten(2, (self.slots, -1)).transpose(1, 2)  # (B, N, H, T, S)
        return grouped.flatten(0, 1) if self.regular else grouped[self.image_of, self.slot]


@dataclass(frozen=True, slots=True)
class DecoderState:
    """Self keys and values a layer, cross keys and values once an image, the length and the image of each row."""

    self_key: tuple[Tensor, ...]  # L x (R, H, M, K)
    self_value: tuple[Tensor, ...]
    cross_key: tuple[Tensor, ...]  # L x (B, H, S, K)
    cross_value: tuple[Tensor, ...]
    lengths: tuple[int, ...]  # R: positions already decoded
    image_of: tuple[int, ...]  # R: 0..B-1

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def images(self) -> int:
        return self.cross_key[0].size(0)

    @property
    def columns(self) -> int:
        return self.self_key[0].size(2)

    def groups(self) -> RowGroups:
        """Return how this state's rows share images."""
        return RowGroups.of(torch.tensor(self.image_of, dtype=torch.long, device=self.cross_key[0].device), self.images)

    def self_mask(self, positions: int) -> Tensor | None:
        """Return which keys `positions` new tokens may read, (R or 1, 1, T, M+T) bool; None where all are allowed."""
        device = self.cross_key[0].device
        columns = self.columns
        if positions == 1 and min(self.lengths, default=0) == columns:
            return None
        reads = torch.arange(columns + positions, device=device)
        last = columns + torch.arange(positions, device=device)
        causal = (reads <= last[:, None])[None, None]  # (1, 1, T, M+T)
        if min(self.lengths, default=0) == columns:
            return causal
        first = columns - torch.tensor(self.lengths, device=device)  # (R,)
        return causal & (reads >= first[:, None])[:, None, None]  # (R, 1, T, M+T)

    def select(self, rows: list[int]) -> DecoderState:
        """Return the state of these rows, in this order, with repetition; images that no row needs are dropped."""
        lengths = tuple(self.lengths[row] for row in rows)
        columns = max(lengths, default=0)
        wanted = [self.image_of[row] for row in rows]
        images = sorted(set(wanted))
        place = {image: index for index, image in enumerate(images)}
        cut = self.columns - columns
        index = torch.tensor(rows, dtype=torch.long, device=self.self_key[0].device)
        kept = torch.tensor(images, dtype=torch.long, device=index.device)
        whole = len(images) == self.images
        return DecoderState(
            tuple(key[index, :, cut:] for key in self.self_key),
            tuple(value[index, :, cut:] for value in self.self_value),
            self.cross_key if whole else tuple(key[kept] for key in self.cross_key),
            self.cross_value if whole else tuple(value[kept] for value in self.cross_value),
            lengths,
            tuple(place[image] for image in wanted),
        )

    def append(self, other: DecoderState) -> DecoderState:
        """Return a state with the rows of `other`, and its images, behind these."""
        columns = max(self.columns, other.columns)
        return DecoderState(
            _join_rows(self.self_key, other.self_key, columns),
            _join_rows(self.self_value, other.self_value, columns),
            tuple(torch.cat(pair) for pair in zip(self.cross_key, other.cross_key, strict=True)),
            tuple(torch.cat(pair) for pair in zip(self.cross_value, other.cross_value, strict=True)),
            self.lengths + other.lengths,
            self.image_of + tuple(self.images + image for image in other.image_of),
        )

    def advanced(self, self_key: tuple[Tensor, ...], self_value: tuple[Tensor, ...], positions: int) -> DecoderState:
        """Return the state after `positions` more tokens, whose keys and values stand in the last columns."""
        lengths = tuple(length + positions for length in self.lengths)
        return replace(self, self_key=self_key, self_value=self_value, lengths=lengths)


def _join_rows(first: tuple[Tensor, ...], second: tuple[Tensor, ...], columns: int) -> tuple[Tensor, ...]:
    return tuple(torch.cat([_widened(a, columns), _widened(b, columns)]) for a, b in zip(first, second, strict=True))


def _widened(cache: Tensor, columns: int) -> Tensor:
    """Add unused columns on the left of (R, H, M, K)."""
    return functional.pad(cache, (0, 0, columns - cache.size(2), 0))
