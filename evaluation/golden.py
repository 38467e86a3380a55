"""Our tokens and scores beside recorded ones: `python -m evaluation golden FOLDER`.

FOLDER holds captions_val2017.json.gz (COCO's human captions), golden.json and golden_first_caption_per_image.json.gz (what
pycocoevalcap computes of them), ptb_*.jsonl.gz (captions as its tokenizer leaves them) and flickr8k/ (captions and expert
judgements of Hodosh, Young and Hockenmaier 2013). docs/evaluation.md shows what it prints.
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
from evaluation.measures import bleu, cider, rouge_l
from evaluation.meteor import meteor
from evaluation.ptb import ptb_tokens, scored_tokens

Texts = dict[str, list[str]]  # captions by image

CONSTANT = "a man is standing on a street with a dog"
_RATINGS = 3  # experts a pair
_TOLERANCE = 1e-4  # ROUGE-L differs by 9e-7: the reference code takes "23 3/4" for one word there and for two elsewhere


def golden_figures(folder: Path, *, with_meteor: bool = False) -> dict[str, Any]:
    """Return every comparison; `equal` says whether all of them hold. Raises DataError where a file, or Java, is missing."""
    captions = coco_captions(folder)
    recorded = json.loads(_read(folder / "golden.json"))
    first = {image: texts[:1] for image, texts in captions.items()}
    others = {image: texts[1:] for image, texts in captions.items()}
    constant = {image: [CONSTANT] for image in captions}
    per_image = np.array(json.loads(_read(folder / "golden_first_caption_per_image.json.gz"))["CIDEr"])
    tokens = _tokens(folder)
    scores = {
        "first caption": _scores(
            first, others, recorded["b_val2017_human_vs_rest"]["computed"], np.array(per_image), with_meteor
        ),
        "constant caption": _scores(constant, captions, recorded["c_val2017_constant"]["computed"], None, with_meteor),
    }
    equal = tokens["equal"] == tokens["captions"] and all(
        part["counts are equal"] and part["largest difference"] < _TOLERANCE for part in scores.values()
    )
    return {"equal": equal, "tokens": tokens, **scores, "experts, Kendall tau-c": _judgements(folder / "flickr8k")}


def kendall_tau_c(scores: NDArray[np.float64], ratings: NDArray[np.int64]) -> float:
    """Return Stuart's tau-c of scores and ratings of few levels (Stuart 1953): 1 where they order all pairs alike.

    Raises ValueError where all scores or all ratings are the same: there is no order to compare.
    """
    levels = np.unique(ratings)
    groups = [np.sort(scores[ratings == level]) for level in levels]
    balance = 0  # concordant pairs less discordant ones
    for place, low in enumerate(groups):
        for high in groups[place + 1 :]:
            below = np.searchsorted(low, high, side="left").sum()
            above = (len(low) - np.searchsorted(low, high, side="right")).sum()
            balance += int(below) - int(above)
    fewest = min(len(levels), len(np.unique(scores)))
    if fewest < 2:
        raise ValueError("all scores or all ratings are the same; there is no order to compare")
    return 2 * balance / (len(scores) ** 2 * (fewest - 1) / fewest)


def tokens_in_order(texts: Sequence[str]) -> list[list[str]]:
    """Return the scored tokens of captions that stand in one file in this order, as the Java tokenizer reads them."""
    lines = [" ".join(text.split("\n")) for text in texts]
    return [scored_tokens(line, after) for line, after in zip(lines, [*lines[1:], ""], strict=True)]


def _tokens(folder: Path) -> dict[str, Any]:
    """Compare every recorded caption's tokens, with the next line known and without it."""
    captions, equal, alone = 0, 0, []
    paths = sorted(folder.glob("ptb_*.jsonl.gz"))
    if not paths:
        raise DataError(f"{folder} holds no ptb_*.jsonl.gz; name the folder of the recorded figures")
    for path in paths:
        rows = [json.loads(line) for line in _read(path).splitlines()]
        for row, after in zip(rows, [*(row["raw"] for row in rows[1:]), "A"], strict=True):
            captions += 1
            equal += " ".join(ptb_tokens(row["raw"], after)) == row["ptb"]
            if " ".join(ptb_tokens(row["raw"])) != row["ptb"]:
                alone.append(row["raw"])
    return {"captions": captions, "equal": equal, "equal without the next line": captions - len(alone), "differ": alone}


def _scores(
    candidates: Texts, references: Texts, recorded: dict[str, Any], per_image: NDArray[np.float64] | None, with_meteor: bool
) -> dict[str, Any]:
    """Score twice: tokens in the order of the file, as the recorded figures were made, and a caption at a time."""
    images = list(references)
    counts = [len(references[image]) for image in images]
    ends = np.cumsum(counts)
    tokens = tokens_in_order([text for image in images for text in references[image]])
    known = [tokens[end - count : end] for end, count in zip(ends, counts, strict=True)]
    given = tokens_in_order([candidates[image][0] for image in images])
    found = bleu(given, known)
    consensus = cider(given, known)
    alone = (
        [scored_tokens(candidates[image][0]) for image in images],
        [[scored_tokens(text) for text in references[image]] for image in images],
    )
    rows = {
        **{f"BLEU-{order}": (score, recorded[f"Bleu_{order}"]) for order, score in enumerate(found.scores, start=1)},
        "ROUGE-L": (float(rouge_l(given, known).mean()), recorded["ROUGE_L"]),
        "CIDEr": (float(consensus.mean()), recorded["CIDEr"]),
    }
    if with_meteor:
        rows["METEOR"] = (meteor(given, known)[0], recorded["METEOR"])
    counted = {"correct": list(found.correct), "testlen": found.length, "reflen": found.reference_length}
    raw = recorded["bleu_raw"]
    figures: dict[str, Any] = {name: {"ours": ours, "recorded": theirs} for name, (ours, theirs) in rows.items()}
    figures["CIDEr"]["a caption at a time"] = float(cider(*alone).mean())
    figures["largest difference"] = max(abs(ours - theirs) for ours, theirs in rows.values())
    figures["counts are equal"] = all(counted[name] == raw[name] for name in counted)
    if per_image is not None:
        figures["largest difference of an image's CIDEr"] = float(np.abs(consensus - per_image).max())
    return figures


def _judgements(folder: Path) -> dict[str, float]:
    """Correlate scores with experts' ratings of captions; a photograph's own captions are left out."""
    texts: dict[str, str] = {}
    own: defaultdict[str, list[str]] = defaultdict(list)
    for line in _read(folder / "Flickr8k.token.txt").splitlines():
        name, _, text = line.partition("\t")
        texts[name] = text
        own[name.partition("#")[0]].append(text)
    given, known, ratings = [], [], []
    for line in _read(folder / "ExpertAnnotations.txt").splitlines():
        image, caption, *marks = line.split("\t")
        if caption.partition("#")[0] == image or texts[caption] in own[image]:
            continue
        given.append(scored_tokens(texts[caption]))
        known.append([scored_tokens(text) for text in own[image]])
        ratings += [int(mark) for mark in marks]
    marks_of = np.array(ratings)
    scored = {"CIDEr": cider(given, known), "BLEU-4": bleu(given, known).per_image[:, 3], "ROUGE-L": rouge_l(given, known)}
    taus = {name: kendall_tau_c(np.repeat(values, _RATINGS), marks_of) for name, values in scored.items()}
    return {"pairs": len(given), **taus}


def coco_captions(folder: Path) -> Texts:
    """Return COCO's captions by image, images and captions in ascending order of their ids."""
    document = json.loads(_read(folder / "captions_val2017.json.gz"))
    found: defaultdict[int, list[str]] = defaultdict(list)
    for record in sorted(document["annotations"], key=lambda record: record["id"]):
        found[record["image_id"]].append(record["caption"])
    return {str(image): found[image] for image in sorted(found)}


def _read(path: Path) -> str:
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8") as file:
                return file.read()
        return path.read_text(encoding="utf-8")
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}); name the folder of the recorded figures") from error
