"""Generation: many captions at once, over rows that join and leave between steps.

One step scores the newest token of every row, whatever image, length or options it has, and lets each image's Search
choose. Attention weights are never asked for here: maps come from the replay of the finished captions.
Scores are compared in float32, as transformers does.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import GenerationOptions
from model.encoder import ImageFeatures
from model.errors import TextError
from model.network import CaptionNetwork
from model.scores import NEVER, penalise_repetition, repeated_ngram_ids, sampling_distribution
from model.search import Candidate, Hypothesis, SampleSearch, Search, WordLimits, search_for
from model.state import DecoderState
from model.tokenizer import CaptionTokenizer

_SEED_STEP = 0x9E3779B97F4A7C15  # keeps the generators of one request's samples apart


@dataclass(slots=True)
class _Running:
    """A search and the generators of its rows, which stay with the drawings and not with the rows."""

    search: Search
    generators: list[torch.Generator]


class Generation:
    """The captions being decoded. Not shared between threads: its owner adds, steps and removes."""

    def __init__(self, network: CaptionNetwork, tokenizer: CaptionTokenizer) -> None:
        self._network = network
        self._tokenizer = tokenizer
        self._running: dict[Hashable, _Running] = {}  # in the order of their rows in the state
        self._state: DecoderState | None = None
        self._last: list[int] = []  # newest token of every row
        self._never = list(network.config.decoder.never)

    @property
    def rows(self) -> int:
        return len(self._last)

    @property
    def keys(self) -> list[Hashable]:
        return list(self._running)

    def add(
        self,
        features: ImageFeatures,
        keys: Sequence[Hashable],
        options: Sequence[GenerationOptions],
        started: DecoderState | None = None,
    ) -> None:
        """Begin a caption for each of B images, under a key and with options of its own.

        `started` is the images' state, one row each, where the caller has it.

        A caption ends where the checkpoint's positions end, if max_tokens does not end it before. Raises TextError, with
        nothing added, where a prompt leaves no room for a caption.
        """
        if known := [key for key in keys if key in self._running]:
            raise ValueError(f"{known[0]!r} is running already; every caption needs a key of its own")
        prompts = [tuple(self._tokenizer.encode(option.prompt)) for option in options]
        room = self._network.config.decoder.positions - 1  # the start token takes one
        for prompt, option in zip(prompts, options, strict=True):
            if len(prompt) >= room:
                raise TextError(
                    f"prompt {option.prompt[:40]!r} has {len(prompt)} tokens; this checkpoint has room for {room} with the "
                    "caption that follows: send a shorter one"
                )
        options = [_fitted(option, room - len(prompt)) for prompt, option in zip(prompts, options, strict=True)]
        started = started or self._network.start(features)
        for length in sorted({len(prompt) for prompt in prompts}):
            images = [index for index, prompt in enumerate(prompts) if len(prompt) == length]
            self._add_equal(started.select(images), [prompts[at] for at in images],
                            [keys[at] for at in images], [options[at] for at in images])  # fmt: skip

    def agreed(self, key: Hashable) -> tuple[int, ...]:
        """Return the tokens of a running caption that can no longer change."""
        return self._running[key].search.agreed()

    def remove(self, key: Hashable) -> None:
        """Drop a caption that nobody waits for; its rows are gone before the next step."""
        kept: list[int] = []
        first = 0
        for other, entry in self._running.items():
            rows = range(first, first + len(entry.search.rows))
            first = rows.stop
            if other != key:
                kept.extend(rows)
        del self._running[key]
        self._keep(kept, [self._last[row] for row in kept])

    def step(self) -> dict[Hashable, list[Hypothesis]]:
        """Score the newest token of every row and go on. Returns the captions that are finished by this step."""
        if self._state is None:
            return {}
        tokens = torch.tensor(self._last, device=self._network.device)[:, None]  # (R, 1)
        logits, _, self._state = self._network.decode(tokens, self._state)
        scores = logits[:, -1].float()  # (R, V)

        finished: dict[Hashable, list[Hypothesis]] = {}
        kept: list[int] = []
        last: list[int] = []
        for key, first, candidates in self._candidates(scores):
            search = self._running[key].search
            going_on = search.advance(candidates)
            if search.done:
                finished[key] = search.results()
                continue
            kept.extend(first + candidate.row for candidate in going_on)
            last.extend(candidate.token for candidate in going_on)
        for key in finished:
            del self._running[key]
        self._keep(kept, last)
        return finished

    def run(self) -> dict[Hashable, list[Hypothesis]]:
        """Step until every caption is finished."""
        finished: dict[Hashable, list[Hypothesis]] = {}
        while self._running:
            finished |= self.step()
        return finished

    def _add_equal(
        self,
        state: DecoderState,
        prompts: list[tuple[int, ...]],
        keys: list[Hashable],
        options: list[GenerationOptions],
    ) -> None:
        """Add images whose prompts have the same number of tokens: all but the last are read here."""
        decoder = self._network.config.decoder
        given = [(decoder.start_id, *prompt) for prompt in prompts]
        if len(given[0]) > 1:
            read = torch.tensor([tokens[:-1] for tokens in given], device=self._network.device)
            _, _, state = self._network.decode(read, state, only=torch.zeros_like(read, dtype=torch.bool))
        image_of, begun = list[int](), dict[Hashable, _Running]()
        for image, (key, prompt, option) in enumerate(zip(keys, prompts, options, strict=True)):
            limits = WordLimits(
                self._tokenizer.count_words, option.min_words, option.max_words, self._tokenizer.most_words_a_token
            )
            search = search_for(option, limits, prompt, decoder.end_id)
            generators = [_generator(option.seed, index) for index in range(option.count)]
            begun[key] = _Running(search, generators)
            image_of += [image] * search.first_rows
        state = state if image_of == list(range(len(prompts))) else state.select(image_of)
        # Nothing of this batch has changed until here: what fails before (memory, say) leaves it whole.
        self._state = state if self._state is None else self._state.append(state)
        self._running |= begun
        self._last += [given[image][-1] for image in image_of]

    def _keep(self, rows: list[int], last: list[int]) -> None:
        self._last = last
        if not rows:
            self._state = None
        elif self._state is not None and rows != list(range(self._state.rows)):
            self._state = self._state.select(rows)

    def _candidates(self, scores: Tensor) -> list[tuple[Hashable, int, list[Candidate]]]:
        """Return (key, first row, candidates best first) of every search; searches of one shape are ranked together."""
        log_probs = scores.log_softmax(-1)  # (R, V)
        chosen: dict[Hashable, list[Candidate]] = {}
        firsts: dict[Hashable, int] = {}
        shapes: dict[tuple[int, int], list[Hashable]] = defaultdict(list)
        ranked = log_probs.clone()
        ranked[:, self._never] = NEVER
        listed_totals: list[float] = []
        first = 0
        for key, entry in self._running.items():
            search = entry.search
            firsts[key] = first
            listed_totals += search.totals
            if search.changes_scores:
                for row in range(len(search.rows)):
                    at = first + row  # beams are penalised on log-probabilities, other rows on logits
                    ranked[at] = self._processed(search, row, log_probs[at] if search.is_beam else scores[at])
            if search.width:
                shapes[len(search.rows), search.width].append(key)
            else:
                chosen[key] = self._drawn(entry, first, ranked, log_probs)
            first += len(search.rows)

        totals = torch.tensor(listed_totals, device=scores.device)
        for (rows, width), keys in shapes.items():
            index = torch.tensor([firsts[key] + row for key in keys for row in range(rows)], device=scores.device)
            beam = self._running[keys[0]].search.is_beam
            pool = ranked[index] + totals[index, None] if beam else ranked[index]
            pool = pool.unflatten(0, (len(keys), rows)).flatten(1)  # (keys, rows * V)
            values, places = pool.topk(min(width, pool.size(1)))  # (keys, width)
            sums = values if beam else log_probs[index].gather(1, places) + totals[index, None]
            size = scores.size(1)
            listed = zip(keys, values.tolist(), sums.tolist(), places.tolist(), strict=True)
            for key, row_values, row_sums, row_places in listed:
                chosen[key] = [
                    Candidate(total, *divmod(place, size))
                    for value, total, place in zip(row_values, row_sums, row_places, strict=True)
                    if value > NEVER  # the rest is banned
                ]
        return [(key, firsts[key], chosen[key]) for key in self._running]

    def _processed(self, search: Search, row: int, scores: Tensor) -> Tensor:
        """Return one row's scores (V,) after penalties and bans."""
        options, decoder = search.options, self._network.config.decoder
        ids = (decoder.start_id, *search.rows[row])
        if options.repetition_penalty != 1.0:
            scores = penalise_repetition(scores, ids, options.repetition_penalty)
        banned = set(self._never)
        if options.no_repeat:
            banned |= repeated_ngram_ids(ids, options.no_repeat)
        if search.bans_end(row):
            banned.add(decoder.end_id)
        return scores.index_fill(0, torch.tensor(sorted(banned), dtype=torch.long, device=scores.device), NEVER)

    def _drawn(self, entry: _Running, first: int, ranked: Tensor, log_probs: Tensor) -> list[Candidate]:
        """Draw one token for each row of a sampling search, each with the generator of its own drawing."""
        search = entry.search
        assert isinstance(search, SampleSearch), "only sampling draws"
        options, drawn = search.options, []
        for row, order in enumerate(search.order):
            if not torch.isfinite(ranked[first + row]).any():
                continue  # everything is banned: the caption ends here
            odds = sampling_distribution(ranked[first + row], options.temperature, options.top_k, options.top_p)
            token = int(torch.multinomial(odds.cpu(), 1, generator=entry.generators[order]))
            total = search.totals[row] + float(log_probs[first + row, token])
            drawn.append(Candidate(total, row, token))
        return drawn


def _fitted(options: GenerationOptions, room: int) -> GenerationOptions:
    """Return options that ask for no more tokens than there is room for."""
    most = min(options.max_tokens, room)
    return dataclasses.replace(options, max_tokens=most, min_tokens=min(options.min_tokens, most))


def _generator(seed: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed + index * _SEED_STEP) % 2**63)
