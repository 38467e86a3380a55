"""An ablation of a training recipe: runs of train.py that differ in one flag, over several seeds, scored by validation.

The features of the frozen stem are cached once for all runs. A run that is complete is not repeated, and one that was interrupted
goes on: run the same command again.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corpus import open_dataset
from evaluation import score_captions
from model import CaptionerError

# A small new network over a frozen stem.
_COMMON = (
    "--stem-strides 32 --hidden-size 128 --num-heads 4 --encoder-layers 1 --decoder-layers 2 --vocab-size 2048 --num-views 1 "
    "--batch-size 48 --captions-per-image 3 "
    "--lr 1e-3 --eval-epochs 1000 --eval-images 1000 --ema-decay 0.98 --sample-images 0 --no-check"
)
ROWS: Mapping[str, str] = {
    "baseline": "",
    "without no-image conditioning": "--unconditional-ratio 0",
    "without averaged weights": "--ema-decay 0",
    "one caption per encoder pass": "--captions-per-image 1",
    "worst 20 % of captions dropped": "--drop-worst-ratio 0.2",
    "word presence": "--word-presence-weight 0.02",
    "an epoch of text first": "--text-epochs 1",
}
_RESAMPLES = 1_000


def run_ablation(
    data: str, folder: Path, steps: int, seeds: Sequence[int], rows: Sequence[str] = (), threads: int = 0
) -> dict[str, Any]:
    """Train and score every row with every seed; returns CIDEr and its difference from the baseline, with 95 % intervals.

    The interval of a difference is that of resampled images, of the mean over the seeds; `per seed` shows their spread.
    """
    references = {entry.image_id: list(entry.captions) for entry in open_dataset(data).split("val")[:1000]}
    scores = {
        name: [_scored(_trained(data, folder, name, steps, seed, threads), references) for seed in seeds] for name in rows or ROWS
    }
    baseline = scores.get("baseline")
    figures: dict[str, Any] = {}
    for name, runs in scores.items():
        figures[name] = {
            "CIDEr": round(100 * statistics.mean(run["cider"] for run in runs), 1),
            "per seed": " ".join(f"{100 * run['cider']:.1f}" for run in runs),
            "words": round(statistics.mean(run["words"] for run in runs), 1),
            "distinct": round(100 * statistics.mean(run["distinct"] for run in runs)),
        }
        if baseline is not None and name != "baseline":
            differences = np.mean([run["images"] - base["images"] for run, base in zip(runs, baseline, strict=True)], axis=0)
            low, high = _interval(differences)
            figures[name]["difference"] = f"{100 * differences.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    return figures


def _trained(data: str, folder: Path, name: str, steps: int, seed: int, threads: int) -> Path:
    """Train a row with a seed, unless it is there; returns the captions of the validation images."""
    run = folder / f"{name.replace(' ', '-').replace('%', 'percent')}-{seed}"
    captions = run / "validation_captions.json"
    command = [sys.executable, str(Path(__file__).parent.parent / "train.py"), "--run", str(run)]
    if not (run / "finished").exists():
        if (run / "state.pt").exists():
            command.append("--resume")
        else:
            text_steps = -(-_num_captions(data) // (48 * 3)) if "--text-epochs" in ROWS[name] else 0
            command += ["--data", data, "--seed", str(seed), "--max-steps", str(steps + text_steps), "--threads", str(threads)]
            command += ["--feature-cache", str(folder / "features"), *_COMMON.split(), *ROWS[name].split()]
        result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if result.returncode:
            raise CaptionerError(f"the training of {name!r} has failed: {result.stderr.strip().splitlines()[-1]}")
        (run / "finished").touch()
    return captions


def _num_captions(data: str) -> int:
    return sum(len(entry.captions) for entry in open_dataset(data).split("train"))


def _scored(path: Path, references: dict[str, list[str]]) -> dict[str, Any]:
    captions = {row["image_id"]: row["caption"] for row in json.loads(path.read_text(encoding="utf-8"))}
    scores = score_captions({image: captions[image] for image in references}, references, resamples=0)
    return {"cider": scores.cider, "words": scores.words, "distinct": scores.distinct, "images": scores.per_image["CIDEr"]}


def _interval(values: Any) -> tuple[float, float]:
    """Return the 95 % interval of the mean over resampled images."""
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
