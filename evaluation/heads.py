"""Selection of the attention heads whose map points best, on objects whose position is known.

Heads are added one by one, each time the head that improves pointing most, until no head improves it (few heads of a decoder
localize; Kang et al. 2025, "Your large vision-language model only needs a few attention heads"). A selection is judged on
exactly the map that is served: the method `attention` (model/maps) merges the heads of each token, `word_map` the tokens.

Shapes: D heads of all layers, N words, T tokens of all words, P patches.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from corpus import Example, Scene, captions_of
from evaluation.generation import png_bytes
from evaluation.pointing import class_masks
from evaluation.synonyms import find_class_mention
from model import LOCAL_IMAGE_LIMITS, Captioner, ImageLimits, MapConfig, decode_image, merge_heads, prefix_ids, prepare, word_map

SELECTION_SERIES = 4  # scenes that are not used in training, validation or tests


@dataclass(frozen=True, slots=True)
class HeadRows:
    """Attention rows of every head for the words that name an object, on the CPU.

    rows (D, T, P): every head's attention for every token of the words; tokens_of[n] are the tokens of word n. overlaps (N, P)
    bool: the patches that the word's object overlaps. weights (N,): every object of an image has a total weight of 1, however
    many words name it.
    """

    rows: Tensor
    tokens_of: tuple[tuple[int, ...], ...]
    overlaps: Tensor
    weights: Tensor
    heads_per_layer: int

    @property
    def num_heads(self) -> int:
        """Heads of all layers, D."""
        return self.rows.size(0)

    @property
    def num_words(self) -> int:
        """Words that name an object, N."""
        return len(self.tokens_of)

    def word_maps(self, heads: Sequence[int], config: MapConfig) -> Tensor:
        """Return the served map of every word for a selection of heads, (N, P)."""
        merged = merge_heads(self.rows[list(heads)], config)  # (T, P)
        return torch.stack([word_map(merged[list(tokens)]).values for tokens in self.tokens_of])

    def pointing(self, heads: Sequence[int], config: MapConfig) -> float:
        """Return the share of objects that overlap the peak of the map of these heads."""
        peaks = self.word_maps(heads, config).argmax(-1)  # (N,)
        hits = self.overlaps[torch.arange(len(peaks)), peaks].float()
        return ((hits * self.weights).sum() / self.weights.sum()).item()


@dataclass(frozen=True, slots=True)
class NamedObjects:
    """The bytes of an image, its captions, and their words that name an object."""

    image: bytes
    captions: tuple[str, ...]
    words: tuple[tuple[int, int, Tensor], ...]  # index of the caption, offset in its text, mask (height, width) bool
    limits: ImageLimits = LOCAL_IMAGE_LIMITS


def objects_of_scenes(scenes: Sequence[Scene]) -> list[NamedObjects]:
    """Return the names of shapes in the exact captions of scenes, with the masks of the shapes."""
    named = []
    for scene in scenes:
        caption = captions_of(scene, random.Random(0))[0]
        words = tuple((0, word.start, torch.from_numpy(scene.objects[word.object].mask)) for word in caption.words)
        named.append(NamedObjects(png_bytes(scene.render()), (caption.text,), words))
    return named


def objects_of_images(examples: Sequence[Example]) -> list[NamedObjects]:
    """Return the words of human captions that name a boxed class, with the boxes of the class."""
    named = []
    for example in examples:
        masks = class_masks(example, decode_image(example.read(), example.image_limits).upright_size)
        words = tuple(
            (index, offset, mask)
            for index, text in enumerate(example.references)
            for name, mask in masks.items()
            if (offset := find_class_mention(name, text)) is not None
        )
        if words:
            named.append(NamedObjects(example.read(), example.references, words, example.image_limits))
    return named


@torch.inference_mode()
def compute_head_rows(captioner: Captioner, named: Sequence[NamedObjects]) -> HeadRows:
    """Compute every head's attention row for every token of the words that name an object, on the captioner's device."""
    runtime, tokenizer, config = captioner.runtime, captioner.tokenizer, captioner.config
    special, pad = prefix_ids(config, tokenizer).special, config.decoder.pad_token_id
    rows: list[Tensor] = []
    tokens_of, overlaps, weights = [], [], []
    for entry in tqdm(named, desc="heads", leave=False):
        features = runtime.encode(prepare(entry.image, config.image, entry.limits).pixels[None])
        ids = [tokenizer.encode(text) for text in entry.captions]
        longest = max(map(len, ids))
        padded = [[*special, *row, *[pad] * (longest - len(row))] for row in ids]
        inputs = torch.tensor(padded, device=runtime.device)  # (R, T)
        _, attention, _ = runtime.decode(inputs, runtime.start(features, (0,) * len(ids)), weights=True)
        first = features.num_prefix_tokens
        patches = torch.cat(attention, dim=1)[..., first : first + features.grid.num_patches].cpu()  # (R, D, T, P)
        size = (features.grid.rows, features.grid.columns)
        named_by = Counter(id(mask) for _, _, mask in entry.words)
        for index, offset, mask in entry.words:
            spans = [span for span in tokenizer.words(ids[index]) if span.start <= offset < span.end]
            if spans:
                positions = [len(special) - 1 + token for token in spans[0].tokens]
                done = sum(row.size(1) for row in rows)
                rows.append(patches[index, :, positions])  # (D, tokens, P)
                tokens_of.append(tuple(range(done, done + len(positions))))
                shares = torch.nn.functional.adaptive_avg_pool2d(mask[None, None].float(), size).flatten()
                overlaps.append(shares > 0)
                weights.append(1 / named_by[id(mask)])
    return HeadRows(
        torch.cat(rows, dim=1), tuple(tokens_of), torch.stack(overlaps), torch.tensor(weights), config.decoder.num_heads
    )


def select_heads(data: Sequence[HeadRows], config: MapConfig, max_heads: int = 8) -> tuple[list[tuple[int, int]], list[float]]:
    """Return the selected (layer, head) pairs, and the pointing accuracy of their map, as `config` computes it, on each set."""

    def score(heads: Sequence[int]) -> float:
        return sum(rows.pointing(heads, config) for rows in data) / len(data)

    selected: list[int] = []
    best = 0.0
    while len(selected) < max_heads:
        rest = [head for head in range(data[0].num_heads) if head not in selected]
        top, head = max((score([*selected, head]), -head) for head in rest)
        if top <= best + 1e-4:
            break
        best = top
        selected.append(-head)
    # The order of config.json: the rounding of a mean depends on it.
    selected.sort()
    pairs = [divmod(head, data[0].heads_per_layer) for head in selected]
    return pairs, [rows.pointing(selected, config) for rows in data]
