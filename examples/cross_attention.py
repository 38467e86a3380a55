"""The notes behind this project, as code: the numbers they work through by hand, and the pictures of docs/attention.md.

    python -m docs.notes          writes docs/pictures/*.svg

tests/test_notes.py runs every number here through the real MultiHeadAttention.
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

PICTURES = Path(__file__).parent / "pictures"


@dataclass(frozen=True, slots=True)
class Example:
    """Output words, input words, and the weights (outputs, inputs) by which the first are made of the second."""

    name: str
    title: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]


CROSS = Example(
    "cross-attention",
    "Cross-attention: every Hindi word is a weighted sum of the English ones",
    ("हम", "दोस्त", "हैं"),
    ("we", "are", "friends"),
    ((0.5, 0.3, 0.2), (0.2, 0.2, 0.6), (0.3, 0.4, 0.3)),
)
SELF = Example(
    "self-attention",
    "Self-attention: every English word is a weighted sum of its own sentence",
    ("we", "are", "friends"),
    ("we", "are", "friends"),
    ((0.8, 0.1, 0.1), (0.15, 0.75, 0.1), (0.2, 0.1, 0.7)),
)
# The translation whose third word is predicted from मुझे आइसक्रीम (self-attention) and the English sentence
# (cross-attention). The weights are drawn, as in the notes: each Hindi word looks at the English word that it renders.
TRANSLATION = Example(
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


def attention_of(example: Example, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Run an example's weights through the real MultiHeadAttention.

    embeddings (S, C) of the input words. The queries and keys are chosen so that the scores of the scaled dot products
    are the logarithms of the weights; values and output are passed through unchanged. Returns the contextual embeddings
    (T, C), one for each output word, and the attention weights (T, S).
    """
    weights = torch.tensor(example.weights, dtype=torch.float64)  # (T, S)
    outputs, inputs = weights.shape
    width = embeddings.size(1)
    assert width >= inputs, "a key for each input word needs a dimension of its own"
    attention = MultiHeadAttention(width, num_heads=1).double().eval()
    with torch.no_grad():
        for part in (attention.query, attention.key, attention.value, attention.out):
            part.weight.copy_(torch.eye(width))
            part.bias.zero_()
        queries = torch.zeros(1, outputs, width, dtype=torch.float64)
        queries[0, :, :inputs] = weights.log() * math.sqrt(width)
        keys = torch.zeros(1, 1, inputs, width, dtype=torch.float64)
        keys[0, 0, :, :inputs] = torch.eye(inputs)
        _, values = attention.project(embeddings.double()[None])
        mixed, seen = attention(queries, keys, values, weights=True)
    assert seen is not None, "weights were asked for"
    return mixed[0], seen[0, 0]


def multiplicative_scores(queries: Tensor, keys: Tensor, matrix: Tensor) -> Tensor:
    """Return q W k for every pair (Luong et al. 2015, section 3.1, "general"): (T, C), (S, C), (C, C) -> (T, S)."""
    return queries @ matrix @ keys.T


def additive_scores(queries: Tensor, keys: Tensor, query_matrix: Tensor, key_matrix: Tensor, vector: Tensor) -> Tensor:
    """Return v tanh(W q + U k) for every pair (Bahdanau et al. 2015, appendix A.1.2): -> (T, S)."""
    hidden = torch.tanh((queries @ query_matrix.T)[:, None] + (keys @ key_matrix.T)[None])  # (T, S, C)
    return hidden @ vector


def draw(folder: Path, examples: Sequence[Example] = EXAMPLES) -> list[Path]:
    """Write one SVG an example; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for example in examples:
        file = folder / f"{example.name}.svg"
        picture = sequence_map(example.title, example.outputs, example.inputs, example.weights)
        file.write_text(picture, encoding="utf-8")
        files.append(file)
    return files


def main() -> int:
    """Draw the pictures of docs/attention.md, the learnt translation included."""
    from docs.translation import learnt_example

    for file in draw(PICTURES, (*EXAMPLES, learnt_example())):
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
