"""The text decoder: caption tokens attend to themselves, then to the image, and give logits.

Knows token ids and image tokens, not words, images or search.

Shapes: B images, R rows, T caption tokens, S image tokens, M cached positions, C hidden size, V vocabulary, L layers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.attention import MultiHeadAttention
from model.config import DecoderConfig
from model.cpu import PackedLinear, can_pack, pack_linears
from model.errors import TextError
from model.layers import make_activation
from model.state import DecoderState, RowGroups

NULL_SCORE = 5.0  # e^5 is about 150: the null key starts with about half of the attention over 14 x 14 patches


class SharedDropout(nn.Module):
    """Dropout whose mask is shared by all positions of a row.

    Gal and Ghahramani 2016, section 4. One random number per row and channel instead of one per value: on a CPU the
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
    """Self-attention, cross-attention, two-layer perceptron; a residual around each, its layer norm before or after it."""

    def __init__(self, config: DecoderConfig, dropout: float) -> None:
        super().__init__()
        self.pre_norm = config.pre_norm
        size, eps = config.hidden_size, config.layer_norm_eps
        source_size = size if config.image_projection else config.encoder_hidden_size
        self.self_norm = nn.LayerNorm(size, eps=eps)
        self.self_attention = MultiHeadAttention(size, config.num_heads)
        self.cross_norm = nn.LayerNorm(size, eps=eps)
        self.cross_attention = MultiHeadAttention(size, config.num_heads, source_size, null_key=config.null_key)
        self.mlp_norm = nn.LayerNorm(size, eps=eps)
        self.mlp = nn.Sequential(
            nn.Linear(size, config.intermediate_size),
            make_activation(config.activation),
            nn.Linear(config.intermediate_size, size),
        )
        self.dropout = SharedDropout(dropout)

    def forward(
        self,
        tokens: Tensor,
        past: tuple[Tensor, Tensor],
        image: tuple[Tensor, Tensor],
        groups: RowGroups,
        mask: Tensor | None,
        cross_mask: Tensor | None,
        *,
        weights: bool,
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor | None]:
        """Return tokens (R, T, C), all self keys and values (R, H, M+T, K), cross weights (R, H, T, S) or None."""
        query, key, value = self.self_attention.project_self(self._norm_before(self.self_norm, tokens))
        key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)  # (R, H, M+T, K)
        output, _ = self.self_attention.attend(query, key, value, mask)
        tokens = self._norm_after(self.self_norm, tokens + self.dropout(output))

        folded = groups.fold(self._norm_before(self.cross_norm, tokens))  # (B, N*T, C)
        output, attention = self.cross_attention(folded, *image, cross_mask, weights=weights)
        tokens = self._norm_after(self.cross_norm, tokens + self.dropout(groups.unfold(output)))

        output = self.mlp(self._norm_before(self.mlp_norm, tokens))
        tokens = self._norm_after(self.mlp_norm, tokens + self.dropout(output))
        return tokens, (key, value), None if attention is None else groups.unfold_weights(attention)

    def _norm_before(self, norm: nn.Module, tokens: Tensor) -> Tensor:
        return norm(tokens) if self.pre_norm else tokens

    def _norm_after(self, norm: nn.Module, tokens: Tensor) -> Tensor:
        return tokens if self.pre_norm else norm(tokens)


class TextDecoder(nn.Module):
    """A causal transformer over caption tokens with cross-attention to image tokens; its config describes it completely."""

    def __init__(self, config: DecoderConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False  # in training: activations inside a layer are computed again in the backward pass
        size, eps = config.hidden_size, config.layer_norm_eps
        self.token_embedding = nn.Embedding(config.vocab_size, size)
        is_learned = config.position_embedding_type == "learned"
        self.position_embedding = nn.Embedding(config.position_offset + config.max_positions, size) if is_learned else None
        self.embedding_norm = nn.LayerNorm(size, eps=eps) if config.embedding_norm else nn.Identity()
        self.image_projection = nn.Linear(config.encoder_hidden_size, size) if config.image_projection else nn.Identity()
        self.dropout = SharedDropout(dropout)
        self.layers = nn.ModuleList(DecoderLayer(config, dropout) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(size, eps=eps) if config.final_norm else nn.Identity()
        transform = [nn.Linear(size, size), make_activation(config.activation), nn.LayerNorm(size, eps=eps)]
        self.head_transform = nn.Sequential(*transform) if config.head_transform else nn.Identity()
        untied = None if config.tie_word_embeddings else nn.Parameter(torch.empty(config.vocab_size, size).normal_(std=0.02))
        self.head_weight = untied
        self.head_bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.head_bias else None
        self.packed_head: PackedLinear | None = None  # the head in the layout of bfloat16 matrix units
        self.apply(_init_weights)
        if config.null_key:
            for layer in self._layers():
                layer.cross_attention.init_null_key(NULL_SCORE)

    @property
    def dtype(self) -> torch.dtype:
        return self.token_embedding.weight.dtype

    def start(self, image_tokens: Tensor, image_of: tuple[int, ...]) -> DecoderState:
        """Return the state before the first token.

        image_tokens (B, S, encoder hidden size), after a prompt encoder with the prompt's among them; image_of names the image,
        0..B-1, of each of R rows. Cross keys and values are projected here, once per image.
        """
        source = self.image_projection(image_tokens)
        projected = [layer.cross_attention.project(source) for layer in self._layers()]
        key, heads = projected[0][0], self.config.num_heads
        empty = key.new_zeros(len(image_of), heads, 0, self.config.hidden_size // heads)  # (R, H, 0, K)
        return DecoderState(
            (empty,) * self.config.num_layers,
            (empty,) * self.config.num_layers,
            tuple(key for key, _ in projected),
            tuple(value for _, value in projected),
            (0,) * len(image_of),
            image_of,
            (key.size(2),) * image_tokens.size(0),
        )

    def forward(
        self, tokens: Tensor, state: DecoderState, *, weights: bool = False, logits_mask: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...], DecoderState]:
        """Return logits of the token after each position, cross-attention weights if `weights`, and the next state.

        tokens (R, T) ids. Returns logits (R, T, V), or (N, V) for the N positions where `logits_mask` (R, T) is True;
        L weights (R, H, T, S, one more with a null key), else (); the state T tokens later.
        Raises TextError if a row would be longer than max_positions.
        """
        num_positions = tokens.size(1)
        if max(state.lengths, default=0) + num_positions > self.config.max_positions:
            raise TextError(
                f"a caption of {max(state.lengths) + num_positions} tokens was requested; this checkpoint has "
                f"{self.config.max_positions} positions, use fewer words"
            )
        offsets = torch.tensor(state.lengths, device=tokens.device)[:, None]
        positions = offsets + torch.arange(num_positions, device=tokens.device)  # (R, T)
        hidden = self.dropout(self._embed(tokens, positions))  # (R, T, C)

        groups, mask, cross_mask = state.groups(), state.self_mask(num_positions), state.cross_mask()
        keys, values, attention = [], [], []
        for index, layer in enumerate(self._layers()):
            past = (state.self_key[index], state.self_value[index])
            image = (state.cross_key[index], state.cross_value[index])
            if self.gradient_checkpointing and self.training:
                result = checkpoint(layer, hidden, past, image, groups, mask, cross_mask, weights=weights, use_reentrant=False)
            else:
                result = layer(hidden, past, image, groups, mask, cross_mask, weights=weights)
            hidden, (key, value), layer_weights = result
            keys.append(key)
            values.append(value)
            if layer_weights is not None:
                attention.append(layer_weights)
        final = self.head_transform(self.norm(hidden if logits_mask is None else hidden[logits_mask]))  # (R, T, C) or (N, C)
        logits = self.packed_head(final) if self.packed_head else nn.functional.linear(final, self._head(), self.head_bias)
        return logits, tuple(attention), state.advance(tuple(keys), tuple(values), num_positions)

    def pack(self) -> None:
        """Put every linear layer into the layout of bfloat16 matrix units, if the processor has them (model/cpu.py)."""
        if can_pack():
            for layer in self._layers():
                layer.self_attention.fuse()
            pack_linears(self)
            self.packed_head = PackedLinear(self._head(), self.head_bias)

    def _head(self) -> Tensor:
        return self.token_embedding.weight if self.head_weight is None else self.head_weight

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Token ids and their positions (R, T) -> embeddings (R, T, C), position included."""
        embedded = self.token_embedding(tokens) * self.config.embedding_scale
        positions = positions + self.config.position_offset
        if not self.config.padding_position:
            positions = positions.where(tokens != self.config.pad_token_id, self.config.pad_token_id)
        if self.position_embedding is None:
            vectors = sinusoids(positions, self.config.hidden_size).to(embedded.dtype)
            vectors = vectors * (tokens != self.config.pad_token_id)[..., None]  # as fairseq: padding has no position
        else:
            vectors = self.position_embedding(positions)
        return self.embedding_norm(embedded + vectors)

    def _layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]


def sinusoids(positions: Tensor, size: int) -> Tensor:
    """Return sines, then cosines, of positions (R, T): (R, T, size), in the order of tensor2tensor (fairseq, TrOCR)."""
    half = size // 2
    rates = torch.exp(torch.arange(half, device=positions.device) * -(math.log(10_000) / (half - 1)))  # (half,)
    angles = positions[..., None] * rates  # (R, T, half)
    vectors = torch.cat([angles.sin(), angles.cos()], dim=-1)
    return nn.functional.pad(vectors, (0, size - 2 * half))


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
