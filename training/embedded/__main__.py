"""The recipe of the embedded checkpoint: `python -m training.embedded --data FOLDER --captions FILE --previous FOLDER --run RUN`.

Every step leaves a file or a folder in RUN and is skipped if it is there: run the same command again after an interruption.
docs/checkpoints.md says what the data folder holds and how long the steps take.
"""

from __future__ import annotations

import model  # isort: skip  # noqa: F401  before torch is imported

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import train
from corpus import CaptionDataset, open_dataset
from model import (
    SHARD_BYTES,
    CaptionerError,
    CaptionNetwork,
    CaptionTokenizer,
    available_threads,
    load_checkpoint,
    save_checkpoint,
)
from training.embedded.data import EmbeddedData, write_weak
from training.embedded.finish import finish
from training.embedded.start import LANGUAGES, interpolated, start_network, with_tokens
from training.embedded.weak import WeakCaptions, weak_captions
from training.embedded.words import WordProbe, pooled, rank_by_words
from training.features import FrozenPart, cached_features

NEW_TOKENS = {"en": 900, "zh": 1000, "ar": 1200, "hi": 796}
CANDIDATES = 300  # captions that fit what is detected in a photograph, to be ranked
FIRST_CHOICE = (8, 6)  # images that the captions of a photograph come from, and captions, at most
CHOICE = (10, 8)
TRAINED_SHARE = 0.8  # of the weights after the first training, the rest are those of the start (docs/decisions.md)
_COMMON = (
    "--region-weight 0.25 --num-views 1 --dropout 0.1 --val-share 0 --eval-images 100 --max-caption-tokens 48 "
    "--no-check --batch-size 32"
)
_FIRST = "--ema-decay 0.995 --captions-per-image 3 --lr 3e-4 --max-steps 866"
_SECOND = "--ema-decay 0.99 --captions-per-image 2 --lr 7e-5 --max-steps 320 --self-critical-weight 0.8 --num-samples 5"
FIRST_FLAGS = tuple(f"{_COMMON} {_FIRST}".split())
SECOND_FLAGS = tuple(f"{_COMMON} {_SECOND}".split())


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
        """Run the steps that are left. The result is RUN/default, with its figures in RUN/figures."""
        self.run.mkdir(parents=True, exist_ok=True)
        self.prepare()
        self.choose()
        self.train("first", self.run / "start", FIRST_FLAGS)
        self.mix()
        self.train("second", self.run / "mixed", SECOND_FLAGS)
        print(f"the checkpoint is {finish(self.data, self.run / 'second' / 'last', self.run)}; its figures are beside it")

    def prepare(self) -> None:
        """Write the start checkpoint: the previous one with the detector, more tokens and more languages."""
        if (self.run / "start").exists():
            return
        previous = load_checkpoint(self.previous)
        torch.manual_seed(self.seed)
        network, tokenizer = start_network(previous, self._tokenizer(previous.tokenizer), self.data.detector)
        self._save("start", network, tokenizer)

    def choose(self) -> None:
        """Write the weak captions: candidates by what is detected, then ranked by the words that fit the photograph."""
        weak = self.run / "weak"
        if (weak / "captions.en.jsonl").exists():
            return
        texts, detections = self.data.texts(), self.data.unlabelled_detections()
        finder = WeakCaptions(texts)
        candidates = {image: finder.candidates(boxes, CANDIDATES) for image, boxes in detections.items()}
        captions = {image: weak_captions(texts, own, *FIRST_CHOICE) for image, own in candidates.items()}
        write_weak(weak.with_name("detected") / "weak", self.data.unlabelled, captions)  # the same name: the same features
        network = load_checkpoint(self.run / "start").network
        unlabelled = open_dataset(str(weak.with_name("detected") / "weak")).split("train")
        captioned = open_dataset(str(self.data.flickr8k)).split("train")
        features = {
            name: pooled(cached_features(self.run / "features", network, FrozenPart("stem"), entries, 1, torch.float32, name))
            for name, entries in (("weak", unlabelled), ("flickr8k", captioned))
        }
        probe = WordProbe([text.caption for text in texts] + [text for entry in captioned for text in entry.captions])
        probe.fit(torch.cat(list(features.values())), [entry.captions for entry in unlabelled + captioned])
        own = [candidates[entry.image_id] for entry in unlabelled]
        ranked = rank_by_words(probe.raises(features["weak"]), probe.occurrences([text.caption for text in texts]), own)
        chosen = [weak_captions(texts, best, *CHOICE) for best in ranked]
        write_weak(weak, self.data.unlabelled, dict(zip((entry.image_id for entry in unlabelled), chosen, strict=True)))

    def mix(self) -> None:
        """Write the checkpoint between the start and the first training."""
        if (self.run / "mixed").exists():
            return
        before, after = (load_checkpoint(self.run / name) for name in ("start", "first/last"))
        network = interpolated(before.network, after.network, TRAINED_SHARE)
        self._save("mixed", network, after.tokenizer)

    def _save(self, name: str, network: CaptionNetwork, tokenizer: CaptionTokenizer) -> None:
        save_checkpoint(
            self.run / name, network.config, network.state_dict(), tokenizer, "A step of a training.\n",
            dtype=torch.float16, shard_bytes=SHARD_BYTES,
        )  # fmt: skip

    def train(self, name: str, init: Path, more: Sequence[str]) -> None:
        """Run train.py, or continue it; finished runs are left alone."""
        run = self.run / name
        if (run / "finished").exists():
            return
        flags = ["--run", str(run)]
        if (run / "state.pt").exists():
            flags.append("--resume")
        else:
            for data in (self.data.flickr8k, self.run / "weak", self.data.pascal, "scenes:1500"):
                flags += ["--data", str(data)]
            for language in LANGUAGES[1:]:
                flags += ["--more-languages", language]
            for folder in ("flickr8k", "coco_unlabelled", "pascal1k"):
                flags += ["--detections", str(self.data.detections(folder))]
            flags += ["--init", str(init), "--feature-cache", str(self.run / "features")]
            flags += ["--seed", str(self.seed), *more]
        if train.main(flags):
            raise CaptionerError(f"the training in {run} has failed; the lines above say why")
        (run / "finished").touch()

    def _tokenizer(self, tokenizer: CaptionTokenizer) -> CaptionTokenizer:
        corpora = {"en": ([text.caption for text in self.data.texts()], NEW_TOKENS["en"])}
        for language in LANGUAGES[1:]:
            dataset: CaptionDataset = open_dataset(str(self.data.flickr8k), language=language)
            captions = [text for entry in dataset.split("train") for text in entry.captions]
            corpora[language] = (captions, NEW_TOKENS[language])
        return with_tokens(tokenizer, corpora)


if __name__ == "__main__":
    sys.exit(main())
