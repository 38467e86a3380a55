"""Captions in the making: pictures join, step together and leave, whatever options each of them has.

What a service's scheduler drives; Captioner.caption is the same for one call. Not shared between threads.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch

from model.captioner import Caption, Captioner, ImageCaptions, Timing, Word
from model.config import GenerationOptions
from model.decoding import Generation
from model.encoder import ImageFeatures
from model.geometry import ImageView
from model.search import Hypothesis
from model.state import DecoderState


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a picture: a caption by `options`, or the reading of `text` that somebody else wrote."""

    view: ImageView
    options: GenerationOptions | None = None
    text: str = ""
    maps: bool = True
    reliance: bool = True

    @property
    def rows(self) -> int:
        """Rows that it takes of a step."""
        return 0 if self.options is None else self.options.rows


@dataclass(slots=True)
class _Begun:
    wanted: Wanted
    features: ImageFeatures  # of this picture alone
    state: DecoderState  # its cross keys and values
    encode_ms: float
    began: float
    found: list[Hypothesis] | None = None
    told: int = 0  # words that fresh_words has returned


class CaptionBatch:
    """The pictures of one captioner whose captions are being made, each under a key of the caller's."""

    def __init__(self, captioner: Captioner) -> None:
        self._captioner = captioner
        self._generation: Generation = captioner.generation()
        self._begun: dict[Hashable, _Begun] = {}

    @property
    def rows(self) -> int:
        """Rows that step."""
        return self._generation.rows

    @property
    def keys(self) -> list[Hashable]:
        return list(self._begun)

    def add(self, keys: Sequence[Hashable], wanted: Sequence[Wanted]) -> None:
        """Encode pictures together and begin their captions. Raises TextError for a text too long; nothing is added then."""
        hypotheses = [None if entry.options else [self._captioner.written(entry.text)] for entry in wanted]
        started = time.perf_counter()
        features = self._captioner.encode([entry.view for entry in wanted])
        state = self._captioner.start(features)
        took = 1e3 * (time.perf_counter() - started)
        searched = [place for place, entry in enumerate(wanted) if entry.options is not None]
        if searched:
            options = [entry.options for entry in wanted if entry.options is not None]
            chosen = [keys[place] for place in searched]
            try:
                with torch.inference_mode():
                    self._generation.add(features.select(searched), chosen, options, state.select(searched))
            except BaseException:
                for key in set(chosen) & set(self._generation.keys):  # those whose prompts are shorter have begun
                    self._generation.remove(key)
                raise
        now = time.perf_counter()
        for place, (key, entry) in enumerate(zip(keys, wanted, strict=True)):
            alone = (features.select([place]), state.select([place])) if len(wanted) > 1 else (features, state)
            self._begun[key] = _Begun(entry, *alone, took, now, hypotheses[place])

    def remove(self, key: Hashable) -> None:
        """Drop a picture that nobody waits for; its rows are gone before the next step."""
        begun = self._begun.pop(key)
        if begun.found is None:
            self._generation.remove(key)

    def step(self) -> list[Hashable]:
        """Score the newest token of every row; returns the keys whose captions are found and can be read."""
        if self._generation.rows:
            with torch.inference_mode():
                for key, found in self._generation.step().items():
                    self._begun[key].found = found
        return [key for key, begun in self._begun.items() if begun.found is not None]

    def fresh_words(self, key: Hashable) -> tuple[Word, ...]:
        """Return the words of a running caption that became final since this was last asked, none where several are sampled."""
        begun = self._begun[key]
        options = begun.wanted.options
        if begun.found is not None or options is None or (options.strategy == "sample" and options.count > 1):
            return ()
        words = self._captioner.final_words(
            self._generation.agreed(key), begun.told, lambda found: self._captions([begun], [found])[0]
        )
        begun.told += len(words)
        return words

    def read(self, keys: Sequence[Hashable]) -> list[ImageCaptions]:
        """Return the captions of pictures with their maps, of each in turn; they leave the batch.

        Four that are read together take little more time than two that are read one after the other.
        """
        alike: dict[tuple[bool, bool], list[Hashable]] = {}
        for key in keys:
            wanted = self._begun[key].wanted
            alike.setdefault((wanted.maps, wanted.reliance), []).append(key)
        found: dict[Hashable, ImageCaptions] = {}
        for group in alike.values():
            found |= self._read_alike(group)
        for key in keys:
            del self._begun[key]
        return [found[key] for key in keys]

    def _read_alike(self, keys: list[Hashable]) -> dict[Hashable, ImageCaptions]:
        group, started = [self._begun[key] for key in keys], time.perf_counter()
        captions = self._captions(group, [begun.found for begun in group if begun.found is not None])
        took = 1e3 * (time.perf_counter() - started)
        read: dict[Hashable, ImageCaptions] = {}
        for key, begun, texts in zip(keys, group, captions, strict=True):
            decoding = 1e3 * (started - begun.began) if begun.wanted.options is not None else 0.0
            read[key] = ImageCaptions(tuple(texts), begun.features.grid, Timing(begun.encode_ms, decoding, took))
        return read

    def _captions(self, group: Sequence[_Begun], found: Sequence[list[Hypothesis]]) -> list[list[Caption]]:
        """Return the captions of pictures that want the same of them."""
        wanted = [begun.wanted for begun in group]
        given = [[entry.text] if entry.options is None else entry.options.prompt for entry in wanted]
        return self._captioner.read_out(
            reduce(ImageFeatures.append, [begun.features for begun in group]),
            [entry.view for entry in wanted],
            found,
            given,
            reduce(DecoderState.append, [begun.state for begun in group]),
            maps=wanted[0].maps,
            reliance=wanted[0].reliance,
        )
