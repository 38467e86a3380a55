"""A toy translation, learnt in under a minute: English to Hindi by our TextDecoder over a text encoder.

Nobody tells it which words belong together; its cross-attention finds out. The sentences are "I/we/you/they like/want
doing/… something": verb and object change places between the two languages, so a diagonal would be wrong.

Shapes: B sentences, S English words, T Hindi words, C width.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from docs.notes import Example
from model import DecoderConfig, MultiHeadAttention, TextDecoder

_SUBJECTS = {"I": "मुझे", "we": "हमें", "you": "तुम्हें", "they": "उन्हें"}
_LIKINGS = {"like": "पसंद", "need": "ज़रूरी"}
_DOINGS = {"eating": "खाना", "making": "बनाना", "buying": "खरीदना", "seeing": "देखना", "bringing": "लाना"}
_THINGS = {
    "ice-cream": "आइसक्रीम",
    "bread": "रोटी",
    "fruit": "फल",
    "tea": "चाय",
    "rice": "चावल",
    "sweets": "मिठाई",
}
_COPULA = "है"
_WIDTH = 48
_STEPS = 260


@dataclass(frozen=True, slots=True)
class Pair:
    """A sentence and its translation; links[t] is the English word that Hindi word t renders (है goes with the verb)."""

    english: tuple[str, ...]
    hindi: tuple[str, ...]
    links: tuple[int, ...]


def sentences() -> list[Pair]:
    """Return all the 240 sentences in a fixed order.

    English: subject, verb, doing, thing; Hindi: subject, thing, doing, verb and है.
    """
    pairs = [
        Pair(
            (subject, liking, doing, thing),
            (_SUBJECTS[subject], _THINGS[thing], _DOINGS[doing], _LIKINGS[liking], _COPULA),
            (0, 3, 2, 1, 1),
        )
        for subject, liking, doing, thing in itertools.product(_SUBJECTS, _LIKINGS, _DOINGS, _THINGS)
    ]
    random.Random(0).shuffle(pairs)
    return pairs


class Translator(nn.Module):
    """A text encoder of one self-attention layer, and our TextDecoder reading it as it would read image tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.english = sorted({word for pair in sentences() for word in pair.english})
        self.hindi = ["<pad>", "<start>", "<end>", *sorted({word for pair in sentences() for word in pair.hindi})]
        self.embedding = nn.Embedding(len(self.english), _WIDTH)
        self.positions = nn.Parameter(torch.randn(8, _WIDTH) * 0.02)
        self.norm = nn.LayerNorm(_WIDTH)
        self.attention = MultiHeadAttention(_WIDTH, num_heads=2)
        config = DecoderConfig(
            vocab_size=len(self.hindi), hidden_size=_WIDTH, num_layers=1, num_heads=1, intermediate_size=96, max_positions=8, encoder_hidden_size=_WIDTH,
            null_key=False,
        )  # fmt: skip
        self.decoder = TextDecoder(config)

    def encode(self, english: Tensor) -> Tensor:
        """English ids (B, S) -> contextual embeddings (B, S, C): as many as there are words."""
        tokens = self.embedding(english) + self.positions[: english.size(1)]
        normed = self.norm(tokens)
        mixed, _ = self.attention(normed, *self.attention.project(normed))
        return tokens + mixed

    def forward(self, english: Tensor, hindi: Tensor, *, weights: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Score Hindi ids (B, T) over English ids (B, S): logits (B, T, V), cross-attention weights if asked for."""
        state = self.decoder.start(self.encode(english), tuple(range(english.size(0))))
        logits, seen, _ = self.decoder(hindi, state, weights=weights)
        return logits, seen

    def ids(self, pairs: list[Pair]) -> tuple[Tensor, Tensor, Tensor]:
        """Return English ids (B, S), Hindi inputs and targets (B, T)."""
        english = torch.tensor([[self.english.index(word) for word in pair.english] for pair in pairs])
        hindi = torch.tensor([[1, *(self.hindi.index(word) for word in pair.hindi), 2] for pair in pairs])
        return english, hindi[:, :-1], hindi[:, 1:]

    @torch.no_grad()
    def translate(self, english: tuple[str, ...]) -> tuple[list[str], Tensor]:
        """Translate greedily; returns the Hindi words and the map (T, S): where each word looked when it was chosen."""
        source = torch.tensor([[self.english.index(word) for word in english]])
        state = self.decoder.start(self.encode(source), (0,))
        token = 1
        words: list[str] = []
        rows: list[Tensor] = []
        while len(words) < 7:
            logits, (seen,), state = self.decoder(torch.tensor([[token]]), state, weights=True)
            token = int(logits[0, -1].argmax())
            if token == 2:
                break
            words.append(self.hindi[token])
            rows.append(seen[0, 0, 0])
        return words, torch.stack(rows)


def learn(pairs: list[Pair], seed: int = 0) -> Translator:
    """Teach a translator by teacher forcing; some seconds on one core."""
    torch.manual_seed(seed)
    translator = Translator()
    optimiser = torch.optim.AdamW(translator.parameters(), lr=4e-3)
    dice = random.Random(seed)
    for _ in range(_STEPS):
        english, inputs, targets = translator.ids(dice.sample(pairs, 48))
        logits, _ = translator(english, inputs)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return translator.eval()


def learnt_example() -> Example:
    """Return the notes' own sentence, translated by a translator that never saw it, with the weights that it learnt."""
    wanted = ("I", "like", "eating", "ice-cream")
    translator = learn([pair for pair in sentences() if pair.english != wanted])
    words, rows = translator.translate(wanted)
    weights = tuple(tuple(row) for row in rows.tolist())
    return Example("translation-learnt", "The same sentence: weights that a small network learnt", tuple(words), wanted, weights)
