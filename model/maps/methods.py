"""What a map method receives and returns. To add one: a class with these attributes in a file of its own, and its entry in
registry.py; options, schema and documentation follow from the registry.

Shapes: R captions, T tokens, S image tokens (prefix, patches, null key), P patches, H heads, K head size, V vocabulary, L layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from model.config import MapConfig
from model.geometry import PatchGrid
from model.state import DecoderState


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """What the scoring pass computed for R captions of T tokens; position t is the one that predicted token t."""

    logits: Tensor  # (R, T, V)
    targets: Tensor  # (R, T) ids, padded at the end
    weights: tuple[Tensor, ...]  # L x (R, H, T, S) cross-attention
    state: DecoderState  # before the first token; with gradients its cross values L x (R, H, S, K) are leaves, one image per row
    grid: PatchGrid
    num_prefix_tokens: int
    config: MapConfig
    rescore: Callable[[DecoderState], Tensor] | None = None  # a state before the first token -> log p of the targets (R, T)
    has_null_key: bool = True  # the last key stands for no image token
    progress: Callable[[], None] | None = None  # called between the calls of the network of a method that needs many

    def report_progress(self) -> None:
        """Say that a call of the network has ended; what it raises ends the scoring pass."""
        if self.progress is not None:
            self.progress()

    @property
    def prompt(self) -> slice:
        """The keys that are tokens of a prompt: they follow the patches where there is no null key."""
        first = self.num_prefix_tokens + self.grid.num_patches
        return slice(first, first) if self.has_null_key else slice(first, None)

    @property
    def patches(self) -> slice:
        """The image tokens that are patches: S = prefix + patches (+ null key)."""
        return slice(self.num_prefix_tokens, self.num_prefix_tokens + self.grid.num_patches)


class MapMethod(Protocol):
    """A way to attribute a token to patches."""

    name: str
    help: str  # one line for option lists
    uses_gradients: bool  # the scoring pass then runs with autograd
    is_attention_share: bool  # a row's sum is the share of attention on the patches: the word's image_mass

    def token_maps(self, scored: ScoredRows) -> Tensor:
        """Return (R, T, P) values >= 0: row t is the map of token t and uses nothing later than its own prediction."""
        ...
