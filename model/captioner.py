"""Captioner, the front of the room: photographs in, captions with their words' maps out.

It keeps nothing between calls and may be shared by threads. All heavy work happens in the calling thread.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from model.checkpoint import DEFAULT_CHECKPOINT, Checkpoint, load_checkpoint
from model.config import GenerationOptions, ImageConfig, ModelConfig
from model.decoding import Generation
from model.encoder import ImageFeatures
from model.errors import TextError
from model.geometry import ImageView, PatchGrid
from model.hub import checkpoint_folder
from model.machine import DtypeName, Precision, choose_decoder_precision, choose_precision
from model.maps import WordMap, peak_box, word_map
from model.packed import can_pack, pack_linears
from model.replay import ReplayedCaption, replay
from model.search import Hypothesis
from model.state import DecoderState


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a caption: caption.text[start:end]. Map and box are None where no maps were asked for."""

    text: str
    start: int  # code points
    end: int
    log_probability: float  # nats, given the words before it and the image
    image_reliance: float | None  # nats lost when the image is replaced by none
    map: WordMap | None
    box: tuple[int, int, int, int] | None  # pixels of the photograph, around the map's peak

    @property
    def probability(self) -> float:
        return math.exp(self.log_probability)


@dataclass(frozen=True, slots=True)
class Caption:
    """A sentence, its words, and how probable it is; log_probability counts the end token where there is one."""

    text: str
    words: tuple[Word, ...]
    log_probability: float
    finish_reason: str  # "stop", or "length" where a limit of words or tokens ended it


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of a call, which all images of a batch share."""

    encode: float
    decode: float
    maps: float


@dataclass(frozen=True, slots=True)
class ImageCaptions:
    """The captions of one image, best first."""

    captions: tuple[Caption, ...]
    grid: PatchGrid
    timing: Timing


class Captioner:
    """A checkpoint made ready to caption photographs."""

    def __init__(self, checkpoint: Checkpoint, precision: Precision | None = None) -> None:
        """Take over the checkpoint's network; its encoder computes in `precision`.

        Its decoder computes in float32: a few rows of a small one gain nothing from bfloat16 (docs/decisions.md). A large
        one is tried.
        """
        self.precision = precision or Precision(torch.float32, "float32 as built")
        self.card = checkpoint.card
        self._tokenizer = checkpoint.tokenizer
        self._network = checkpoint.network.eval().requires_grad_(False)
        self.parameters = sum(value.numel() for value in self._network.parameters())  # numbers that the network has learnt
        decoder = choose_decoder_precision(self._network.decoder, self.precision)
        self._network.encoder.to(self.precision.dtype)
        self._network.decoder.to(decoder.dtype)
        if self.precision.dtype == torch.bfloat16 and can_pack():
            pack_linears(self._network.encoder)
        if decoder.dtype == torch.bfloat16:
            self._network.decoder.pack()
        self.precision = dataclasses.replace(self.precision, reason=f"{self.precision.reason}; decoder: {decoder.reason}")
        with torch.inference_mode():
            self._nothing = self._network.start(self._network.blank())

    @classmethod
    def load(cls, folder: Path = DEFAULT_CHECKPOINT, dtype: DtypeName = "auto") -> Captioner:
        """Read a checkpoint, a folder or hub:ID, and choose the numeric type. Raises CheckpointError, ConfigError."""
        checkpoint = load_checkpoint(checkpoint_folder(folder))
        return cls(checkpoint, choose_precision(dtype))

    @property
    def config(self) -> ModelConfig:
        return self._network.config

    def count_words(self, text: str) -> int:
        """Return how many words this checkpoint's tokenizer sees in a text."""
        return self._tokenizer.count_words(self._tokenizer.encode(text))

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens; special ones give nothing."""
        return self._tokenizer.decode(tokens)

    @property
    def grid(self) -> PatchGrid:
        """Rows and columns of its maps."""
        return self._network.encoder.grid

    @property
    def image_config(self) -> ImageConfig:
        """What `prepare` needs to make an ImageView for this checkpoint."""
        return self.config.image

    def caption(
        self,
        views: Sequence[ImageView],
        options: GenerationOptions | None = None,
        *,
        maps: bool = True,
        reliance: bool = True,
    ) -> list[ImageCaptions]:
        """Caption a batch of images with the same options (None: the checkpoint's own).

        Raises TextError where the prompt is too long for the checkpoint.
        """
        options = options or self.config.generation
        started = time.perf_counter()
        features = self.encode(views)
        encoded = time.perf_counter()
        with torch.inference_mode():
            state = self.start(features)
            generation = self.generation()
            generation.add(features, list(range(len(views))), [options] * len(views), state)
            finished = generation.run()
        decoded = time.perf_counter()
        found = [finished[index] for index in range(len(views))]
        given = [options.prompt] * len(views)
        captions = self.read_out(features, views, found, given, state, maps=maps, reliance=reliance)
        done = time.perf_counter()
        timing = Timing(1e3 * (encoded - started), 1e3 * (decoded - encoded), 1e3 * (done - decoded))
        return [ImageCaptions(tuple(group), features.grid, timing) for group in captions]

    def stream(
        self, view: ImageView, options: GenerationOptions | None = None, *, maps: bool = True, reliance: bool = True
    ) -> Iterator[Word | ImageCaptions]:
        """Yield every word as soon as it is final, then the whole answer.

        A word is final when every live beam agrees on it and on the beginning of what follows. A sampled caption is
        only streamed where one is asked for. Closing the iterator stops the work.
        """
        options = options or self.config.generation
        features = self.encode([view])
        told = 0
        generation = self.generation()
        with torch.inference_mode():
            state = self.start(features)
            generation.add(features, ["stream"], [options], state)

        def read(found: list[Hypothesis]) -> list[Caption]:
            (group,) = self.read_out(features, [view], [found], [options.prompt], state, maps=maps, reliance=reliance)
            return group

        while generation.rows:
            with torch.inference_mode():
                finished = generation.step()
            if finished:
                group = read(finished["stream"])
                yield from group[0].words[told:]
                yield ImageCaptions(tuple(group), features.grid, Timing(0.0, 0.0, 0.0))
            elif options.count == 1 or options.strategy == "beam":
                words = self.final_words(generation.agreed("stream"), told, read)
                yield from words
                told += len(words)

    def final_words(
        self, agreed: tuple[int, ...], told: int, read: Callable[[list[Hypothesis]], list[Caption]]
    ) -> tuple[Word, ...]:
        """Return the words behind the first `told` that tokens which cannot change any more hold whole."""
        # The last word may still grow; those before it cannot.
        if self._tokenizer.count_words(agreed) - 1 <= told:
            return ()
        (caption,) = read([Hypothesis(agreed, 0.0, False)])
        return caption.words[told:-1]

    def explain(
        self, views: Sequence[ImageView], texts: Sequence[Sequence[str]], *, maps: bool = True, reliance: bool = True
    ) -> list[ImageCaptions]:
        """Read maps, probabilities and reliance of captions that somebody else wrote: `texts` holds each image's.

        The texts stay as they were given. Raises TextError where one is longer than the checkpoint's positions.
        """
        hypotheses = [[self.written(text) for text in group] for group in texts]
        started = time.perf_counter()
        features = self.encode(views)
        encoded = time.perf_counter()
        captions = self.read_out(features, views, hypotheses, texts, maps=maps, reliance=reliance)
        timing = Timing(1e3 * (encoded - started), 0.0, 1e3 * (time.perf_counter() - encoded))
        return [ImageCaptions(tuple(group), features.grid, timing) for group in captions]

    def written(self, text: str) -> Hypothesis:
        """Return a caption that somebody else wrote as one that is found. Raises TextError where it is too long."""
        return Hypothesis(self._tokens(text), 0.0, True)

    def generation(self) -> Generation:
        """Return a search without rows, for pictures that join and leave (model/batch.py)."""
        return Generation(self._network, self._tokenizer)

    @torch.inference_mode()
    def start(self, features: ImageFeatures) -> DecoderState:
        """Return the decoder's state before the first token, one row a picture."""
        return self._network.start(features)

    def _tokens(self, text: str) -> tuple[int, ...]:
        tokens = tuple(self._tokenizer.encode(text))
        if 2 + len(tokens) > self.config.decoder.positions:
            raise TextError(
                f"the caption has {len(tokens)} tokens; with start and end they must fit into "
                f"{self.config.decoder.positions} positions: send a shorter one"
            )
        return tokens

    @torch.inference_mode()
    def encode(self, views: Sequence[ImageView]) -> ImageFeatures:
        """Encode a batch of images: tokens (B, S, C) float32."""
        pixels = torch.stack([view.pixels for view in views])  # (B, 3, height, width)
        features = self._network.encoder(pixels.to(self._network.device, self.precision.dtype))
        return ImageFeatures(features.tokens.to(self._network.dtype), features.grid, features.prefix)

    def read_out(
        self,
        features: ImageFeatures,
        views: Sequence[ImageView],
        found: Sequence[Sequence[Hypothesis]],
        given: Sequence[str | Sequence[str]],
        state: DecoderState | None = None,
        *,
        maps: bool,
        reliance: bool,
    ) -> list[list[Caption]]:
        """Replay the hypotheses of each image and make captions of them.

        `given` is what a person wrote for each image: the prompt that its captions begin with, or every caption whole.
        `state` is the images' own, where the caller has started it.
        """
        rows = [(image, hypothesis) for image, group in enumerate(found) for hypothesis in group]
        end = self.config.decoder.end_id
        sequences = [(*entry.tokens, end) if entry.finished else entry.tokens for _, entry in rows]
        image_of = tuple(image for image, _ in rows)
        replayed = replay(
            self._network, features, image_of, sequences,
            maps=maps, reliance=reliance, started=state, nothing=self._nothing,
        )  # fmt: skip
        captions: list[list[Caption]] = [[] for _ in views]
        for (image, hypothesis), read in zip(rows, replayed, strict=True):
            text, places = self._shown(hypothesis, given[image], len(captions[image]))
            words = self._words(hypothesis, read, text, places, views[image], features.grid)
            reason = "stop" if hypothesis.finished else "length"
            captions[image].append(Caption(text, words, sum(read.log_probs), reason))
        return captions

    def _shown(self, hypothesis: Hypothesis, given: str | Sequence[str], number: int) -> tuple[str, list[int]]:
        """Return the text to show, and the place in it of every code point of the tokenizer's own spelling.

        What a person wrote stays as it was written.
        """
        spelled = self._tokenizer.decode(hypothesis.tokens)
        written = given if isinstance(given, str) else given[number]
        places = self._tokenizer.align(written)
        text = written + spelled[len(places) :] if isinstance(given, str) else written
        return text, places + [len(written) + place for place in range(len(spelled) - len(places))]

    def _words(
        self,
        hypothesis: Hypothesis,
        read: ReplayedCaption,
        text: str,
        places: list[int],
        view: ImageView,
        grid: PatchGrid,
    ) -> tuple[Word, ...]:
        words = []
        for span in self._tokenizer.words(hypothesis.tokens):
            seen = sum(read.log_probs[token] for token in span.tokens)
            blind = sum(read.blind_log_probs[token] for token in span.tokens) if read.blind_log_probs else None
            found = None if read.rows is None else word_map(read.rows[list(span.tokens)])
            start, end = places[span.start], places[span.end - 1] + 1
            reliance = None if blind is None else seen - blind
            box = None if found is None else peak_box(found.values, grid, view.covers)
            words.append(Word(text[start:end], start, end, seen, reliance, found, box))
        return tuple(words)
