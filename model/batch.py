"""Captions in the making: pictures join, step together and leave, whatever options each of them has.

What a service's scheduler drives; Captioner.caption is the same for one call. Not shared between threads.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

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
        """Encode pictures together and begin their captions. Raises TextError, with nothing added, for a text too long."""
        hypotheses = [None if entry.options else [self._captioner.written(entry.text)] for entry in wanted]
        started = time.perf_counter()
        features = self._captioner.encode([entry.view for entry in wanted])
        state = self._captioner.start(features)
        took = 1e3 * (time.perf_counter() - started)
        searched = [place for place, entry in enumerate(wanted) if entry.options is not None]
        if searched:
            options = [entry.options for entry in wanted if entry.options is not None]
            with torch.inference_mode():
                self._generation.add(
                    features.select(searched), [keys[place] for place in searched], options, state.select(searched)
                )
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
        words = self._captioner.final_words(self._generation.agreed(key), begun.told, lambda found: self._captions(begun, found))
        begun.told += len(words)
        return words

    def read(self, key: Hashable) -> ImageCaptions:
        """Return a picture's captions with their maps; it leaves the batch."""
        begun = self._begun.pop(key)
        assert begun.found is not None, "it is still being searched for"
        wanted, started = begun.wanted, time.perf_counter()
        captions = self._captions(begun, begun.found)
        done = time.perf_counter()
        decoding = 1e3 * (started - begun.began) if wanted.options is not None else 0.0
        return ImageCaptions(tuple(captions), begun.features.grid, Timing(begun.encode_ms, decoding, 1e3 * (done - started)))

    def _captions(self, begun: _Begun, found: list[Hypothesis]) -> list[Caption]:
        wanted = begun.wanted
        given = [[wanted.text]] if wanted.options is None else wanted.options.prompt
        (captions,) = self._captioner.read_out(
            begun.features, [wanted.view], [found], given, begun.state, maps=wanted.maps, reliance=wanted.reliance
        )
        return captions
