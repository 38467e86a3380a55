"""What APIs of language models share: limits of tokens, stop sequences, log-probabilities, and what a captioner cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from annotated_types import MaxLen

from model import Caption, CaptionResult, Word
from service.errors import option_error

_TEXT_FORMATS = ("text", "", None)
_StopText = Annotated[str, MaxLen(200)]
StopTexts = _StopText | Annotated[list[_StopText], MaxLen(16)] | None
STOP_HELP = "text, or a list of at most 16 texts, of at most 200 characters each"


def check_format(kind: object, member: str) -> None:
    """Raises ServiceError if a response in JSON is requested: captions are text."""
    chosen = kind.get("type") if isinstance(kind, dict) else kind
    if chosen not in _TEXT_FORMATS:
        raise option_error(member, f"{member} is {str(chosen)[:40]!r}; captions are plain text: leave it out, or send 'text'")


def token_limit(limit: int | None, default: int) -> dict[str, int]:
    """Return the option max_new_tokens: a client's limit is for texts of any length and can only lower the checkpoint's."""
    return {} if limit is None else {"max_new_tokens": min(limit, default), "min_new_tokens": 0}


class StopSequences:
    """Cuts a caption that arrives word by word before the stop sequence that is complete first, and its words with it."""

    def __init__(self, sequences: str | Sequence[str] | None) -> None:
        texts = [sequences] if isinstance(sequences, str) else sequences or ()
        self._sequences = tuple(text for text in texts if text)
        self._held = ""
        self._num_sent = 0  # characters
        self._words: list[Word] = []  # whose text has not been sent
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
            return self._sent(min(ends)[1])
        return self._sent(len(self._held) - (0 if is_last else self._num_held()))

    def feed_word(self, word: Word) -> tuple[str, list[Word]]:
        """Return what may be sent after another word, and the words in it."""
        self._words.append(word)
        text = self.feed(word.before + word.text)
        return text, self._sent_words()

    def finish(self, caption: Caption) -> tuple[str, list[Word]]:
        """Return the rest of a caption whose words have been fed, and the words in it."""
        text = self.feed(caption.after, is_last=True)
        return text, self._sent_words()

    def cut(self, caption: Caption) -> tuple[str, list[Word]]:
        """Return a whole caption's text before the first stop sequence, and the words that begin in it."""
        self._words = list(caption.words)
        text = self.feed(caption.text, is_last=True)
        return text, self._sent_words()

    def _sent(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        self._num_sent += length
        return text

    def _sent_words(self) -> list[Word]:
        """Remove and return the words whose text has been sent; at a stop, those that begin in what was sent."""
        end = self._num_sent
        sent = [word for word in self._words if (word.start if self.is_stopped else word.end - 1) < end]
        self._words = self._words[len(sent) :]
        return sent

    def _num_held(self) -> int:
        """Return the length of the longest end of the text that begins a stop sequence."""
        longest = min(len(self._held), max(map(len, self._sequences), default=1) - 1)
        ends = (self._held[-length:] for length in range(longest, 0, -1))
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
