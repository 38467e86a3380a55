"""Cross-attention by hand: the worked examples of docs/attention.md, computed with the project's MultiHeadAttention.

    python -m examples.cross_attention          writes docs/images/*.svg

tests/test_examples.py checks every number here. Shapes: T output words, S input words, C embedding size.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model import MultiHeadAttention
from report import sequence_map

FIGURES_FOLDER = Path(__file__).parents[1] / "docs/images"


@dataclass(frozen=True, slots=True)
class AttentionExample:
    """Output words, input words, and attention weights (T, S): each row says how much each input word contributes."""

    name: str
    title: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]


CROSS = AttentionExample(
    "cross-attention",
    "Cross-attention: every Hindi word is a weighted sum of the English ones",
    ("हम", "दोस्त", "हैं"),
    ("we", "are", "friends"),
    ((0.5, 0.3, 0.2), (0.2, 0.2, 0.6), (0.3, 0.4, 0.3)),
)
SELF = AttentionExample(
    "self-attention",
    "Self-attention: every English word is a weighted sum of its own sentence",
    ("we", "are", "friends"),
    ("we", "are", "friends"),
    ((0.8, 0.1, 0.1), (0.15, 0.75, 0.1), (0.2, 0.1, 0.7)),
)
# A translation: its third word is predicted from मुझे आइसक्रीम (self-attention) and the English sentence (cross-attention).
# The weights are chosen by hand: each Hindi word attends to the English word that it translates.
TRANSLATION = AttentionExample(
    "translation",
    "I like eating ice-cream → मुझे आइसक्रीम खाना पसंद है",
    ("मुझे", "आइसक्रीम", "खाना", "पसंद", "है"),
    ("I", "like", "eating", "ice-cream"),
    (
        (0.82, 0.10, 0.04, 0.04),
        (0.04, 0.05, 0.11, 0.80),
        (0.05, 0.10, 0.75, 0.10),
        (0.06, 0.80, 0.08, 0.06),
        (0.20, 0.55, 0.13, 0.12),
    ),
)
EXAMPLES = (CROSS, SELF, TRANSLATION)


def attention_of(example: AttentionExample, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Compute an example with MultiHeadAttention from the embeddings (S, C) of its input words, C >= S.

    Queries and keys are chosen so that the scaled dot products are the logarithms of the weights; values and output are passed
    through unchanged. Returns the contextual embeddings (T, C) of the output words and the attention weights (T, S).
    """
    weights = torch.tensor(example.weights, dtype=torch.float64)  # (T, S)
    outputs, inputs = weights.shape  # T, S
    size = embeddings.size(1)
    assert size >= inputs, "the key of each input word needs a separate dimension"
    attention = MultiHeadAttention(size, num_heads=1).double().eval()
    with torch.no_grad():
        for part in (attention.query, attention.key, attention.value, attention.out):
            part.weight.copy_(torch.eye(size))
            part.bias.zero_()
        queries = torch.zeros(1, outputs, size, dtype=torch.float64)
        queries[0, :, :inputs] = weights.log() * math.sqrt(size)
        keys = torch.zeros(1, 1, inputs, size, dtype=torch.float64)
        keys[0, 0, :, :inputs] = torch.eye(inputs)
        _, values = attention.project(embeddings.double()[None])
        contextual, attention_weights = attention(queries, keys, values, weights=True)
    assert attention_weights is not None, "weights were requested"
    return contextual[0], attention_weights[0, 0]


def multiplicative_scores(queries: Tensor, keys: Tensor, matrix: Tensor) -> Tensor:
    """Return q W k for every pair (Luong et al. 2015, section 3.1, "general"): (T, C), (S, C), (C, C) -> (T, S)."""
    return queries @ matrix @ keys.T


def additive_scores(queries: Tensor, keys: Tensor, query_matrix: Tensor, key_matrix: Tensor, vector: Tensor) -> Tensor:
    """Return v tanh(W q + U k) for every pair (Bahdanau et al. 2015, appendix A.1.2): -> (T, S)."""
    hidden = torch.tanh((queries @ query_matrix.T)[:, None] + (keys @ key_matrix.T)[None])  # (T, S, C)
    return hidden @ vector


def write_figures(folder: Path, examples: Sequence[AttentionExample] = EXAMPLES) -> list[Path]:
    """Write one SVG per example; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for example in examples:
        file = folder / f"{example.name}.svg"
        svg = sequence_map(example.title, example.outputs, example.inputs, example.weights)
        file.write_text(svg, encoding="utf-8")
        files.append(file)
    return files


def main() -> int:
    """Write the figures of docs/attention.md, including the learned translation."""
    from examples.translation import learned_example  # here, not at the top: it imports this module

    for file in write_figures(FIGURES_FOLDER, (*EXAMPLES, learned_example())):
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
