"""What tokens and scores cost: beside pycocoevalcap and its Java, and for a million captions."""

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

from corpus import DataError
from evaluation.golden import coco_captions
from evaluation.measures import bleu, cider, rouge_l
from evaluation.ptb import forget_tokens, scored_tokens

_REFERENCES = 4  # of a candidate, in the cost of many


def cost_beside_peer(folder: Path, repeats: int = 5) -> dict[str, Any]:
    """Time tokens and CIDEr of COCO's captions here and with pycocoevalcap and its Java tokenizer, in turns, in seconds.

    Raises DataError where pycocoevalcap or Java is missing.
    """
    try:
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
    except ImportError as error:
        raise DataError(f"{error}; install the extra dev to compare speeds") from error
    if shutil.which("java") is None:
        raise DataError("there is no java; the peer's tokenizer needs one (Debian: openjdk-17-jre-headless)")
    captions = coco_captions(folder)
    first = {image: [{"caption": texts[0]}] for image, texts in captions.items()}
    others = {image: [{"caption": text} for text in texts[1:]] for image, texts in captions.items()}
    seconds: dict[str, list[float]] = {"here": [], "pycocoevalcap": []}
    scores = {}
    for _ in range(repeats):
        forget_tokens()  # each turn begins without the words of the last
        started = time.perf_counter()
        given = [scored_tokens(texts[0]) for texts in captions.values()]
        known = [[scored_tokens(text) for text in texts[1:]] for texts in captions.values()]
        scores["here"] = float(cider(given, known).mean())
        seconds["here"].append(time.perf_counter() - started)
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            tokenizer = PTBTokenizer()
            scores["pycocoevalcap"] = float(Cider().compute_score(tokenizer.tokenize(others), tokenizer.tokenize(first))[0])
        seconds["pycocoevalcap"].append(time.perf_counter() - started)
    ratios = sorted(theirs / ours for ours, theirs in zip(*seconds.values(), strict=True))
    return {
        "CIDEr": scores,
        "median seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "times faster": {"median": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]},
    }


def cost_of_many(folder: Path, candidates: int) -> dict[str, Any]:
    """Time tokens and scores of many captions, 4 references each, and tell the peak of the process's memory.

    Each caption is the beginning of one of COCO's and the end of another, so that n-grams are as many as in real ones.
    """
    texts = [text for known in coco_captions(folder).values() for text in known]
    dice = random.Random(0)

    def spliced() -> str:
        one, other = dice.choice(texts).split(), dice.choice(texts).split()
        return " ".join((*one[: len(one) // 2], *other[len(other) // 2 :]))

    given = [spliced() for _ in range(candidates)]
    known = [[spliced() for _ in range(_REFERENCES)] for _ in range(candidates)]
    figures: dict[str, Any] = {"candidates": candidates, "MB before": _peak_megabytes(), "seconds": {}}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        found = call()
        figures["seconds"][name] = time.perf_counter() - started
        return found

    forget_tokens()
    tokens = timed("tokens", lambda: [scored_tokens(text) for text in given])
    others = timed("tokens of references", lambda: [[scored_tokens(text) for text in part] for part in known])
    timed("CIDEr", lambda: cider(tokens, others))
    timed("BLEU", lambda: bleu(tokens, others))
    timed("ROUGE-L", lambda: rouge_l(tokens, others))
    figures["MB at most"] = _peak_megabytes()
    return figures


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
