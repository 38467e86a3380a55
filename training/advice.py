"""Advice before a run starts: what is known to give a useless model, with the command that would do better."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpus import is_synthetic, matches_language
from model import DEFAULT_CHECKPOINT
from training.arguments import command_line
from training.config import NETWORK_FLAGS, TrainConfig
from training.schedule import MIN_STEPS, batches_per_epoch, count_steps
from training.sources import Source

MIN_IMAGES = 1_000  # for a new network: with fewer it writes one caption for all images
FEW_IMAGES = 4_000  # for a new network: with fewer its captions are poor
FEW_VALIDATION_IMAGES = 50
_COMMON_SHARE = 0.5  # of the images: a caption that so many share is suspicious
_FILE_NAME = re.compile(r"[^\s]+\.(jpe?g|png|webp|gif|bmp|tiff?)|[\d_-]+", re.IGNORECASE)


def refusal(config: TrainConfig, flags: dict[str, Any], sources: Sequence[Source]) -> str:
    """Return why a new network cannot be trained on this data, with the command that would do better; "" if it can.

    `config` has a length; `flags` are those of the command line.
    """
    images = sum(len(source.train) + len(source.held_out) for source in sources)
    if config.init or config.from_scratch or images >= MIN_IMAGES or any(map(is_synthetic, config.data)):
        return ""
    return (
        f"{images} images are too few to train a new network (at least {MIN_IMAGES:,}, better {FEW_IMAGES:,}): it would learn "
        f"one caption for all images. Start from a checkpoint:\n\n    {better_command(config, flags)}\n\n"
        "or train a new network all the same with --from-scratch"
    )


def warnings(config: TrainConfig, flags: dict[str, Any], sources: Sequence[Source]) -> list[str]:
    """Return what will probably go wrong, most serious first, each with what to do. `config` has a length."""
    return [*_about_length(config, flags, sources), *_about_validation(config, sources), *_about_captions(config, sources)]


def better_command(config: TrainConfig, flags: dict[str, Any]) -> str:
    """Return the command line of a run that starts from the embedded checkpoint instead of a new network."""
    kept = {name: value for name, value in flags.items() if name not in NETWORK_FLAGS | {"from_scratch", "freeze"}}
    return command_line(kept | {"init": os.path.relpath(DEFAULT_CHECKPOINT)})


def _about_length(config: TrainConfig, flags: dict[str, Any], sources: Sequence[Source]) -> list[str]:
    texts = []
    images = sum(len(source.train) for source in sources)
    if not config.init and images < FEW_IMAGES:
        texts.append(
            f"a new network learns little from {images:,} images; {better_command(config, flags)} starts from a checkpoint"
        )
    steps, enough = count_steps(config, sources), MIN_STEPS["init" if config.init else "new"]
    if steps < enough:
        epochs = -(-enough // batches_per_epoch(config, sources))
        start = "a checkpoint" if config.init else "a new network"
        texts.append(
            f"{steps} steps are few: {start} needs at least {enough:,}; use --epochs {epochs}, or no flag for the length"
        )
    if config.warmup_ratio > 0.5:
        texts.append(f"the learning rate rises during {config.warmup_ratio:.0%} of the steps; use --warmup-ratio 0.06")
    return texts


def _about_validation(config: TrainConfig, sources: Sequence[Source]) -> list[str]:
    texts = []
    for source in sources[:1]:  # RUN/best is chosen by the first
        count = min(len(source.validation), config.eval_images)
        if not count:
            remedy = (
                "use --eval-images 400" if source.validation else "leave out --val-share 0" if not config.val_share else
                "add images, or give some the split val"
            )  # fmt: skip
            texts.append(f"{source.name} has no validation images: RUN/best will be the last weights; {remedy}")
        elif count < FEW_VALIDATION_IMAGES:
            texts.append(f"{source.name} has only {count} validation images: their scores are rough; read the captions, too")
    return texts


def _about_captions(config: TrainConfig, sources: Sequence[Source]) -> list[str]:
    texts = []
    for source in sources:
        entries = source.train
        if is_synthetic(source.name) or not entries:
            continue
        common, count = Counter(text for entry in entries for text in set(entry.captions)).most_common(1)[0]
        if len(entries) > 1 and count > _COMMON_SHARE * len(entries):
            texts.append(f"{source.name}: {count} of {len(entries)} images have the caption {common!r}; check the column")
        names = {Path(entry.image_id).name.lower() for entry in entries}
        like_names = [text for entry in entries for text in entry.captions if _FILE_NAME.fullmatch(text) or text in names]
        if len(like_names) > _COMMON_SHARE * len(entries):
            texts.append(f"{source.name}: captions such as {like_names[0]!r} look like file names; check the column")
        if max(len(entry.captions) for entry in entries) == 1:
            texts.append(f"{source.name} has one caption per image: several by different people give better captions and scores")
        if config.init and not matches_language(config.language, "en") and Path(config.init).resolve() == DEFAULT_CHECKPOINT:
            texts.append(f"{config.init} writes English: captions in {config.language!r} need some thousand images")
    return texts
