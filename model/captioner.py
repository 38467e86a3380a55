"""Captioner: images in, captions with a map for every word out.

It may be shared by threads. Between calls it keeps nothing but decoder states of "no image". All computation happens in the
calling thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from model.batch import CaptionBatch
from model.captions import CaptionResult, Word
from model.checkpoint import DEFAULT_CHECKPOINT, Checkpoint, load_checkpoint
from model.config import ImageConfig, ModelConfig
from model.device import DevicePolicy, choose_policy, is_out_of_memory, num_parameters, release_memory
from model.geometry import ImageView, PatchGrid
from model.hub import checkpoint_folder
from model.maps import find_map_method
from model.options import GenerationOptions
from model.prefix import language_index
from model.requests import CaptionRequest
from model.runtime import Runtime, prepare_network
from model.tokenizer import CaptionTokenizer
from model.unconditional import UnconditionalStates


class Captioner:
    """A network and its tokenizer, ready to caption."""

    def __init__(
        self,
        runtime: Runtime,
        tokenizer: CaptionTokenizer,
        *,
        policy: DevicePolicy | None = None,
        card: str = "",
        parameters: int = 0,
    ) -> None:
        """`parameters` is their number, for information; `policy` is the one that `runtime` was prepared with.

        Raises ConfigError if the config names an unknown map method.
        """
        find_map_method(runtime.config.maps.method)
        self.runtime = runtime
        self.tokenizer = tokenizer
        self.policy = policy or DevicePolicy()
        self.card = card
        self.parameters = parameters
        self._unconditional = UnconditionalStates(runtime)
        prompt = runtime.config.prompt_encoder
        self._unconditional.state([() if prompt is None else prompt.default_ids])

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, policy: DevicePolicy | None = None, *, copy_weights: bool = True
    ) -> Captioner:
        """Prepare a checkpoint's network; the checkpoint stays as it is, unless `copy_weights` is False."""
        policy = policy or DevicePolicy()
        count = num_parameters(checkpoint.network)
        network = prepare_network(checkpoint.network, policy, copy_weights=copy_weights)
        return cls(network, checkpoint.tokenizer, policy=policy, card=checkpoint.card, parameters=count)

    @classmethod
    def load(cls, folder: Path | str = DEFAULT_CHECKPOINT, *, device: str = "auto", dtype: str = "auto") -> Captioner:
        """Read a checkpoint, a folder or hub:ID, for a device and dtype. Raises CheckpointError, ConfigError."""
        policy = choose_policy(device, dtype)
        return cls.from_checkpoint(load_checkpoint(checkpoint_folder(folder)), policy, copy_weights=False)

    @property
    def config(self) -> ModelConfig:
        return self.runtime.config

    @property
    def grid(self) -> PatchGrid:
        """Rows and columns of its maps."""
        return self.runtime.grid

    @property
    def image_config(self) -> ImageConfig:
        """What `prepare` needs to make an ImageView for this checkpoint."""
        return self.config.image

    def language(self, tag: str = "") -> str:
        """Return the checkpoint's spelling of a language tag, its default for "". Raises ConfigError."""
        return self.config.languages[language_index(self.config, tag)]

    def count_words(self, text: str) -> int:
        """Return the number of words of a text, as this checkpoint's tokenizer counts them."""
        return self.tokenizer.count_words(self.tokenizer.encode(text))

    def batch(self, progress: Callable[[], None] | None = None) -> CaptionBatch:
        """Return an empty batch, for requests that join and leave; `progress` is called between the calls of slow map methods."""
        return CaptionBatch(self.runtime, self.tokenizer, self._unconditional, progress)

    def caption(
        self,
        views: Sequence[ImageView],
        options: GenerationOptions | None = None,
        *,
        maps: str | None = None,
        reliance: bool = True,
        language: str = "",
    ) -> list[CaptionResult]:
        """Caption images with the same options (None: the checkpoint's own).

        `maps` is a map method or "none", None for the checkpoint's own. Raises TextError if the prompt is too long.
        """
        options = options or self.config.generation
        return self._run(
            [CaptionRequest(view=view, options=options, maps=maps, reliance=reliance, language=language) for view in views]
        )

    def explain(
        self,
        views: Sequence[ImageView],
        texts: Sequence[Sequence[str]],
        *,
        maps: str | None = None,
        reliance: bool = True,
        language: str = "",
    ) -> list[CaptionResult]:
        """Return maps, probabilities and reliance of captions that were written elsewhere: `texts` holds each image's.

        The texts stay as written. Raises TextError if one is longer than the checkpoint's positions.
        """
        return self._run(
            [
                CaptionRequest(view=view, texts=tuple(group), maps=maps, reliance=reliance, language=language)
                for view, group in zip(views, texts, strict=True)
            ]
        )

    def stream(
        self,
        view: ImageView,
        options: GenerationOptions | None = None,
        *,
        maps: str | None = None,
        reliance: bool = True,
        language: str = "",
    ) -> Iterator[Word | CaptionResult]:
        """Yield every word as soon as it is final, then the whole result. Closing the iterator stops the computation.

        A word is final when all live beams agree on it and on the start of what follows. Samples are streamed only if one
        is requested.
        """
        options = options or self.config.generation
        batch, streamed = self.batch(), 0
        request = CaptionRequest(view=view, options=options, maps=maps, reliance=reliance, language=language)
        batch.add([0], [request])
        while not batch.step():
            words = batch.new_words(0)
            streamed += len(words)
            yield from words
        (result,) = batch.pop_results([0])
        yield from result.best.words[streamed:]
        yield result

    def _run(self, requests: Sequence[CaptionRequest]) -> list[CaptionResult]:
        """Caption or score requests as one batch; if the device's memory is too small, as two halves."""
        if not requests:
            return []
        try:
            return self._run_together(requests)
        except Exception as error:
            if len(requests) < 2 or not is_out_of_memory(error):
                raise
        # Here, after the handler, nothing refers to the batch any more: its memory can be given back.
        release_memory(self.runtime.device)
        half = len(requests) // 2
        return self._run(requests[:half]) + self._run(requests[half:])

    def _run_together(self, requests: Sequence[CaptionRequest]) -> list[CaptionResult]:
        batch, keys = self.batch(), range(len(requests))
        batch.add(keys, requests)
        batch.run()
        return batch.pop_results(keys)
