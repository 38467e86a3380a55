"""The search of one image: which rows go on, which hypotheses are finished, when to stop.

A search is told the best candidates of its rows and answers which rows come next. It knows ids, scores and a word
counter. Does not know tensors of the network, other images, or attention. Beam search follows transformers' generate
(a pool of K finished hypotheses, 2K candidates a step); ending on words instead of tokens is our own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from model.config import GenerationOptions

WordCounter = Callable[[Sequence[int]], int]


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A caption's tokens, without start and end. log_probability is the search's own sum, with the end when finished."""

    tokens: tuple[int, ...]
    log_probability: float
    finished: bool  # the end token was chosen; else a limit of words or tokens ended it


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to go on: `token` behind the search's row `row`; `total` is the sum of log-probabilities with it."""

    total: float
    row: int
    token: int


@dataclass(frozen=True, slots=True)
class WordLimits:
    """Counts the words of a caption, and only where the limits could matter."""

    count: WordCounter
    least: int
    most: int
    most_a_token: int

    def begins_too_many(self, tokens: Sequence[int]) -> bool:
        """Return whether the last of `tokens` began a word beyond the limit."""
        return len(tokens) * self.most_a_token > self.most and self.count(tokens) > self.most

    def too_few(self, tokens: Sequence[int]) -> bool:
        return self.least > 0 and self.count(tokens) < self.least


@dataclass(slots=True)
class Search:
    """What every strategy shares: the rows alive, what they hold, what is finished."""

    options: GenerationOptions
    limits: WordLimits
    prompt: tuple[int, ...]
    end_id: int
    rows: list[tuple[int, ...]] = field(default_factory=list)  # tokens generated, prompt included
    totals: list[float] = field(default_factory=list)  # sum of log-probabilities a row
    pool: list[tuple[float, Hypothesis]] = field(default_factory=list)  # score, finished hypothesis
    done: bool = False

    def __post_init__(self) -> None:
        self.rows = [self.prompt] * self.first_rows
        self.totals = [0.0] * self.first_rows

    @property
    def first_rows(self) -> int:
        """Rows before the first step."""
        return 1

    @property
    def width(self) -> int:
        """Candidates wanted a step, over all rows together; 0: the caller draws one for each row."""
        return 1

    @property
    def is_beam(self) -> bool:
        return False

    def generated(self, row: int) -> int:
        return len(self.rows[row]) - len(self.prompt)

    @property
    def changes_scores(self) -> bool:
        """Return whether any option bans or penalises tokens."""
        options = self.options
        limits = options.min_words > 0 or options.min_tokens > 0
        return options.repetition_penalty != 1.0 or options.no_repeat > 0 or limits

    def bans_end(self, row: int) -> bool:
        return self.generated(row) < self.options.min_tokens or self.limits.too_few(self.rows[row])

    def advance(self, candidates: list[Candidate]) -> list[Candidate]:
        """Take the candidates of a step, best first; return the rows that go on."""
        kept = [candidate for candidate in candidates if not self._ends(candidate)]
        self.done = not kept
        if kept:
            self._go_on(kept)
        return kept

    def results(self) -> list[Hypothesis]:
        """Return the captions asked for, best first; ties are broken by tokens, so that results repeat.

        Where fewer are finished than were asked for, live rows follow them as they stand.
        """
        ranked = [found for _, found in sorted(self.pool, key=lambda entry: (-entry[0], entry[1].tokens))]
        alive = [Hypothesis(row, total, False) for row, total in zip(self.rows, self.totals, strict=True)]
        alive.sort(key=lambda found: (-found.log_probability, found.tokens))
        known = {found.tokens for found in ranked}
        ranked += [found for found in alive if found.tokens not in known]
        return ranked[: self.options.count]

    def agreed(self) -> tuple[int, ...]:
        """Return the tokens that every live row and every finished hypothesis begins with."""
        sequences = [*self.rows, *(hypothesis.tokens for _, hypothesis in self.pool)]
        shortest = min(map(len, sequences))
        first = sequences[0]
        same = (at for at in range(shortest) if any(other[at] != first[at] for other in sequences))
        return first[: next(same, shortest)]

    def _ends(self, candidate: Candidate) -> bool:
        """Put a candidate that ends its caption into the pool; return whether it did."""
        tokens = self.rows[candidate.row]
        length = self.generated(candidate.row) + 1
        if candidate.token == self.end_id:
            self._finish(Hypothesis(tokens, candidate.total, True), candidate.total, length)
        elif self.limits.begins_too_many((*tokens, candidate.token)):
            self._finish(Hypothesis(tokens, self.totals[candidate.row], False), candidate.total, length)
        elif length >= self.options.max_tokens:
            self._finish(Hypothesis((*tokens, candidate.token), candidate.total, False), candidate.total, length)
        else:
            return False
        return True

    def _finish(self, hypothesis: Hypothesis, total: float, length: int) -> None:
        self.pool.append((total, hypothesis))

    def _go_on(self, kept: list[Candidate]) -> None:
        self.rows = [(*self.rows[candidate.row], candidate.token) for candidate in kept]
        self.totals = [candidate.total for candidate in kept]


class GreedySearch(Search):
    """The most likely token at every step."""


class SampleSearch(Search):
    """One drawn token a row and step; `count` rows that know nothing of each other."""

    order: list[int]  # which of the `count` drawings each live row is: its generator stays with it

    def __post_init__(self) -> None:
        Search.__post_init__(self)
        self.order = list(range(self.first_rows))

    @property
    def first_rows(self) -> int:
        return self.options.count

    @property
    def width(self) -> int:
        return 0

    def advance(self, candidates: list[Candidate]) -> list[Candidate]:
        alive = {candidate.row for candidate in candidates}
        for row, (tokens, total) in enumerate(zip(self.rows, self.totals, strict=True)):
            if row not in alive:  # everything was banned
                self._finish(Hypothesis(tokens, total, False), total, 1)
        kept = Search.advance(self, candidates)
        self.order = [self.order[candidate.row] for candidate in kept]
        return kept


class BeamSearch(Search):
    """K rows; a pool of the K best finished hypotheses; stops when no live row can beat the worst of them.

    What a live row can reach is told by its score as if it ended now. early_stopping "true" stops as soon as the pool is
    full; "never" scores it, where longer captions are favoured, as if it were as long as a caption can be.
    """

    @property
    def width(self) -> int:
        return 2 * self.options.beams

    @property
    def is_beam(self) -> bool:
        return True

    def advance(self, candidates: list[Candidate]) -> list[Candidate]:
        kept: list[Candidate] = []
        for rank, candidate in enumerate(candidates):
            if rank < self.options.beams:
                if not self._ends(candidate):
                    kept.append(candidate)
            elif not self._would_end(candidate):
                kept.append(candidate)
        kept = kept[: self.options.beams]
        if not kept or self._hopeless(kept[0]):
            self.done = True
            return []
        self._go_on(kept)
        return kept

    def _would_end(self, candidate: Candidate) -> bool:
        """An ending ranked below the first K is neither finished nor continued: it is lost, as in transformers."""
        tokens = (*self.rows[candidate.row], candidate.token)
        return (
            candidate.token == self.end_id
            or self.generated(candidate.row) + 1 >= self.options.max_tokens
            or self.limits.begins_too_many(tokens)
        )

    def _hopeless(self, best: Candidate) -> bool:
        if len(self.pool) < self.options.beams:
            return False
        if self.options.early_stopping == "true":
            return True
        length = self.generated(best.row) + 1
        if self.options.early_stopping == "never" and self.options.length_penalty > 0:
            length = self.options.max_tokens
        return best.total / length**self.options.length_penalty <= min(score for score, _ in self.pool)

    def _finish(self, hypothesis: Hypothesis, total: float, length: int) -> None:
        if any(known == hypothesis for _, known in self.pool):
            return  # the same caption, ended by another word too many: candidates come best first
        entry = (total / length**self.options.length_penalty, hypothesis)
        ranked = sorted([*self.pool, entry], key=lambda scored: (-scored[0], scored[1].tokens))
        self.pool = ranked[: self.options.beams]


def search_for(options: GenerationOptions, limits: WordLimits, prompt: tuple[int, ...], end_id: int) -> Search:
    """Return the search that `options.strategy` names; a beam of one is greedy."""
    if options.strategy == "sample":
        return SampleSearch(options, limits, prompt, end_id)
    kind = BeamSearch if options.strategy == "beam" and options.beams > 1 else GreedySearch
    return kind(options, limits, prompt, end_id)
