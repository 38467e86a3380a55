"""Decoder state (keys and values of earlier positions) as an immutable value: nothing is changed in place.

Rows may have different lengths and belong to different images. Self keys and values are aligned to the right:
the newest position of every row is the last column, so a step is one concatenation for all rows, and a row that is
shorter than others has unused columns on the left, which `self_mask` hides.

Images may have different numbers of keys, as prompts are among them: those that have fewer have unused ones at the end, which
`cross_mask` hides.

Shapes: B images, R rows, M columns of the self-attention cache, S image keys (prompt and null key included), H heads, K head
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class RowGroups:
    """The rows of each image, grouped so that cross keys and values are never copied per row.

    `fold` concatenates the N rows of an image along the query axis: (R, T, C) -> (B, N*T, C).
    """

    image_of: Tensor  # (R,)
    slot: Tensor  # (R,) index of a row among the rows of its image
    num_images: int
    num_slots: int  # N: the largest number of rows of an image
    is_regular: bool  # every image has N rows, in order: folding is a reshape

    @classmethod
    def create(cls, image_of: Sequence[int], num_images: int, device: torch.device) -> RowGroups:
        """Group rows by image, image_of R indices in 0..num_images-1."""
        used = [0] * num_images
        slot = []
        for image in image_of:
            slot.append(used[image])
            used[image] += 1
        num_slots = max(used, default=1)
        is_regular = list(image_of) == [image for image in range(num_images) for _ in range(num_slots)]
        return cls(
            torch.tensor(image_of, dtype=torch.long, device=device),
            torch.tensor(slot, dtype=torch.long, device=device),
            num_images,
            num_slots,
            is_regular,
        )

    def fold(self, tokens: Tensor) -> Tensor:
        """(R, T, C) -> (B, N*T, C); slots without a row hold zeros."""
        if self.is_regular:
            return tokens.unflatten(0, (self.num_images, self.num_slots)).flatten(1, 2)
        padded = tokens.new_zeros(self.num_images, self.num_slots, *tokens.shape[1:])
        return padded.index_put((self.image_of, self.slot), tokens).flatten(1, 2)

    def unfold(self, tokens: Tensor) -> Tensor:
        """(B, N*T, C) -> (R, T, C)."""
        grouped = tokens.unflatten(1, (self.num_slots, -1))  # (B, N, T, C)
        return grouped.flatten(0, 1) if self.is_regular else grouped[self.image_of, self.slot]

    def unfold_weights(self, weights: Tensor) -> Tensor:
        """(B, H, N*T, S) -> (R, H, T, S)."""
        grouped = weights.unflatten(2, (self.num_slots, -1)).transpose(1, 2)  # (B, N, H, T, S)
        return grouped.flatten(0, 1) if self.is_regular else grouped[self.image_of, self.slot]


@dataclass(frozen=True, slots=True)
class DecoderState:
    """Self keys and values per layer, cross keys and values once per image, the length and the image of each row."""

    self_key: tuple[Tensor, ...]  # L x (R, H, M, K)
    self_value: tuple[Tensor, ...]
    cross_key: tuple[Tensor, ...]  # L x (B, H, S, K)
    cross_value: tuple[Tensor, ...]
    lengths: tuple[int, ...]  # R: positions already decoded
    image_of: tuple[int, ...]  # R: 0..B-1
    num_keys: tuple[int, ...]  # B: keys of each image, at most S

    @property
    def num_rows(self) -> int:
        return len(self.lengths)

    @property
    def num_images(self) -> int:
        return self.cross_key[0].size(0)

    @property
    def num_columns(self) -> int:
        return self.self_key[0].size(2)

    @property
    def device(self) -> torch.device:
        return self.cross_key[0].device

    def groups(self) -> RowGroups:
        """Return how the rows share images."""
        return RowGroups.create(self.image_of, self.num_images, self.device)

    def self_mask(self, num_positions: int) -> Tensor | None:
        """Return which keys `num_positions` new tokens may read, (R or 1, 1, T, M+T) bool; None if all are allowed."""
        columns = self.num_columns
        if num_positions == 1 and min(self.lengths, default=0) == columns:
            return None
        keys = torch.arange(columns + num_positions, device=self.device)
        last = columns + torch.arange(num_positions, device=self.device)
        causal = (keys <= last[:, None])[None, None]  # (1, 1, T, M+T)
        if min(self.lengths, default=0) == columns:
            return causal
        first = columns - torch.tensor(self.lengths, device=self.device)  # (R,)
        return causal & (keys >= first[:, None])[:, None, None]  # (R, 1, T, M+T)

    def cross_mask(self) -> Tensor | None:
        """Return which keys the rows of each image may read, (B, 1, 1, S) bool; None if all are allowed."""
        columns = self.cross_key[0].size(2)
        if min(self.num_keys, default=columns) == columns:
            return None
        num_keys = torch.tensor(self.num_keys, device=self.device)
        return (torch.arange(columns, device=self.device) < num_keys[:, None])[:, None, None]

    def select(self, rows: Sequence[int]) -> DecoderState:
        """Return the state of these rows, in this order, with repetition; images that no row needs are dropped."""
        lengths = tuple(self.lengths[row] for row in rows)
        columns = max(lengths, default=0)
        needed = [self.image_of[row] for row in rows]
        images = sorted(set(needed))
        position = {image: index for index, image in enumerate(images)}
        cut = self.num_columns - columns
        index = torch.tensor(rows, dtype=torch.long, device=self.device)
        kept = torch.tensor(images, dtype=torch.long, device=self.device)
        num_keys = tuple(self.num_keys[image] for image in images)
        all_images = len(images) == self.num_images
        longest = max(num_keys, default=0)
        return DecoderState(
            tuple(key[index, :, cut:] for key in self.self_key),
            tuple(value[index, :, cut:] for value in self.self_value),
            self.cross_key if all_images else tuple(key[kept, :, :longest] for key in self.cross_key),
            self.cross_value if all_images else tuple(value[kept, :, :longest] for value in self.cross_value),
            lengths,
            tuple(position[image] for image in needed),
            num_keys,
        )

    @classmethod
    def concat(cls, states: Sequence[DecoderState]) -> DecoderState:
        """Return one state with the rows and images of all states, in order."""
        if len(states) == 1:
            return states[0]
        columns = max(state.num_columns for state in states)
        keys = max(state.cross_key[0].size(2) for state in states)
        layers = range(len(states[0].self_key))
        offsets = [sum(state.num_images for state in states[:index]) for index in range(len(states))]
        return cls(
            tuple(torch.cat([_padded(state.self_key[layer], columns) for state in states]) for layer in layers),
            tuple(torch.cat([_padded(state.self_value[layer], columns) for state in states]) for layer in layers),
            tuple(torch.cat([_lengthened(state.cross_key[layer], keys) for state in states]) for layer in layers),
            tuple(torch.cat([_lengthened(state.cross_value[layer], keys) for state in states]) for layer in layers),
            tuple(length for state in states for length in state.lengths),
            tuple(offset + image for state, offset in zip(states, offsets, strict=True) for image in state.image_of),
            tuple(number for state in states for number in state.num_keys),
        )

    def append(self, other: DecoderState) -> DecoderState:
        """Return a state with the rows of `other`, and its images, after these."""
        return DecoderState.concat([self, other])

    def advance(self, self_key: tuple[Tensor, ...], self_value: tuple[Tensor, ...], num_positions: int) -> DecoderState:
        """Return the state after `num_positions` more tokens, whose keys and values are the last columns."""
        lengths = tuple(length + num_positions for length in self.lengths)
        return replace(self, self_key=self_key, self_value=self_value, lengths=lengths)


def _padded(cache: Tensor, columns: int) -> Tensor:
    """Add unused columns on the left of (R, H, M, K)."""
    return functional.pad(cache, (0, 0, columns - cache.size(2), 0))


def _lengthened(values: Tensor, keys: int) -> Tensor:
    """Add unused keys at the end of (B, H, S, K)."""
    return values if values.size(2) == keys else functional.pad(values, (0, 0, 0, keys - values.size(2)))
