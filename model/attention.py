"""Attention: queries from one sequence, keys and values from the same (self) or another one (cross).

`attention_weights` is the formula; the fused kernel computes the same output without returning the weights.
Scaled dot products: Vaswani et al. 2017, section 3.2.1; earlier forms are Bahdanau et al. 2015 (additive scores)
and Luong et al. 2015 (multiplicative scores).

Shapes: R rows of a batch (captions, or images), T query positions, S key positions, H heads, K head size, C hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_HALF = (torch.bfloat16, torch.float16)


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return softmax attention of each query position over the key positions.

    query (R, H, T, K), key (R, H, S, K), mask broadcastable to (R, H, T, S), bool with True = may attend.
    Returns (R, H, T, S); the last axis sums to 1. Every query needs one allowed key.
    """
    # The query is scaled, not the product: in float16 the product of unscaled ones can overflow.
    scores = (query / query.size(-1) ** 0.5) @ key.transpose(-2, -1)  # (R, H, T, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    # In half precision a row of 577 weights would not sum to 1.
    return scores.softmax(dim=-1, dtype=torch.float32 if scores.dtype in _HALF else None)


class MultiHeadAttention(nn.Module):
    """Multi-head attention, self or cross: that depends on the sequence given to `project`.

    With `null_key` a learned key and value are appended to the source's own (the last column of the weights):
    they take the attention that needs nothing from the source.
    """

    def __init__(self, hidden_size: int, num_heads: int, source_size: int | None = None, *, null_key: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(source_size or hidden_size, hidden_size)
        self.value = nn.Linear(source_size or hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)
        self.qkv: nn.Linear | None = None  # query, key and value in one product, for inference
        head_size = hidden_size // num_heads
        self.null_key = nn.Parameter(torch.zeros(num_heads, 1, head_size)) if null_key else None  # (H, 1, K)
        self.null_value = nn.Parameter(torch.zeros(num_heads, 1, head_size)) if null_key else None

    @torch.no_grad()
    def init_null_key(self, score: float) -> None:
        """Initialize the null key so that every query starts by scoring it with `score`.

        With S other keys around 0 the null key then takes e^score / (e^score + S) of the attention, and the image has to
        exceed it; initialized with 0 it would take 1 / (S + 1), and training never uses it (docs/decisions.md).
        """
        assert self.null_key is not None, "there is no null key"
        nn.init.normal_(self.query.bias, std=0.5)
        bias = self.query.bias.unflatten(0, (self.num_heads, 1, -1))  # (H, 1, K)
        head_size = bias.size(-1)
        self.null_key.copy_(bias * (score * head_size**0.5 / bias.square().sum(-1, keepdim=True)))

    def project(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (R, H, S, K) of source (R, S, source size); S grows by one with a null key."""
        key, value = self._split(self.key(source)), self._split(self.value(source))
        if self.null_key is not None and self.null_value is not None:
            rows = key.size(0)
            key = torch.cat([key, self.null_key.to(key.dtype).expand(rows, -1, -1, -1)], dim=2)  # (R, H, S+1, K)
            value = torch.cat([value, self.null_value.to(value.dtype).expand(rows, -1, -1, -1)], dim=2)
        return key, value

    def fuse(self) -> None:
        """Replace a self-attention's query, key and value projections by one product: fewer calls per step."""
        parts = [self.query, self.key, self.value]
        weight = self.query.weight
        self.qkv = nn.Linear(self.query.in_features, 3 * self.query.out_features, dtype=weight.dtype, device=weight.device)
        with torch.no_grad():
            self.qkv.weight.copy_(torch.cat([part.weight for part in parts]))
            self.qkv.bias.copy_(torch.cat([part.bias for part in parts]))
        del self.query, self.key, self.value

    def project_self(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a self-attention's query, key and value (R, H, T, K) of tokens (R, T, C)."""
        if self.qkv is None:
            return self._split(self.query(tokens)), *self.project(tokens)
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        return self._split(query), self._split(key), self._split(value)

    def forward(
        self, tokens: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the outputs (R, T, C), one per query position, and the weights (R, H, T, S) if `weights`, else None.

        tokens (R, T, C), key and value (R, H, S, K) from `project`, mask as in `attention_weights`.
        """
        return self.attend(self._split(self.query(tokens)), key, value, mask, weights=weights)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Like `forward`, for a query (R, H, T, K) that is already projected."""
        if weights or (self.training and query.device.type == "cpu"):
            # In training on a CPU the explicit products are used: the fused kernel's backward is slower (docs/decisions.md).
            attention = attention_weights(query, key, mask)  # (R, H, T, S)
            attended = attention.to(value.dtype) @ value
        else:
            attention = None
            attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        output = self.out(attended.transpose(1, 2).flatten(2))  # (R, T, C)
        return output, attention if weights else None

    def _split(self, tokens: Tensor) -> Tensor:
        """(R, S, C) -> (R, H, S, K)."""
        return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
