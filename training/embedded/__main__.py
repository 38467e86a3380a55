"""The recipe of the embedded checkpoint: `python -m training.embedded --data FOLDER --captions FILE --previous FOLDER --run RUN`.

Every step leaves a file or a folder in RUN and is skipped if it is there: run the same command again after an interruption.
docs/checkpoints.md says what the data folder holds and how long the steps take.
"""

from __future__ import annotations

import model  # isort: skip  # noqa: F401  before torch is imported

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import train
from corpus import CaptionDataset, open_dataset
from model import (
    SHARD_BYTES,
    CaptionerError,
    CaptionTokenizer,
    available_threads,
    load_checkpoint,
    save_checkpoint,
)
from training.embedded.choose import rank_candidates, unlabelled_entries
from training.embedded.data import EmbeddedData, write_weak
from training.embedded.start import LANGUAGES, start_network, with_languages
from training.embedded.weak import WeakCaptions, weak_captions

NEW_TOKENS = {"en": 900, "zh": 1000, "ar": 1200, "hi": 796}
CANDIDATES = 20  # captions of a photograph that the captioner ranks
MAX_SOURCES = 8  # images that the captions of an image come from
FIRST_CAPTIONS, SECOND_CAPTIONS = 6, 5  # of an image in each round, at most


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps that are left; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.embedded", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data")
    parser.add_argument("--captions", type=Path, required=True, help="COCO captions, json or json.gz: text without images")
    parser.add_argument("--previous", type=Path, required=True, help="the checkpoint to start from")
    parser.add_argument("--run", type=Path, required=True, help="folder for everything that is computed")
    parser.add_argument("--seed", type=int, default=1, help="random seed of the trainings")
    options = parser.parse_args(arguments)
    try:
        torch.set_num_threads(available_threads())
        Recipe(EmbeddedData(options.data, options.captions), options.previous, options.run, options.seed).build()
    except (CaptionerError, OSError) as error:
        print(f"training.embedded: {error}", file=sys.stderr)
        return 1
    return 0


class Recipe:
    """The steps, in order."""

    def __init__(self, data: EmbeddedData, previous: Path, run: Path, seed: int) -> None:
        self.data, self.previous, self.run, self.seed = data, previous, run, seed

    def build(self) -> None:
        """Run the steps that are left. The result is RUN/second/last."""
        self.run.mkdir(parents=True, exist_ok=True)
        self.texts = self.data.texts()
        self.prepare()
        self.train("first", self.run / "start", self.weak(1), ["--text", str(self.run / "text.txt")], images=4000, epochs=1)
        self.choose_again()
        self.train("second", self.run / "first" / "last", self.weak(2), [], images=0, epochs=6)
        print(f"trained: {self.run / 'second' / 'last'}; docs/checkpoints.md says how it is calibrated and judged")

    def weak(self, number: int) -> Path:
        """The weak captions of a round. The folders have one name: its images' features are computed once."""
        return self.run / f"round-{number}" / "weak"

    def prepare(self) -> None:
        """Write the weak captions of the first round, the text, and the start checkpoint."""
        if not (self.run / "candidates.json").exists():
            finder = WeakCaptions(self.texts)
            candidates = {
                image: finder.candidates(boxes, CANDIDATES) for image, boxes in self.data.unlabelled_detections().items()
            }
            first = {image: weak_captions(self.texts, best, MAX_SOURCES, FIRST_CAPTIONS) for image, best in candidates.items()}
            write_weak(self.weak(1), self.data.unlabelled, first)
            (self.run / "text.txt").write_text("".join(f"{text.caption}\n" for text in self.texts), encoding="utf-8")
            _write_json(self.run / "candidates.json", candidates)
        if not (self.run / "start").exists():
            previous = load_checkpoint(self.previous)
            torch.manual_seed(self.seed)
            tokenizer = self._tokenizer(previous.tokenizer)
            network = start_network(previous, tokenizer, self.data.detector)
            save_checkpoint(
                self.run / "start", network.config, network.state_dict(), tokenizer, "The start of a training.\n",
                dtype=torch.float16, shard_bytes=SHARD_BYTES,
            )  # fmt: skip

    def choose_again(self) -> None:
        """Write the weak captions of the second round: those that the first network says its images raise most."""
        if (self.weak(2) / "captions.en.jsonl").exists():
            return
        checkpoint = load_checkpoint(self.run / "first" / "last")
        entries, cache = unlabelled_entries(self.weak(1), checkpoint, self.run / "features")
        candidates = json.loads((self.run / "candidates.json").read_text(encoding="utf-8"))
        ranked = rank_candidates(checkpoint, entries, cache, self.texts, candidates)
        chosen = {image: weak_captions(self.texts, best, MAX_SOURCES, SECOND_CAPTIONS) for image, best in ranked.items()}
        write_weak(self.weak(2), self.data.unlabelled, chosen)

    def train(self, name: str, init: Path, weak: Path, more: Sequence[str], *, images: int, epochs: int) -> None:
        """Run train.py, or continue it; finished runs are left alone."""
        run = self.run / name
        if (run / "finished").exists():
            return
        flags = ["--run", str(run)]
        if (run / "state.pt").exists():
            flags.append("--resume")
        else:
            for data in (self.data.flickr8k, weak, self.data.pascal, "scenes:1500"):
                flags += ["--data", str(data)]
            for language in LANGUAGES[1:]:
                flags += ["--more-languages", language]
            for folder in ("flickr8k", "coco_unlabelled", "pascal1k"):
                flags += ["--detections", str(self.data.detections(folder))]
            flags += ["--init", str(init), "--feature-cache", str(self.run / "features"), "--seed", str(self.seed), *more]
            flags += ["--max-images-per-epoch", str(images), "--epochs", str(epochs), *TRAINING_FLAGS]
        if train.main(flags):
            raise CaptionerError(f"the training in {run} has failed; the lines above say why")
        (run / "finished").touch()

    def _tokenizer(self, tokenizer: CaptionTokenizer) -> CaptionTokenizer:
        corpora = {"en": ([text.caption for text in self.texts], NEW_TOKENS["en"])}
        for language in LANGUAGES[1:]:
            dataset: CaptionDataset = open_dataset(str(self.data.flickr8k), language=language)
            captions = [text for entry in dataset.split("train") for text in entry.captions]
            corpora[language] = (captions, NEW_TOKENS[language])
        return with_languages(tokenizer, corpora)


_FLAGS = (
    "--region-weight 0.15 --num-views 1 --captions-per-image 3 --lr 2e-4 --dropout 0.1 --ema-decay 0.995 --val-share 0 "
    "--eval-images 200 --max-caption-tokens 48 --no-check"
)
TRAINING_FLAGS = tuple(_FLAGS.split())


def _write_json(path: Path, value: object) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value), encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
