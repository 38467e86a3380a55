"""The search of one image: which rows continue, which hypotheses are finished, when to stop.

A search receives the best candidates of its rows and returns the next rows. It knows ids, scores and a word counter, not
tensors, other images, or attention. Beam search follows transformers' generate (a pool of K finished hypotheses, 2K
candidates per step); ending on words instead of tokens is our own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from model.options import GenerationOptions

WordCounter = Callable[[Sequence[int]], int]


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A caption's tokens, without start and end. log_probability is the search's own sum, with the end when finished."""

    tokens: tuple[int, ...]
    log_probability: float
    is_finished: bool  # an end token was chosen; else a limit of words or tokens ended it
    end: int | None = None  # the end token that was chosen; None: the first one of the checkpoint, or none


@dataclass(frozen=True, slots=True)
class Candidate:
    """One continuation: `token` after the search's row `row`; `total` is the sum of log-probabilities with it."""

    total: float
    row: int
    token: int


@dataclass(frozen=True, slots=True)
class WordLimits:
    """Counts the words of a caption, and only where the limits could matter."""

    count: WordCounter
    min_words: int
    max_words: int
    max_words_per_token: int

    def exceeds(self, tokens: Sequence[int]) -> bool:
        """Return whether the last of `tokens` started a word beyond the limit."""
        return len(tokens) * self.max_words_per_token > self.max_words and self.count(tokens) > self.max_words

    def is_too_short(self, tokens: Sequence[int]) -> bool:
        return self.min_words > 0 and self.count(tokens) < self.min_words


@dataclass(slots=True)
class Search:
    """What every strategy shares: the live rows, their tokens, the finished hypotheses."""

    options: GenerationOptions
    limits: WordLimits
    prompt: tuple[int, ...]
    eos_token_ids: tuple[int, ...]
    forced_end: int | None = None  # the id that ends every caption at its last token
    num_forced: int = 0  # ids before the prompt that count as generated
    rows: list[tuple[int, ...]] = field(default_factory=list)  # tokens generated, prompt included
    totals: list[float] = field(default_factory=list)  # sum of log-probabilities per row
    pool: list[tuple[float, Hypothesis]] = field(default_factory=list)  # score, finished hypothesis
    done: bool = False

    def __post_init__(self) -> None:
        self.rows = [self.prompt] * self.num_first_rows
        self.totals = [0.0] * self.num_first_rows

    @property
    def num_first_rows(self) -> int:
        """Rows before the first step."""
        return 1

    @property
    def num_candidates(self) -> int:
        """Candidates per step, over all rows together; 0: the caller samples one for each row."""
        return 1

    @property
    def is_beam(self) -> bool:
        return False

    def num_generated(self, row: int) -> int:
        return len(self.rows[row]) - len(self.prompt) + self.num_forced

    @property
    def must_end(self) -> bool:
        """Whether the next token is the forced end: all rows have the same length."""
        return self.forced_end is not None and self.num_generated(0) == self.options.max_new_tokens - 1

    @property
    def changes_scores(self) -> bool:
        """Return whether any option bans or penalizes tokens."""
        options = self.options
        has_minimum = options.min_words > 0 or options.min_new_tokens > 0
        return options.repetition_penalty != 1.0 or options.no_repeat_ngram_size > 0 or has_minimum

    def bans_end(self, row: int) -> bool:
        return self.num_generated(row) < self.options.min_new_tokens or self.limits.is_too_short(self.rows[row])

    def advance(self, candidates: list[Candidate]) -> list[Candidate]:
        """Take the candidates of a step, best first; return those whose rows continue."""
        kept = [candidate for candidate in candidates if not self._finish_if_ended(candidate)]
        self.done = not kept
        if kept:
            self._continue(kept)
        return kept

    def results(self) -> list[Hypothesis]:
        """Return num_return_sequences captions, best first; ties are broken by tokens, so that results are reproducible.

        Where fewer are finished, live rows follow as they are.
        """
        ranked = [hypothesis for _, hypothesis in sorted(self.pool, key=lambda entry: (-entry[0], entry[1].tokens))]
        alive = [Hypothesis(row, total, False) for row, total in zip(self.rows, self.totals, strict=True)]
        alive.sort(key=lambda hypothesis: (-hypothesis.log_probability, hypothesis.tokens))
        known = {hypothesis.tokens for hypothesis in ranked}
        ranked += [hypothesis for hypothesis in alive if hypothesis.tokens not in known]
        return ranked[: self.options.num_return_sequences]

    def common_prefix(self) -> tuple[int, ...]:
        """Return the tokens that every live row and every finished hypothesis starts with: they can no longer change."""
        sequences = [*self.rows, *(hypothesis.tokens for _, hypothesis in self.pool)]
        shortest = min(map(len, sequences))
        first = sequences[0]
        differing = (at for at in range(shortest) if any(other[at] != first[at] for other in sequences))
        return first[: next(differing, shortest)]

    def _finish_if_ended(self, candidate: Candidate) -> bool:
        """Put a candidate that ends its caption into the pool; return whether it did."""
        tokens = self.rows[candidate.row]
        length = self.num_generated(candidate.row) + 1
        if candidate.token in self.eos_token_ids:
            end = None if candidate.token == self.eos_token_ids[0] or self.must_end else candidate.token
            self._finish(Hypothesis(tokens, candidate.total, not self.must_end, end), candidate.total, length)
        elif self.limits.exceeds((*tokens, candidate.token)):
            # Ranked with the excess word's token, as a hypothesis that ends by its length, but returned without it.
            self._finish(Hypothesis(tokens, self.totals[candidate.row], False), candidate.total, length)
        elif length >= self.options.max_new_tokens:
            self._finish(Hypothesis((*tokens, candidate.token), candidate.total, False), candidate.total, length)
        else:
            return False
        return True

    def _finish(self, hypothesis: Hypothesis, total: float, length: int) -> None:
        self.pool.append((total, hypothesis))

    def _continue(self, kept: list[Candidate]) -> None:
        self.rows = [(*self.rows[candidate.row], candidate.token) for candidate in kept]
        self.totals = [candidate.total for candidate in kept]


class GreedySearch(Search):
    """The most likely token at every step."""


class SampleSearch(Search):
    """One sampled token per row and step; num_return_sequences independent rows."""

    order: list[int]  # which of the samples each live row is: its random generator stays with it

    def __post_init__(self) -> None:
        Search.__post_init__(self)  # super() without arguments does not work in a dataclass with slots
        self.order = list(range(self.num_first_rows))

    @property
    def num_first_rows(self) -> int:
        return self.options.num_return_sequences

    @property
    def num_candidates(self) -> int:
        return 0

    def advance(self, candidates: list[Candidate]) -> list[Candidate]:
        alive = {candidate.row for candidate in candidates}
        for row, (tokens, total) in enumerate(zip(self.rows, self.totals, strict=True)):
            if row not in alive:  # every token was banned
                self._finish(Hypothesis(tokens, total, False), total, 1)
        kept = Search.advance(self, candidates)
        self.order = [self.order[candidate.row] for candidate in kept]
        return kept


class BeamSearch(Search):
    """K rows; a pool of the K best finished hypotheses; stops when no live row can beat the worst of them.

    A live row's best possible score is estimated as if it ended now. early_stopping True stops as soon as the pool is
    full; "never" estimates, if longer captions are favored, as if it were as long as a caption can be.
    """

    @property
    def num_candidates(self) -> int:
        return max(2, 1 + len(self.eos_token_ids)) * self.options.num_beams  # as in transformers: K remain if every end is in it

    @property
    def is_beam(self) -> bool:
        return True

    def advance(self, candidates: list[Candidate]) -> list[Candidate]:
        kept: list[Candidate] = []
        for rank, candidate in enumerate(candidates):
            if rank < self.options.num_beams:
                if not self._finish_if_ended(candidate):
                    kept.append(candidate)
            elif not self._would_end(candidate):
                kept.append(candidate)
        kept = kept[: self.options.num_beams]
        if not kept or self._cannot_improve(kept[0]):
            self.done = True
            return []
        self._continue(kept)
        return kept

    def _would_end(self, candidate: Candidate) -> bool:
        """An ending ranked below the first K is neither finished nor continued: it is dropped, as in transformers."""
        tokens = (*self.rows[candidate.row], candidate.token)
        return (
            candidate.token in self.eos_token_ids
            or self.num_generated(candidate.row) + 1 >= self.options.max_new_tokens
            or self.limits.exceeds(tokens)
        )

    def _cannot_improve(self, best: Candidate) -> bool:
        if len(self.pool) < self.options.num_beams:
            return False
        if self.options.early_stopping is True:
            return True
        length = self.num_generated(best.row) + 1
        if self.options.early_stopping == "never" and self.options.length_penalty > 0:
            length = self.options.max_new_tokens
        return best.total / length**self.options.length_penalty <= min(score for score, _ in self.pool)

    def _finish(self, hypothesis: Hypothesis, total: float, length: int) -> None:
        if any(known == hypothesis for _, known in self.pool):
            return  # the same caption, ended by another excess word: candidates come best first
        entry = (total / length**self.options.length_penalty, hypothesis)
        ranked = sorted([*self.pool, entry], key=lambda scored: (-scored[0], scored[1].tokens))
        self.pool = ranked[: self.options.num_beams]


def make_search(
    options: GenerationOptions,
    limits: WordLimits,
    prompt: tuple[int, ...],
    eos_token_ids: tuple[int, ...],
    forced_end: int | None = None,
    num_forced: int = 0,
) -> Search:
    """Return the search of `options.strategy`; one beam is greedy."""
    if options.strategy == "sample":
        return SampleSearch(options, limits, prompt, eos_token_ids, forced_end, num_forced)
    kind = BeamSearch if options.strategy == "beam" and options.num_beams > 1 else GreedySearch
    return kind(options, limits, prompt, eos_token_ids, forced_end, num_forced)
