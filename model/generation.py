"""Generation: rows of many captions decode together, join and leave between steps. CaptionBatch (model/batch.py) drives it.

One step scores the newest token of every row, whatever image, length or options it has, and each image's Search chooses.
Attention weights are never computed here: maps come from the scoring pass over finished captions.
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

from model.errors import TextError
from model.logits import BANNED, penalize_repetition, repeated_ngram_ids, sampling_probs
from model.options import GenerationOptions
from model.prefix import PrefixIds
from model.runtime import Runtime
from model.search import Candidate, Hypothesis, SampleSearch, Search, WordLimits, make_search
from model.state import DecoderState
from model.tokenizer import CaptionTokenizer

_SEED_STEP = 0x9E3779B97F4A7C15  # separates the generators of one request's samples


@dataclass(slots=True)
class _Running:
    """A search and the random generators of its samples."""

    search: Search
    generators: list[torch.Generator]


class Generation:
    """Captions that are being decoded. Not thread-safe: one owner adds, steps and removes."""

    def __init__(self, runtime: Runtime, tokenizer: CaptionTokenizer) -> None:
        self._runtime = runtime
        self._tokenizer = tokenizer
        self._running: dict[Hashable, _Running] = {}  # in the order of their rows in the state
        self._state: DecoderState | None = None
        self._last: list[int] = []  # newest token of every row
        self._suppressed = list(runtime.config.decoder.suppress_tokens)

    @property
    def num_rows(self) -> int:
        return len(self._last)

    @property
    def keys(self) -> list[Hashable]:
        return list(self._running)

    def add(
        self,
        state: DecoderState,
        keys: Sequence[Hashable],
        options: Sequence[GenerationOptions],
        prefixes: Sequence[PrefixIds],
    ) -> None:
        """Start a caption for each image of `state` (one row per image), with a key and options of its own.

        A caption ends at the checkpoint's last position if max_new_tokens does not end it before. Raises TextError, with
        nothing added, if a prompt leaves no room for a caption.
        """
        if known := [key for key in keys if key in self._running]:
            raise ValueError(f"{known[0]!r} is running already; every caption needs its own key")
        for prefix, option in zip(prefixes, options, strict=True):
            self.check_prefix(prefix, option.prompt)
        free = [self._runtime.config.decoder.max_positions - len(prefix.special) for prefix in prefixes]
        options = [
            _limited(option, space - len(prefix.prompt) + prefix.num_generated)
            for prefix, option, space in zip(prefixes, options, free, strict=True)
        ]
        added: list[tuple[DecoderState, dict[Hashable, _Running], list[int]]] = []
        for length in sorted({len(prefix.all) for prefix in prefixes}):
            at = [index for index, prefix in enumerate(prefixes) if len(prefix.all) == length]
            same_length = state if len(at) == state.num_rows else state.select(at)
            added.append(self._start(same_length, [prefixes[i] for i in at], [keys[i] for i in at], [options[i] for i in at]))
        # Nothing of this object has changed until here: if something failed (memory, for example), it is as it was.
        states = [part for part, _, _ in added]
        self._state = DecoderState.concat(states if self._state is None else [self._state, *states])
        for _, running, last in added:
            self._running |= running
            self._last += last

    def check_prefix(self, prefix: PrefixIds, prompt: str) -> None:
        """Raises TextError if a prompt leaves no room for a caption."""
        space = self._runtime.config.decoder.max_positions - len(prefix.special)
        if len(prefix.prompt) >= space:
            raise TextError(
                f"prompt {prompt[:40]!r} has {len(prefix.prompt)} tokens; this checkpoint has room for {space} with "
                "the caption that follows: send a shorter one"
            )

    def final_tokens(self, key: Hashable) -> tuple[int, ...]:
        """Return the tokens of a running caption that can no longer change."""
        return self._running[key].search.common_prefix()

    def remove(self, key: Hashable) -> None:
        """Drop a caption; its rows are gone before the next step."""
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
        """Score the newest token of every row and continue. Returns the captions that this step finished."""
        if self._state is None:
            return {}
        tokens = torch.tensor(self._last, device=self._runtime.device)[:, None]  # (R, 1)
        logits, _, self._state = self._runtime.decode(tokens, self._state)
        scores = logits[:, -1].float()  # (R, V)

        finished: dict[Hashable, list[Hypothesis]] = {}
        kept: list[int] = []
        last: list[int] = []
        for key, first, candidates in self._candidates(scores):
            search = self._running[key].search
            continued = search.advance(candidates)
            if search.done:
                finished[key] = search.results()
                continue
            kept.extend(first + candidate.row for candidate in continued)
            last.extend(candidate.token for candidate in continued)
        for key in finished:
            del self._running[key]
        self._keep(kept, last)
        return finished

    def _start(
        self,
        state: DecoderState,
        prefixes: list[PrefixIds],
        keys: list[Hashable],
        options: list[GenerationOptions],
    ) -> tuple[DecoderState, dict[Hashable, _Running], list[int]]:
        """Return state, searches and newest tokens of images whose prefixes have one length: all but the last id are read."""
        inputs = [prefix.all for prefix in prefixes]
        if len(inputs[0]) > 1:
            read = torch.tensor([ids[:-1] for ids in inputs], device=self._runtime.device)
            _, _, state = self._runtime.decode(read, state, logits_mask=torch.zeros_like(read, dtype=torch.bool))
        image_of: list[int] = []
        running: dict[Hashable, _Running] = {}
        for image, (key, prefix, option) in enumerate(zip(keys, prefixes, options, strict=True)):
            limits = WordLimits(
                self._tokenizer.count_words, option.min_words, option.max_words, self._tokenizer.max_words_per_token
            )
            decoder = self._runtime.config.decoder
            ends, forced_end = decoder.eos_token_ids, decoder.forced_eos_token_id
            search = make_search(option, limits, prefix.prompt, ends, forced_end, prefix.num_generated)
            generators = [_generator(option.seed, index) for index in range(option.num_return_sequences)]
            running[key] = _Running(search, generators)
            image_of += [image] * search.num_first_rows
        state = state if image_of == list(range(len(keys))) else state.select(image_of)
        return state, running, [inputs[image][-1] for image in image_of]

    def _keep(self, rows: list[int], last: list[int]) -> None:
        self._last = last
        if not rows:
            self._state = None
        elif self._state is not None and rows != list(range(self._state.num_rows)):
            self._state = self._state.select(rows)

    def _candidates(self, scores: Tensor) -> list[tuple[Hashable, int, list[Candidate]]]:
        """Return (key, first row, candidates best first) of every search; searches of one shape are ranked together."""
        log_probs = scores.log_softmax(-1)  # (R, V)
        chosen: dict[Hashable, list[Candidate]] = {}
        firsts: dict[Hashable, int] = {}
        shapes: dict[tuple[int, int], list[Hashable]] = defaultdict(list)
        sampled: list[Hashable] = []
        ranked = log_probs.clone()
        ranked[:, self._suppressed] = BANNED
        all_totals: list[float] = []
        first = 0
        for key, entry in self._running.items():
            search = entry.search
            firsts[key] = first
            all_totals += search.totals
            if search.changes_scores:
                for row in range(len(search.rows)):
                    at = first + row  # beams are penalized on log-probabilities, other rows on logits
                    ranked[at] = self._processed(search, row, log_probs[at] if search.is_beam else scores[at])
            if search.must_end:  # as in `generate`, the end costs nothing then
                ranked[first : first + len(search.rows)] = BANNED
                ranked[first : first + len(search.rows), search.forced_end] = 0.0
            if search.num_candidates:
                shapes[len(search.rows), search.num_candidates].append(key)
            else:
                sampled.append(key)
            first += len(search.rows)

        totals = torch.tensor(all_totals, device=scores.device)
        for (rows, width), keys in shapes.items():
            index = torch.tensor([firsts[key] + row for key in keys for row in range(rows)], device=scores.device)
            is_beam = self._running[keys[0]].search.is_beam
            pool = ranked[index] + totals[index, None] if is_beam else ranked[index]
            pool = pool.unflatten(0, (len(keys), rows)).flatten(1)  # (keys, rows * V)
            values, positions = pool.topk(min(width, pool.size(1)))  # (keys, width)
            sums = values if is_beam else log_probs[index].gather(1, positions) + totals[index, None]
            size = scores.size(1)
            for key, row_values, row_sums, row_positions in zip(
                keys, values.tolist(), sums.tolist(), positions.tolist(), strict=True
            ):
                chosen[key] = [
                    Candidate(total, *divmod(position, size))
                    for value, total, position in zip(row_values, row_sums, row_positions, strict=True)
                    if value > BANNED
                ]
        for key in sampled:
            chosen[key] = self._sampled(self._running[key], firsts[key], ranked, log_probs)
        return [(key, firsts[key], chosen[key]) for key in self._running]

    def _processed(self, search: Search, row: int, scores: Tensor) -> Tensor:
        """Return one row's scores (V,) after penalties and bans."""
        options, decoder = search.options, self._runtime.config.decoder
        forced = () if decoder.forced_bos_token_id is None else (decoder.forced_bos_token_id,)
        ids = (decoder.bos_token_id, *forced, *search.rows[row])
        if options.repetition_penalty != 1.0:
            scores = penalize_repetition(scores, ids, options.repetition_penalty)
        banned = set(self._suppressed)
        if options.no_repeat_ngram_size:
            banned |= repeated_ngram_ids(ids, options.no_repeat_ngram_size)
        if search.bans_end(row):
            banned |= set(decoder.eos_token_ids)
        return scores.index_fill(0, torch.tensor(sorted(banned), dtype=torch.long, device=scores.device), BANNED)

    def _sampled(self, entry: _Running, first: int, ranked: Tensor, log_probs: Tensor) -> list[Candidate]:
        """Sample one token for each row of a sampling search, each with the random generator of its sample.

        The generators are the CPU's on every device, so that a seed gives the same numbers everywhere.
        """
        search = entry.search
        assert isinstance(search, SampleSearch), "only this search samples"
        rows = slice(first, first + len(search.rows))
        scores, logs = ranked[rows].cpu(), log_probs[rows].cpu()  # (rows, V)
        candidates = []
        for row, order in enumerate(search.order):
            if not torch.isfinite(scores[row]).any():
                continue  # every token is banned: the caption ends here
            probs = sampling_probs(scores[row], search.options)
            token = int(torch.multinomial(probs, 1, generator=entry.generators[order]))
            candidates.append(Candidate(search.totals[row] + float(logs[row, token]), row, token))
        return candidates


def _limited(options: GenerationOptions, space: int) -> GenerationOptions:
    """Return options that request no more tokens than there is room for."""
    limit = min(options.max_new_tokens, space)
    return dataclasses.replace(options, max_new_tokens=limit, min_new_tokens=min(options.min_new_tokens, limit))


def _generator(seed: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed + index * _SEED_STEP) % 2**63)
