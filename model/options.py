"""Options of one caption: how it is decoded. Each is declared here once (model/fields.py), with transformers' name and meaning.

To add one: declare it here, then use it where it takes effect (scores and filters: model/logits.py; rows: model/search.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.errors import ConfigError
from model.fields import check_fields, declared

Strategy = Literal["greedy", "beam", "sample"]
Style = Literal["plain", "sentence"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationOptions:
    """Decoding options. Names, defaults and definitions are transformers' where it has them.

    Raises ConfigError, which begins with the name of the field, for a value out of range.
    """

    strategy: Strategy = declared("beam", "decoding strategy")
    num_beams: int = declared(3, "beams of strategy `beam`", minimum=1, maximum=8)
    num_return_sequences: int = declared(
        1, "captions returned, best first: at most num_beams for `beam`, 1 for `greedy`", minimum=1, maximum=8
    )
    min_words: int = declared(0, "words before the caption may end, prompt counted", unit="words", minimum=0, maximum=60)
    max_words: int = declared(30, "words at most, prompt counted", unit="words", minimum=0, maximum=400)
    max_new_tokens: int = declared(64, "generated tokens at most, end token counted", unit="tokens", minimum=1, maximum=1024)
    min_new_tokens: int = declared(0, "generated tokens before the end token", unit="tokens", minimum=0, maximum=1024)
    early_stopping: bool | Literal["never"] = declared(False, "when beam search stops: false, true or never, as in transformers")
    length_penalty: float = declared(
        1.0, "score = sum(log p) / length ** length_penalty; lower favors short captions", minimum=-2.0, maximum=4.0
    )
    no_repeat_ngram_size: int = declared(0, "no n-gram of this size twice; 0: off", unit="tokens", minimum=0, maximum=6)
    repetition_penalty: float = declared(1.0, "above 1 makes used tokens less likely; 1: off", minimum=0.5, maximum=2.0)
    temperature: float = declared(1.0, "of strategy `sample`: divides the logits", minimum=0.05, maximum=5.0)
    top_k: int = declared(
        0, "of strategy `sample`: only the k most likely tokens; 0: off", unit="tokens", minimum=0, maximum=1000
    )
    top_p: float = declared(1.0, "of strategy `sample`: only the tokens that make up this probability", minimum=0.0, maximum=1.0)
    min_p: float = declared(
        0.0, "of strategy `sample`: only tokens at least this fraction as likely as the best; 0: off", minimum=0.0, maximum=1.0
    )
    seed: int = declared(0, "of strategy `sample`: same seed, same caption", minimum=-(2**63), maximum=2**63 - 1)
    prompt: str = declared("", "first words of the caption, kept as written")
    task: str = declared("", "of a checkpoint with tasks: what to do, such as `ocr`; GET /v1/models lists them")
    task_input: str = declared("", "the text that a task is about, such as the phrases to locate")
    style: Style = declared("plain", "text: as the network writes it, or a sentence with a capital letter and a full stop")
    min_confidence: float = declared(
        0.0,
        "a caption below this confidence is shortened until it passes, or left out; needs a calibrated checkpoint; 0: off",
        minimum=0.0,
        maximum=1.0,
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.min_words > self.max_words:
            raise ConfigError(f"min_words is {self.min_words}; it must not be above max_words, {self.max_words}")
        if self.min_new_tokens > self.max_new_tokens:
            raise ConfigError(
                f"min_new_tokens is {self.min_new_tokens}; it must not be above max_new_tokens, {self.max_new_tokens}"
            )
        if self.strategy == "beam" and self.num_return_sequences > self.num_beams:
            raise ConfigError(
                f"num_return_sequences is {self.num_return_sequences}; with strategy 'beam' it must not be above num_beams, "
                f"{self.num_beams}"
            )
        if self.strategy == "greedy" and self.num_return_sequences != 1:
            raise ConfigError(
                f"num_return_sequences is {self.num_return_sequences}; strategy 'greedy' gives 1 caption, use 'beam' or 'sample'"
            )

    @property
    def num_rows(self) -> int:
        """Rows of a batch that one image needs."""
        if self.strategy == "greedy":
            return 1
        return self.num_beams if self.strategy == "beam" else self.num_return_sequences
