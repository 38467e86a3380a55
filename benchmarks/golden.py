"""Tokens and scores compared with recorded results of the reference code: `python -m benchmarks golden FOLDER`.

FOLDER contains captions_val2017.json.gz (COCO's human captions), golden.json and golden_first_caption_per_image.json.gz
(pycocoevalcap's scores of them), ptb_*.jsonl.gz (captions and the tokens of its tokenizer) and flickr8k/ (captions and expert
ratings of Hodosh, Young and Hockenmaier 2013). docs/evaluation.md shows the output.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus import DataError
from evaluation import bleu, cider, meteor, ptb_tokens, rouge_l, scored_tokens

CaptionsByImage = dict[str, list[str]]

CONSTANT_CAPTION = "a man is standing on a street with a dog"
_RATINGS = 3  # experts per pair of image and caption
_TOLERANCE = 1e-4  # ROUGE-L differs by 9e-7: there the reference code counts "23 3/4" as one word, elsewhere as two


def golden_figures(folder: Path, *, with_meteor: bool = False) -> dict[str, Any]:
    """Return every comparison; `equal` is whether all results are equal. Raises DataError if a file, or Java, is missing."""
    captions = coco_captions(folder)
    recorded = json.loads(_read(folder / "golden.json"))
    first = {image: texts[:1] for image, texts in captions.items()}
    others = {image: texts[1:] for image, texts in captions.items()}
    constant = {image: [CONSTANT_CAPTION] for image in captions}
    per_image = np.array(json.loads(_read(folder / "golden_first_caption_per_image.json.gz"))["CIDEr"])
    tokens = _tokens(folder)
    scores = {
        "first_caption": _scores(
            first, others, recorded["b_val2017_human_vs_rest"]["computed"], np.array(per_image), with_meteor
        ),
        "constant_caption": _scores(constant, captions, recorded["c_val2017_constant"]["computed"], None, with_meteor),
    }
    equal = tokens["equal"] == tokens["captions"] and all(
        part["counts_equal"] and part["max_difference"] < _TOLERANCE for part in scores.values()
    )
    return {"equal": equal, "tokens": tokens, **scores, "kendall_tau_c_with_experts": _expert_correlation(folder / "flickr8k")}


def kendall_tau_c(scores: NDArray[np.float64], ratings: NDArray[np.int64]) -> float:
    """Return Stuart's tau-c of scores and ratings with few levels (Stuart 1953): 1 if they order all pairs the same way.

    Raises ValueError if all scores or all ratings are equal.
    """
    levels = np.unique(ratings)
    groups = [np.sort(scores[ratings == level]) for level in levels]
    balance = 0  # concordant pairs minus discordant ones
    for index, low in enumerate(groups):
        for high in groups[index + 1 :]:
            concordant = np.searchsorted(low, high, side="left").sum()
            discordant = (len(low) - np.searchsorted(low, high, side="right")).sum()
            balance += int(concordant) - int(discordant)
    min_levels = min(len(levels), len(np.unique(scores)))
    if min_levels < 2:
        raise ValueError("all scores or all ratings are equal; tau-c needs at least two different values of each")
    return 2 * balance / (len(scores) ** 2 * (min_levels - 1) / min_levels)


def tokenize_in_order(texts: Sequence[str]) -> list[list[str]]:
    """Return the scored tokens of captions that are the lines of one file, as the Java tokenizer computes them."""
    lines = [" ".join(text.split("\n")) for text in texts]
    return [scored_tokens(line, next_line) for line, next_line in zip(lines, [*lines[1:], ""], strict=True)]


def _tokens(folder: Path) -> dict[str, Any]:
    """Compare the tokens of every recorded caption, with the next line and without it."""
    captions, equal, differing = 0, 0, []
    paths = sorted(folder.glob("ptb_*.jsonl.gz"))
    if not paths:
        raise DataError(f"{folder} has no ptb_*.jsonl.gz; name the folder of the recorded results")
    for path in paths:
        rows = [json.loads(line) for line in _read(path).splitlines()]
        for row, next_line in zip(rows, [*(row["raw"] for row in rows[1:]), "A"], strict=True):
            captions += 1
            equal += " ".join(ptb_tokens(row["raw"], next_line)) == row["ptb"]
            if " ".join(ptb_tokens(row["raw"])) != row["ptb"]:
                differing.append(row["raw"])
    return {
        "captions": captions,
        "equal": equal,
        "equal_without_next_line": captions - len(differing),
        "different_without_next_line": differing,
    }


def _scores(
    candidates: CaptionsByImage,
    references: CaptionsByImage,
    recorded: dict[str, Any],
    per_image: NDArray[np.float64] | None,
    with_meteor: bool,
) -> dict[str, Any]:
    """Compare scores of tokens in the order of the file, like the recorded ones, and compute CIDEr of separate captions."""
    images = list(references)
    counts = [len(references[image]) for image in images]
    ends = np.cumsum(counts)
    tokens = tokenize_in_order([text for image in images for text in references[image]])
    reference_tokens = [tokens[end - count : end] for end, count in zip(ends, counts, strict=True)]
    candidate_tokens = tokenize_in_order([candidates[image][0] for image in images])
    bleu_scores = bleu(candidate_tokens, reference_tokens)
    cider_scores = cider(candidate_tokens, reference_tokens)
    separate = (
        [scored_tokens(candidates[image][0]) for image in images],
        [[scored_tokens(text) for text in references[image]] for image in images],
    )
    rows = {
        **{f"BLEU-{order}": (score, recorded[f"Bleu_{order}"]) for order, score in enumerate(bleu_scores.scores, start=1)},
        "ROUGE-L": (float(rouge_l(candidate_tokens, reference_tokens).mean()), recorded["ROUGE_L"]),
        "CIDEr": (float(cider_scores.mean()), recorded["CIDEr"]),
    }
    if with_meteor:
        rows["METEOR"] = (meteor(candidate_tokens, reference_tokens)[0], recorded["METEOR"])
    bleu_counts = {
        "correct": list(bleu_scores.correct),
        "testlen": bleu_scores.length,
        "reflen": bleu_scores.reference_length,
    }
    raw = recorded["bleu_raw"]
    figures: dict[str, Any] = {name: {"ours": ours, "recorded": theirs} for name, (ours, theirs) in rows.items()}
    figures["CIDEr"]["without_next_line"] = float(cider(*separate).mean())
    figures["max_difference"] = max(abs(ours - theirs) for ours, theirs in rows.values())
    figures["counts_equal"] = all(bleu_counts[name] == raw[name] for name in bleu_counts)
    if per_image is not None:
        figures["max_difference_of_image_cider"] = float(np.abs(cider_scores - per_image).max())
    return figures


def _expert_correlation(folder: Path) -> dict[str, float]:
    """Correlate scores with experts' ratings of captions of other images; captions of the rated image are left out."""
    texts: dict[str, str] = {}
    references: defaultdict[str, list[str]] = defaultdict(list)
    for line in _read(folder / "Flickr8k.token.txt").splitlines():
        name, _, text = line.partition("\t")
        texts[name] = text
        references[name.partition("#")[0]].append(text)
    candidate_tokens, reference_tokens, ratings = [], [], []
    for line in _read(folder / "ExpertAnnotations.txt").splitlines():
        image, caption, *levels = line.split("\t")
        if caption.partition("#")[0] == image or texts[caption] in references[image]:
            continue
        candidate_tokens.append(scored_tokens(texts[caption]))
        reference_tokens.append([scored_tokens(text) for text in references[image]])
        ratings += [int(level) for level in levels]
    scores = {
        "CIDEr": cider(candidate_tokens, reference_tokens),
        "BLEU-4": bleu(candidate_tokens, reference_tokens).per_image[:, 3],
        "ROUGE-L": rouge_l(candidate_tokens, reference_tokens),
    }
    taus = {name: kendall_tau_c(np.repeat(values, _RATINGS), np.array(ratings)) for name, values in scores.items()}
    return {"pairs": len(candidate_tokens), **taus}


def coco_captions(folder: Path) -> CaptionsByImage:
    """Return COCO's captions by image, images and captions in ascending order of their ids. Raises DataError."""
    document = json.loads(_read(folder / "captions_val2017.json.gz"))
    captions: defaultdict[int, list[str]] = defaultdict(list)
    for record in sorted(document["annotations"], key=lambda record: record["id"]):
        captions[record["image_id"]].append(record["caption"])
    return {str(image): captions[image] for image in sorted(captions)}


def _read(path: Path) -> str:
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8") as file:
                return file.read()
        return path.read_text(encoding="utf-8")
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}); name the folder of the recorded results") from error
