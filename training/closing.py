"""The last lines of a run: where the weights are, what the score means, whether the model can be used, and what to do next."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus import CaptionedImage, is_synthetic
from evaluation import best_constant_caption
from training.advice import FEW_VALIDATION_IMAGES
from training.config import TrainConfig
from training.progress import Progress
from training.sources import Source, validation_ids_name

_CAPTIONS_NAME = "validation_captions.json"
_LATE = 0.8  # of the steps: a score that still rose then may rise further
_MAX_CANDIDATES = 5_000  # training captions that may be the best constant caption


@dataclass(frozen=True, slots=True)
class Judgement:
    """How the captions of a run's best weights compare with one caption for all images."""

    captions: Mapping[str, str]  # of validation images, or of some training images if there are none
    references: Mapping[str, Sequence[str]]
    cider: float | None = None  # None without validation images
    constant: float = 0.0  # CIDEr of the best constant caption
    before: float | None = None  # CIDEr of the checkpoint of --init

    @property
    def problem(self) -> str:
        """Why the model cannot be used, "" if there is no sign of that."""
        varied = len({text for texts in self.references.values() for text in texts}) > 1
        if varied and len(self.captions) > 1 and len(set(self.captions.values())) == 1:
            return f"it writes one caption for all images, {next(iter(self.captions.values()))!r}"
        if varied and self.cider is not None and self.cider < self.constant:
            return "its captions are worse than the best single caption for all images"
        return ""


def judge(
    config: TrainConfig, progress: Progress, source: Source, entries: Sequence[CaptionedImage], captions: Mapping[str, str] | None
) -> Judgement:
    """Judge a run by the captions of `entries`: those that are passed, or None for those of the best validation."""
    references = {entry.image_id: list(entry.captions) for entry in entries}
    if captions is not None:
        return Judgement(captions, references)
    candidates = [text for entry in source.train for text in entry.captions][:_MAX_CANDIDATES]
    constant = best_constant_caption(candidates, references, language=config.language)[1].cider
    return Judgement(_validation_captions(Path(config.run)), references, progress.best, constant, progress.before)


def write_validation_captions(run: Path, captions: Mapping[str, str]) -> None:
    """Write the captions of the best validation as COCO results, which `python -m evaluation captions --results` reads."""
    rows = [{"image_id": name, "caption": text} for name, text in captions.items()]
    partial = run / f"{_CAPTIONS_NAME}.partial"
    partial.write_text(json.dumps(rows, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    os.replace(partial, run / _CAPTIONS_NAME)


def closing_text(config: TrainConfig, progress: Progress, source: Source, judgement: Judgement) -> str:
    """Return the last lines of a run."""
    run, best = config.run, f"{config.run}/best"
    minutes = progress.seconds / 60
    lines = ["", f"{progress.step} steps in {minutes:.1f} minutes"]
    if judgement.cider is None:
        lines.append(f"{best} and {run}/last have the last weights; without validation images no better ones can be chosen")
    else:
        count = len(judgement.references)
        before = f", {100 * judgement.before:.1f} before training" if judgement.before is not None else ""
        lines += [
            f"{best} has the weights of step {progress.best_step}, the best in validation; {run}/last has the last ones",
            f"greedy CIDEr {100 * judgement.cider:.1f} on {count} validation {'image' if count == 1 else 'images'}{before}: "
            f"agreement with people's captions; one caption for all images reaches {100 * judgement.constant:.1f}",
        ]
        if count < FEW_VALIDATION_IMAGES:
            lines.append(
                f"{count} validation images are too few to say whether that is an improvement: compare both checkpoints on other "
                "images, and read the captions"
            )
        if judgement.before is not None and progress.best_step == 0:
            lines.append(f"No step was better than {config.init}: {best} is a copy of it. Lower --lr, or add images.")
    if judgement.problem:
        lines += [f"NOT USABLE: {judgement.problem}.", *_remedies(config)]
    checkpoint, data = shlex.quote(best), shlex.quote(config.data[0])
    split = f"--validation-ids {shlex.quote(f'{run}/{validation_ids_name(0)}')}" if source.held_out else "--split val"
    commands = [("caption an image", f"python -m model caption IMAGE --checkpoint {checkpoint}")]
    if judgement.cider is not None and not is_synthetic(source.name):
        language = "" if config.language == "en" else f" --language {config.language}"
        commands.append(("scores", f"python -m evaluation captions --data {data} {split}{language} --checkpoint {checkpoint}"))
    commands.append(("serve", f"python -m service --checkpoint {checkpoint}"))
    if progress.best_step > _LATE * progress.step:
        commands.append(("train longer", f"python train.py --run {shlex.quote(run)} --resume --epochs {2 * config.epochs}"))
    lines += ["", "Next:", *(f"    {what:<17} {command}" for what, command in commands)]
    return "\n".join(lines)


def _remedies(config: TrainConfig) -> list[str]:
    """Return what would help, most likely first."""
    texts = ["start from a checkpoint: --init model/default"] if not config.init else []
    return [
        "What would help:",
        *(f"    - {text}" for text in [
            *texts,
            "check that images and captions match: python -m corpus show DATA page.html",
            "more images, and several captions of each",
            f"a lower learning rate than --lr {config.peak_lr:g}, or more --epochs than {config.epochs}",
        ]),
    ]  # fmt: skip


def _validation_captions(run: Path) -> dict[str, str]:
    path = run / _CAPTIONS_NAME  # a run of an older version may not have it
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return {row["image_id"]: row["caption"] for row in rows}
