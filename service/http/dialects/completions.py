"""What APIs of language models share: limits of tokens, stop sequences, log-probabilities, and what a captioner cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from model import Caption, CaptionResult, Word
from service.errors import option_error

_TEXT_FORMATS = ("text", "", None)


def check_format(kind: object, member: str) -> None:
    """Raises ServiceError if a response in JSON is requested: captions are text."""
    chosen = kind.get("type") if isinstance(kind, dict) else kind
    if chosen not in _TEXT_FORMATS:
        raise option_error(member, f"{member} is {str(chosen)[:40]!r}; captions are plain text: leave it out, or send 'text'")


def token_limit(limit: int | None, default: int) -> dict[str, int]:
    """Return the option max_new_tokens: a client's limit is for texts of any length and can only lower the checkpoint's."""
    return {} if limit is None else {"max_new_tokens": min(limit, default), "min_new_tokens": 0}


class StopSequences:
    """Cuts a text that arrives in pieces before the stop sequence that is complete first."""

    def __init__(self, sequences: str | Sequence[str] | None) -> None:
        texts = [sequences] if isinstance(sequences, str) else sequences or ()
        self._sequences = tuple(text for text in texts if text)
        self._held = ""
        self.is_stopped = False

    def feed(self, text: str, *, is_last: bool = False) -> str:
        """Return what may be sent; the start of what may become a stop sequence is held back, unless the text ends."""
        if self.is_stopped:
            return ""
        self._held += text
        # The one that is complete first, as a language model would stop; of two that end together the longer one.
        ends = [(at + len(stop), at) for stop in self._sequences if (at := self._held.find(stop)) >= 0]
        if ends:
            self.is_stopped = True
            return self._held[: min(ends)[1]]
        kept = 0 if is_last else self._num_held()
        sent, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        return sent

    def cut(self, caption: Caption) -> tuple[str, list[Word]]:
        """Return a caption's text before the first stop sequence, and the words that begin in it."""
        text = self.feed(caption.text, is_last=True)
        return text, [word for word in caption.words if word.start < len(text)]

    def _num_held(self) -> int:
        """Return the length of the longest end of the text that begins a stop sequence."""
        lengths = range(max(map(len, self._sequences), default=1) - 1, 0, -1)
        ends = (self._held[-length:] for length in lengths if length <= len(self._held))
        return next((len(end) for end in ends if any(stop.startswith(end) for stop in self._sequences)), 0)


def word_logprob(word: Word) -> dict[str, Any]:
    """Return a word as an entry of logprobs: the words are the tokens, each with what stands before it."""
    token = word.before + word.text
    entry = {"token": token, "logprob": word.log_probability, "bytes": list(token.encode())}
    return entry | {"top_logprobs": []}


def finish_reason(caption: Caption, stop: StopSequences) -> str:
    """Return stop or length."""
    return "length" if caption.finish_reason == "length" and not stop.is_stopped else "stop"


def num_tokens(result: CaptionResult) -> tuple[int, int]:
    """Return the patches of the image, which are its tokens, and the tokens of all captions."""
    return result.grid.num_patches, sum(caption.num_tokens for caption in result.captions)
