"""The prompt encoder: image tokens and a prompt become what the decoder attends to (BART's encoder; Lewis et al. 2020).

Knows token ids and image tokens, not words or tasks.

Shapes: B images, S image tokens, T prompt tokens, C hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.attention import MultiHeadAttention
from model.config import PromptEncoderConfig
from model.cpu import pack_linears
from model.errors import TextError
from model.layers import make_activation


class PromptEncoderLayer(nn.Module):
    """Self-attention and a two-layer perceptron, each with a residual and a layer norm after it."""

    def __init__(self, config: PromptEncoderConfig, hidden_size: int) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(hidden_size, config.num_heads)
        self.attention_norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, config.intermediate_size),
            make_activation(config.activation),
            nn.Linear(config.intermediate_size, hidden_size),
        )
        self.mlp_norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, S+T, C) -> (B, S+T, C)."""
        output, _ = self.attention.attend(*self.attention.project_self(tokens))
        tokens = self.attention_norm(tokens + output)
        return self.mlp_norm(tokens + self.mlp(tokens))


class PromptEncoder(nn.Module):
    """A bidirectional transformer over the image tokens and, after them, the tokens of a prompt."""

    def __init__(self, config: PromptEncoderConfig, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        self.position_embedding = nn.Embedding(config.position_offset + config.max_positions, hidden_size)
        self.embedding_norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(PromptEncoderLayer(config, hidden_size) for _ in range(config.num_layers))

    @property
    def dtype(self) -> torch.dtype:
        return self.position_embedding.weight.dtype

    def forward(self, image_tokens: Tensor, prompts: Tensor) -> Tensor:
        """Image tokens (B, S, C) and embedded prompts (B, T, C) -> (B, S+T, C). Raises TextError if they are too many."""
        tokens = torch.cat([image_tokens, prompts * self.config.embedding_scale], dim=1)
        if tokens.size(1) > self.config.max_positions:
            limit = self.config.max_positions - image_tokens.size(1)
            raise TextError(f"the prompt has {prompts.size(1)} tokens; this checkpoint has room for {limit}: send a shorter text")
        positions = torch.arange(tokens.size(1), device=tokens.device) + self.config.position_offset
        tokens = self.embedding_norm(tokens + self.position_embedding(positions))
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens

    def pack(self) -> None:
        """Put every linear layer into the layout of bfloat16 matrix units (model/cpu.py)."""
        for layer in self.layers:
            assert isinstance(layer, PromptEncoderLayer), "one of its own layers"
            layer.attention.fuse()
        pack_linears(self, activations=True)


def groups_by_length(prompts: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Return the indices of prompts of equal length, shortest first: they are encoded together, without padding."""
    lengths = sorted({len(ids) for ids in prompts})
    return [[index for index, ids in enumerate(prompts) if len(ids) == length] for length in lengths]
