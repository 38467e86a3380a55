"""The text decoder: caption tokens attend to themselves, then to the image, and give logits.

Knows token ids and image tokens. Does not know words, pictures or search.

Shapes: B images, R rows, T caption tokens, S image tokens, M cached positions, C width, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from model.attention import MultiHeadAttention
from model.config import Activation, DecoderConfig
from model.errors import TextError
from model.packed import PackedLinear, can_pack, pack_linears
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


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x) (Hendrycks and Gimpel 2016, section 2)."""

    def forward(self, values: Tensor) -> Tensor:
        """Any shape -> the same."""
        return values * (1.702 * values).sigmoid()


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention, two-layer perceptron; a residual around each, its norm before it or behind."""

    def __init__(self, config: DecoderConfig, dropout: float) -> None:
        super().__init__()
        self.pre_norm = config.pre_norm
        source = config.width if config.image_projection else config.image_width
        self.self_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.self_attention = MultiHeadAttention(config.width, config.heads)
        self.cross_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.cross_attention = MultiHeadAttention(config.width, config.heads, source, null_key=config.null_key)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.mlp_width),
            activation_of(config.activation),
            nn.Linear(config.mlp_width, config.width),
        )
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
        read = self._before(self.self_norm, tokens)
        query, key, value = self.self_attention.project_itself(read)
        key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)  # (R, H, M+T, K)
        mixed, _ = self.self_attention.attend(query, key, value, mask)
        tokens = self._behind(self.self_norm, tokens + self.dropout(mixed))

        folded = groups.fold(self._before(self.cross_norm, tokens))  # (B, N*T, C)
        mixed, seen = self.cross_attention(folded, *image, weights=weights)
        tokens = self._behind(self.cross_norm, tokens + self.dropout(groups.unfold(mixed)))

        mixed = self.mlp(self._before(self.mlp_norm, tokens))
        tokens = self._behind(self.mlp_norm, tokens + self.dropout(mixed))
        return tokens, (key, value), None if seen is None else groups.unfold_weights(seen)

    def _before(self, norm: nn.Module, tokens: Tensor) -> Tensor:
        return norm(tokens) if self.pre_norm else tokens

    def _behind(self, norm: nn.Module, tokens: Tensor) -> Tensor:
        return tokens if self.pre_norm else norm(tokens)


class TextDecoder(nn.Module):
    """A causal transformer over caption tokens with cross-attention to image tokens; what it is made of stands in its config."""

    def __init__(self, config: DecoderConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        width, eps = config.width, config.norm_eps
        self.token_embedding = nn.Embedding(config.vocabulary, width)
        is_learned = config.position_kind == "learned"
        self.position_embedding = nn.Embedding(config.position_offset + config.positions, width) if is_learned else None
        self.embedding_norm = nn.LayerNorm(width, eps=eps) if config.embedding_norm else nn.Identity()
        self.image_projection = nn.Linear(config.image_width, width) if config.image_projection else nn.Identity()
        self.dropout = SharedDropout(dropout)
        self.layers = nn.ModuleList(DecoderLayer(config, dropout) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=eps) if config.final_norm else nn.Identity()
        transform = [nn.Linear(width, width), activation_of(config.activation), nn.LayerNorm(width, eps=eps)]
        self.head_transform = nn.Sequential(*transform) if config.head_transform else nn.Identity()
        self.head_weight = None if config.tied_head else nn.Parameter(torch.empty(config.vocabulary, width).normal_(std=0.02))
        self.head_bias = nn.Parameter(torch.zeros(config.vocabulary)) if config.head_bias else None
        self.packed_head: PackedLinear | None = None  # the head, laid out for inference
        self.apply(_initialise)
        if config.null_key:
            for layer in self._layers():
                layer.cross_attention.settle_on_null(NULL_SCORE)

    def start(self, image_tokens: Tensor, image_of: tuple[int, ...]) -> DecoderState:
        """Return the state before the first token.

        image_tokens (B, S, image width); image_of names the image, 0..B-1, of each of R rows. Cross keys and values
        are projected here, once an image.
        """
        source = self.image_projection(image_tokens)
        crossed = [layer.cross_attention.project(source) for layer in self._layers()]
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
        hidden = self.dropout(self._embed(tokens, places))  # (R, T, C)

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
        wanted = self.head_transform(self.norm(hidden if only is None else hidden[only]))  # (R, T, C) or (N, C)
        logits = self.packed_head(wanted) if self.packed_head else nn.functional.linear(wanted, self._head(), self.head_bias)
        return logits, tuple(seen), state.advanced(tuple(keys), tuple(values), positions)

    def pack(self) -> None:
        """Lay every linear layer out for inference in bfloat16, where the processor can (model/packed.py)."""
        if can_pack():
            for layer in self._layers():
                layer.self_attention.fuse()
            pack_linears(self)
            self.packed_head = PackedLinear(self._head(), self.head_bias)

    def _head(self) -> Tensor:
        return self.token_embedding.weight if self.head_weight is None else self.head_weight

    def _embed(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Token ids and their places (R, T) -> embeddings (R, T, C), position included."""
        embedded = self.token_embedding(tokens) * self.config.embedding_scale
        places = places + self.config.position_offset
        if self.position_embedding is None:
            positions = sinusoids(places, self.config.width).to(embedded.dtype)
            positions = positions * (tokens != self.config.pad_id)[..., None]  # as fairseq: pads have no position
        else:
            positions = self.position_embedding(places)
        return self.embedding_norm(embedded + positions)

    def _layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]


def activation_of(name: Activation) -> nn.Module:
    """Return the activation of a config's name."""
    if name == "quick_gelu":
        return QuickGelu()
    if name == "relu":
        return nn.ReLU()
    return nn.GELU(approximate="tanh" if name == "gelu_tanh" else "none")


def sinusoids(places: Tensor, width: int) -> Tensor:
    """Return sines, then cosines, of places (R, T): (R, T, width), as tensor2tensor lays them out (fairseq, TrOCR)."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=places.device) * -(math.log(10_000) / (half - 1)))  # (half,)
    turns = places[..., None] * rates  # (R, T, half)
    found = torch.cat([turns.sin(), turns.cos()], dim=-1)
    return nn.functional.pad(found, (0, width - 2 * half))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
