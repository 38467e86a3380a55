"""A small translation network, trained in under a minute: English to Hindi with the project's TextDecoder over a text encoder.

Its cross-attention learns which words correspond, without labels for it. The sentences are "I/we/you/they like/need doing
something": verb and object swap positions between the two languages, so a diagonal map would be wrong.

Shapes: B sentences, S English words, T Hindi words, C hidden size, V Hindi vocabulary.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from examples.cross_attention import AttentionExample
from model import DecoderConfig, MultiHeadAttention, TextDecoder

_SUBJECTS = {"I": "मुझे", "we": "हमें", "you": "तुम्हें", "they": "उन्हें"}
_VERBS = {"like": "पसंद", "need": "ज़रूरी"}
_ACTIVITIES = {"eating": "खाना", "making": "बनाना", "buying": "खरीदना", "seeing": "देखना", "bringing": "लाना"}
_OBJECTS = {
    "ice-cream": "आइसक्रीम",
    "bread": "रोटी",
    "fruit": "फल",
    "tea": "चाय",
    "rice": "चावल",
    "sweets": "मिठाई",
}
_COPULA = "है"
_HIDDEN_SIZE = 48
_NUM_STEPS = 260
_BATCH_SIZE = 48


@dataclass(frozen=True, slots=True)
class SentencePair:
    """A sentence and its translation; links[t] is the English word of Hindi word t (for है the verb)."""

    english: tuple[str, ...]
    hindi: tuple[str, ...]
    links: tuple[int, ...]


def sentences() -> list[SentencePair]:
    """Return all 240 sentences in a fixed order.

    English: subject, verb, activity, object; Hindi: subject, object, activity, verb and है.
    """
    pairs = [
        SentencePair(
            (subject, verb, activity, thing),
            (_SUBJECTS[subject], _OBJECTS[thing], _ACTIVITIES[activity], _VERBS[verb], _COPULA),
            (0, 3, 2, 1, 1),
        )
        for subject, verb, activity, thing in itertools.product(_SUBJECTS, _VERBS, _ACTIVITIES, _OBJECTS)
    ]
    random.Random(0).shuffle(pairs)
    return pairs


class Translator(nn.Module):
    """A text encoder of one self-attention layer, and a TextDecoder over its output instead of image tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.english = sorted({word for pair in sentences() for word in pair.english})
        self.hindi = ["<pad>", "<start>", "<end>", *sorted({word for pair in sentences() for word in pair.hindi})]
        self.embedding = nn.Embedding(len(self.english), _HIDDEN_SIZE)
        self.positions = nn.Parameter(torch.randn(8, _HIDDEN_SIZE) * 0.02)
        self.norm = nn.LayerNorm(_HIDDEN_SIZE)
        self.attention = MultiHeadAttention(_HIDDEN_SIZE, num_heads=2)
        config = DecoderConfig(
            vocab_size=len(self.hindi),
            hidden_size=_HIDDEN_SIZE,
            num_layers=1,
            num_heads=1,
            intermediate_size=96,
            max_positions=8,
            encoder_hidden_size=_HIDDEN_SIZE,
            null_key=False,
        )
        self.decoder = TextDecoder(config)

    def encode(self, english: Tensor) -> Tensor:
        """Return the contextual embeddings (B, S, C) of English ids (B, S)."""
        tokens = self.embedding(english) + self.positions[: english.size(1)]
        normed = self.norm(tokens)
        attended, _ = self.attention(normed, *self.attention.project(normed))  # (B, S, C)
        return tokens + attended

    def forward(self, english: Tensor, hindi: Tensor, *, weights: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return logits (B, T, V) of Hindi ids (B, T) given English ids (B, S), and cross-attention weights if `weights`."""
        state = self.decoder.start(self.encode(english), tuple(range(english.size(0))))
        logits, attention, _ = self.decoder(hindi, state, weights=weights)
        return logits, attention

    def ids(self, pairs: list[SentencePair]) -> tuple[Tensor, Tensor, Tensor]:
        """Return English ids (B, S), Hindi inputs and targets (B, T)."""
        english = torch.tensor([[self.english.index(word) for word in pair.english] for pair in pairs])
        hindi = torch.tensor([[1, *(self.hindi.index(word) for word in pair.hindi), 2] for pair in pairs])
        return english, hindi[:, :-1], hindi[:, 1:]

    @torch.no_grad()
    def translate(self, english: tuple[str, ...]) -> tuple[list[str], Tensor]:
        """Translate greedily; returns the Hindi words and the attention map (T, S) of their predictions."""
        source = torch.tensor([[self.english.index(word) for word in english]])
        state = self.decoder.start(self.encode(source), (0,))
        token = 1
        words: list[str] = []
        rows: list[Tensor] = []
        while len(words) < 7:
            logits, (attention,), state = self.decoder(torch.tensor([[token]]), state, weights=True)
            token = int(logits[0, -1].argmax())
            if token == 2:
                break
            words.append(self.hindi[token])
            rows.append(attention[0, 0, 0])
        return words, torch.stack(rows)


def train_translator(pairs: list[SentencePair], seed: int = 0) -> Translator:
    """Train a translator with teacher forcing; takes some seconds on one core."""
    torch.manual_seed(seed)
    translator = Translator()
    optimizer = torch.optim.AdamW(translator.parameters(), lr=4e-3)
    rng = random.Random(seed)
    for _ in range(_NUM_STEPS):
        english, inputs, targets = translator.ids(rng.sample(pairs, _BATCH_SIZE))
        logits, _ = translator(english, inputs)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return translator.eval()


def learned_example() -> AttentionExample:
    """Return the example sentence, translated by a network that was trained without it, with the weights that it learned."""
    english = ("I", "like", "eating", "ice-cream")
    translator = train_translator([pair for pair in sentences() if pair.english != english])
    words, rows = translator.translate(english)
    weights = tuple(tuple(row) for row in rows.tolist())
    title = "The same sentence: weights that a small network learned"
    return AttentionExample("translation-learnt", title, tuple(words), english, weights)
