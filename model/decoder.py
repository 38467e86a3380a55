"""The text decoder: caption tokens attend to themselves, then to the image, and give logits.

Knows token ids and image tokens. Does not know words, pictures or search.

Shapes: B images, R rows, T caption tokens, S image tokens, M cached positions, C width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.attention import MultiHeadAttention
from model.config import DecoderConfig
from model.errors import TextError
from model.state import DecoderState, RowGroups

NULL_SCORE = 5.0  # e^5 is some 150: the null key begins with about half of the attention over 14 x 14 cells


class SharedDropout(nn.Module):
    """Dropout whose mask is shared by all positions of a row.

    Gal and Ghahramani 2016, section 4. One random number a row and channel instead of one a value: on a CPU the
    random numbers of ordinary dropout take a quarter of a training step.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, tokens: Tensor) -> Tensor:
        """(R, T, C) -> (R, T, C)."""
        if not self.training or self.rate == 0:
            return tokens
        kept = torch.rand(tokens.size(0), 1, tokens.size(2), device=tokens.device) >= self.rate
        return tokens * (kept / (1 - self.rate)).to(tokens.dtype)


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention, two-layer perceptron; each with its norm before and a residual around."""

    def __init__(self, config: DecoderConfig, dropout: float) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.self_attention = MultiHeadAttention(config.width, config.heads)
        self.cross_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.cross_attention = MultiHeadAttention(config.width, config.heads, config.image_width, null_key=config.null_key)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = nn.Sequential(nn.Linear(config.width, config.mlp_width), nn.GELU(), nn.Linear(config.mlp_width, config.width))
        self.dropout = SharedDropout(dropout)

    def forward(
        self,
        tokens: Tensor,
        past: tuple[Tensor, Tensor],
        image: tuple[Tensor, Tensor],
        groups: RowGroups,
        mask: Tensor | None,
        *,
        weights: bool,
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor | None]:
        """Return tokens (R, T, C), the grown self keys and values (R, H, M+T, K), cross weights (R, H, T, S) or None."""
        normed = self.self_norm(tokens)
        key, value = self.self_attention.project(normed)
        key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)  # (R, H, M+T, K)
        mixed, _ = self.self_attention(normed, key, value, mask)
        tokens = tokens + self.dropout(mixed)

        folded = groups.fold(self.cross_norm(tokens))  # (B, N*T, C)
        mixed, seen = self.cross_attention(folded, *image, weights=weights)
        tokens = tokens + self.dropout(groups.unfold(mixed))

        tokens = tokens + self.dropout(self.mlp(self.mlp_norm(tokens)))
        return tokens, (key, value), None if seen is None else groups.unfold_weights(seen)


class TextDecoder(nn.Module):
    """A causal transformer over caption tokens with cross-attention to image tokens; its head is tied."""

    def __init__(self, config: DecoderConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = nn.Embedding(config.positions, config.width)
        self.dropout = SharedDropout(dropout)
        self.layers = nn.ModuleList(DecoderLayer(config, dropout) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.apply(_initialise)
        if config.null_key:
            for layer in self._layers():
                layer.cross_attention.settle_on_null(NULL_SCORE)

    def start(self, image_tokens: Tensor, image_of: tuple[int, ...]) -> DecoderState:
        """Return the state before the first token.

        image_tokens (B, S, image width); image_of names the image, 0..B-1, of each of R rows. Cross keys and values
        are projected here, once an image.
        """
        crossed = [layer.cross_attention.project(image_tokens) for layer in self._layers()]
        key, heads = crossed[0][0], self.config.heads
        empty = key.new_zeros(len(image_of), heads, 0, self.config.width // heads)  # (R, H, 0, K)
        return DecoderState(
            (empty,) * self.config.depth,
            (empty,) * self.config.depth,
            tuple(key for key, _ in crossed),
            tuple(value for _, value in crossed),
            (0,) * len(image_of),
            image_of,
        )

    def forward(
        self, tokens: Tensor, state: DecoderState, *, weights: bool = False, only: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...], DecoderState]:
        """Return logits of the token after each position, cross-attention weights if asked for, the next state.

        tokens (R, T) ids. Returns logits (R, T, V), or (N, V) for the N positions where `only` (R, T) is True;
        L weights (R, H, T, S, one more with a null key), else (); the state T tokens later.
        Raises TextError where a row would be longer than the positions.
        """
        positions = tokens.size(1)
        if max(state.lengths, default=0) + positions > self.config.positions:
            raise TextError(
                f"a caption of {max(state.lengths) + positions} tokens was asked for; this checkpoint has "
                f"{self.config.positions} positions, ask for fewer words"
            )
        offsets = torch.tensor(state.lengths, device=tokens.device)[:, None]
        places = offsets + torch.arange(positions, device=tokens.device)  # (R, T)
        hidden = self.dropout(self.token_embedding(tokens) + self.position_embedding(places))  # (R, T, C)

        groups, mask = state.groups(), state.self_mask(positions)
        keys, values, seen = [], [], []
        for index, layer in enumerate(self._layers()):
            past = (state.self_key[index], state.self_value[index])
            image = (state.cross_key[index], state.cross_value[index])
            hidden, (key, value), layer_weights = layer(hidden, past, image, groups, mask, weights=weights)
            keys.append(key)
            values.append(value)
            if layer_weights is not None:
                seen.append(layer_weights)
        wanted = self.norm(hidden if only is None else hidden[only])  # (R, T, C) or (N, C)
        logits = nn.functional.linear(wanted, self.token_embedding.weight)  # (R, T, V) or (N, V)
        return logits, tuple(seen), state.advanced(tuple(keys), tuple(values), positions)

    def _layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
