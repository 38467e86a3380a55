"""The command line of train.py: flags in groups, presets, and command lines for messages."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from model import ConfigError, add_flags, flag_values
from training.config import NETWORK_FLAGS, TrainConfig, flag_of, restored_config

# Flags that the command line sets itself replace these; with --init the fields of a new network are left out.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    # Some thousand images on a CPU: Flickr8k's size. The stem is frozen and cached, all captions share an encoder pass.
    "small": {"num_views": 4, "captions_per_image": 5, "dropout": 0.2, "text_epochs": 1, "epochs": 21, "patience": 5},
    # A hundred thousand images on one GPU: a pretrained ViT, its encoder frozen at first, then trained with layer-wise decay.
    "coco": {
        "encoder": "vit_base_patch16_clip_224.openai", "pretrained": True, "hidden_size": 512, "num_heads": 8,
        "decoder_layers": 6, "vocab_size": 8000, "freeze": "none", "frozen_epochs": 2, "num_views": 2, "lr": 3e-4,
        "encoder_lr_multiplier": 0.1, "layer_decay": 0.75, "batch_size": 256, "epochs": 20, "ema_decay": 0.9995,
        "drop_path": 0.1, "min_crop_area": 0.5,
        "rand_augment": 2, "rand_augment_magnitude": 5, "drop_worst_ratio": 0.2, "patience": 5, "eval_images": 1000,
    },
    # A converted checkpoint and some hundred images of one's own: the encoder stays, LoRA in the decoder, stop when it is best.
    "finetune": {"freeze": "encoder", "lora_rank": 16, "lr": 5e-4, "num_views": 2, "dropout": 0.0, "patience": 4},
}  # fmt: skip

FLAG_GROUPS: Mapping[str, tuple[str, ...]] = {
    "run": ("run", "init", "preset", "resume", "dry_run", "from_scratch", "check", "license", "seed"),
    "data": (
        "data", "language", "more_languages", "text", "detections", "val_share", "max_images_per_epoch", "captions_per_image",
        "max_caption_tokens", "feature_cache", "workers", "shuffle_images",
    ),
    "length and learning rate": (
        "epochs", "max_steps", "batch_size", "lr", "encoder_lr_multiplier", "layer_decay", "weight_decay", "warmup_ratio",
        "max_grad_norm", "ema_decay", "patience",
    ),
    "recipe": (
        "freeze", "frozen_epochs", "text_epochs", "lora_rank", "lora_alpha", "label_smoothing", "dropout", "drop_path",
        "unconditional_ratio", "drop_worst_ratio", "drop_worst_after", "word_presence_weight", "region_weight",
        "self_critical_weight", "num_samples", "teacher", "teacher_weight",
    ),
    "images": ("num_views", "min_crop_area", "rand_augment", "rand_augment_magnitude"),
    "a new network": (
        "encoder", "pretrained", "vocab_size", "image_size", "stem", "stem_strides", "stem_weights", "patch_size", "hidden_size",
        "num_heads", "encoder_layers", "decoder_layers", "num_register_tokens", "class_token", "null_key",
    ),
    "validation and saves": ("eval_images", "eval_epochs", "save_steps", "sample_images"),
    "machine": ("device", "dtype", "threads", "accumulate", "gradient_checkpointing", "compile", "fsdp"),
}  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of train.py: a flag for every field."""
    parser = argparse.ArgumentParser(prog="train.py", description="Train a captioner on captioned images.", allow_abbrev=False)
    for title, names in FLAG_GROUPS.items():
        add_flags(parser.add_argument_group(title), TrainConfig, names=names)
    return parser


def parse_arguments(arguments: Sequence[str] | None = None) -> TrainConfig:
    """Read the command line into a TrainConfig; wrong use ends with status 2."""
    parser = make_parser()
    try:
        config = restored_config(with_preset(flag_values(TrainConfig, parser.parse_args(arguments))))
    except ConfigError as error:
        name, _, rest = str(error).partition(" ")
        parser.error(f"{flag_of(name)} {rest}" if name in TrainConfig.__dataclass_fields__ else str(error))
    if not config.run:
        parser.error("--run FOLDER is required: the folder for checkpoints")
    if not config.data and not config.resume:
        parser.error("--data DATA is required: a file or folder of captioned images, or scenes:COUNT")
    return config


def with_preset(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a preset's fields, replaced by those of the flags."""
    preset = PRESETS.get(flags.get("preset", "none"), {})
    left_out = NETWORK_FLAGS if flags.get("init") else frozenset()
    return {name: value for name, value in preset.items() if name not in left_out} | dict(flags)


def used_flags(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the values of the flags that a command line has, by field."""
    return flag_values(TrainConfig, make_parser().parse_args(arguments))


def command_line(values: Mapping[str, Any]) -> str:
    """Return the command of a run with these values of fields."""
    return shlex.join(["python", "train.py", *(word for name, value in values.items() for word in flag_words(name, value))])


def flag_words(name: str, value: Any) -> list[str]:
    """Return the words of a command line that give a field a value."""
    flag = flag_of(name)
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, list | tuple):
        is_repeated = all(isinstance(entry, str) for entry in value)
        return [word for entry in value for word in (flag, entry)] if is_repeated else [flag, *map(str, value)]
    return [flag, str(value)]


def presets_table() -> str:
    """Return the presets as a Markdown table: a row for each, with its flags."""
    rows = ["| preset | flags |", "|---|---|"]
    for name, values in PRESETS.items():
        if values:
            rows.append(
                f"| `{name}` | `{' '.join(word for field, value in values.items() for word in flag_words(field, value))}` |"
            )
    return "\n".join(rows)
