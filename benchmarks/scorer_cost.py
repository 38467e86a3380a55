"""Time and memory of tokenizing and scoring: next to pycocoevalcap with its Java tokenizer, and for many captions."""

from __future__ import annotations

import contextlib
import io
import random
import resource
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.golden import coco_captions
from corpus import DataError
from evaluation import bleu, cider, clear_token_cache, rouge_l, scored_tokens

_NUM_REFERENCES = 4  # per candidate, in measure_scorer_cost


def compare_scorer_speed(folder: Path, repeats: int = 5) -> dict[str, Any]:
    """Time tokens and CIDEr of COCO's captions, in turns with pycocoevalcap and its Java tokenizer.

    Returns both scores, median seconds and speedups. Raises DataError if pycocoevalcap or Java is missing.
    """
    try:
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
    except ImportError as error:
        raise DataError(f"{error}; install the extra dev to compare speeds") from error
    if shutil.which("java") is None:
        raise DataError("there is no java; pycocoevalcap's tokenizer needs it (Debian: openjdk-17-jre-headless)")
    captions = coco_captions(folder)
    first = {image: [{"caption": texts[0]}] for image, texts in captions.items()}
    others = {image: [{"caption": text} for text in texts[1:]] for image, texts in captions.items()}
    seconds: dict[str, list[float]] = {"ours": [], "pycocoevalcap": []}
    scores = {}
    for _ in range(repeats):
        clear_token_cache()  # each turn starts with empty caches
        started = time.perf_counter()
        candidate_tokens = [scored_tokens(texts[0]) for texts in captions.values()]
        reference_tokens = [[scored_tokens(text) for text in texts[1:]] for texts in captions.values()]
        scores["ours"] = float(cider(candidate_tokens, reference_tokens).mean())
        seconds["ours"].append(time.perf_counter() - started)
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            tokenizer = PTBTokenizer()
            scores["pycocoevalcap"] = float(Cider().compute_score(tokenizer.tokenize(others), tokenizer.tokenize(first))[0])
        seconds["pycocoevalcap"].append(time.perf_counter() - started)
    ratios = sorted(theirs / ours for ours, theirs in zip(*seconds.values(), strict=True))
    return {
        "CIDEr": scores,
        "median_seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "speedup": {"median": statistics.median(ratios), "min": ratios[0], "max": ratios[-1]},
    }


def measure_scorer_cost(folder: Path, num_candidates: int) -> dict[str, Any]:
    """Return seconds of tokens and scores of many captions with 4 references each, and the process's peak memory in MB.

    Each caption is the first half of one COCO caption and the second half of another, so distinct n-grams are as many as in
    real captions.
    """
    texts = [text for captions in coco_captions(folder).values() for text in captions]
    rng = random.Random(0)

    def splice() -> str:
        first, second = rng.choice(texts).split(), rng.choice(texts).split()
        return " ".join((*first[: len(first) // 2], *second[len(second) // 2 :]))

    candidates = [splice() for _ in range(num_candidates)]
    references = [[splice() for _ in range(_NUM_REFERENCES)] for _ in range(num_candidates)]
    figures: dict[str, Any] = {"candidates": num_candidates, "peak_mb_before": _peak_megabytes(), "seconds": {}}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = call()
        figures["seconds"][name] = time.perf_counter() - started
        return result

    clear_token_cache()
    tokens = timed("tokens", lambda: [scored_tokens(text) for text in candidates])
    reference_tokens = timed("reference_tokens", lambda: [[scored_tokens(text) for text in group] for group in references])
    timed("CIDEr", lambda: cider(tokens, reference_tokens))
    timed("BLEU", lambda: bleu(tokens, reference_tokens))
    timed("ROUGE-L", lambda: rouge_l(tokens, reference_tokens))
    figures["peak_mb"] = _peak_megabytes()
    return figures


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
