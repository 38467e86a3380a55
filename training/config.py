"""Everything that a training run can be told; every field is a flag of train.py."""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from model import ConfigError, DtypeName

NETWORK_FLAGS = frozenset(  # what a new network is made of; a checkpoint to start from brings its own
    {
        "encoder", "pretrained", "vocabulary", "image_size", "stem", "stem_strides", "stem_weights", "patch_size", "width",
        "heads", "encoder_depth", "decoder_depth", "registers", "class_token", "null_key",
    }
)  # fmt: skip

ENCODER_FLAGS = frozenset(  # what an encoder of one's own is made of; one that timm knows brings its own
    {"stem", "stem_strides", "stem_weights", "patch_size", "encoder_depth", "registers", "class_token"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """A run: data, network, optimiser. Fractions are of 1, rates per step."""

    data: tuple[str, ...] = ()  # files, folders, scenes:COUNT or places:COUNT; the first one's validation score chooses the best
    run: str = ""  # folder for checkpoints and state
    init: str = ""  # checkpoint folder to start from; empty: a new network
    resume: bool = False  # go on with the run in --run, with its own settings
    dry_run: bool = False  # say what the run would cost, then stop
    check: bool = True  # look at all data first, and stop where it has errors (python -m corpus check)
    cache: str = ""  # folder for the frozen stem's features; empty: RUN/features
    language: str = "en"
    licence: str = ""  # of the checkpoints, such as CC BY 4.0; empty: that of --init, else none is told (push needs one)
    seed: int = 0
    epochs: int = 8
    steps: int = 0  # stop after this many steps; 0: after the epochs
    batch: int = 64  # pictures a step
    epoch_pictures: int = 0  # pictures of one source that an epoch goes through at most, drawn anew; 0: all
    captions: int = 5  # captions of a picture behind one encoder pass, at most
    views: int = 4  # crops and mirror images kept of each photograph; 1: only itself
    longest: int = 40  # tokens of a training caption, at most
    vocabulary: int = 4096
    encoder: str = ""  # a timm ViT by name, such as vit_base_patch16_clip_224.openai; empty: made of the flags below
    pretrained: bool = False  # begin with the weights that timm has for --encoder, from the hub or its cache
    image_size: int = 0  # pixels a side; 0: the encoder's own, else 224
    stem: str = "tf_efficientnet_lite2"  # timm backbone; empty: plain patches
    stem_strides: tuple[int, ...] = (16, 32)
    stem_weights: Literal["packaged", "timm", "none"] = "packaged"  # packaged: from a Python package, no hub needed
    patch_size: int = 16  # pixels a side, without a stem
    width: int = 384
    heads: int = 6
    encoder_depth: int = 2
    decoder_depth: int = 3
    registers: int = 0
    class_token: bool = True
    null_key: bool = True
    freeze: Literal["auto", "stem", "encoder", "none"] = "auto"  # what stays as it is; auto: a stem, else what brings weights
    encoder_rate: float = 1.0  # the encoder's rate over the decoder's
    rate: float = 6e-4  # peak, AdamW
    weight_decay: float = 0.05
    warmup: float = 0.06  # share of the steps
    clip: float = 1.0  # largest norm of the gradient
    smoothing: float = 0.1  # label smoothing
    dropout: float = 0.15
    drop_path: float = 0.05
    no_image: float = 0.1  # share of pictures replaced by the no-image embedding
    average: float = 0.999  # decay of the weight average
    validate: int = 400  # pictures of each source's validation split, captioned greedily
    validate_every: int = 1  # epochs
    checkpoint_every: int = 200  # steps
    dtype: DtypeName = "auto"
    threads: int = 0  # 0: the machine's quota
    shuffle_pictures: bool = False  # the control: every caption belongs to another picture

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "captions", "views", "longest", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be at least 1")
        for name in ("warmup", "smoothing", "dropout", "drop_path", "no_image"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be in 0 … 1, below 1")
        told = [field.name for field in dataclasses.fields(self) if getattr(self, field.name) != field.default]
        if self.init and not self.resume and (foreign := sorted(NETWORK_FLAGS.intersection(told))):
            flags = ", ".join("--" + name.replace("_", "-") for name in foreign)
            raise ConfigError(f"{flags} cannot be used with --init: the network is that of {self.init}; leave one of them out")
        if self.encoder and (foreign := sorted(ENCODER_FLAGS.intersection(told))):
            flags = ", ".join("--" + name.replace("_", "-") for name in foreign)
            raise ConfigError(f"{flags} cannot be used with --encoder {self.encoder}, which is whole; leave one of them out")
        if self.pretrained and not self.encoder:
            raise ConfigError("--pretrained needs --encoder NAME, a ViT that timm knows; a stem has --stem-weights")
        if self.freeze == "stem" and not self.init and (self.encoder or not self.stem):
            raise ConfigError("--freeze stem needs a stem; use --freeze none, or name one with --stem")


def parse_arguments(arguments: Sequence[str] | None = None) -> TrainConfig:
    """Read the command line into a TrainConfig; wrong use ends with status 2."""
    parser = argparse.ArgumentParser(prog="train.py", description="Train a captioner on captioned pictures.", allow_abbrev=False)
    hints = typing.get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        _add_flag(parser, field.name, hints[field.name], field.default)
    try:
        config = restored_config(vars(parser.parse_args(arguments)))
    except ConfigError as error:
        parser.error(str(error))
    if not config.run:
        parser.error("--run FOLDER is needed: the folder for checkpoints")
    if not config.data and not config.resume:
        parser.error("--data DATA is needed: a file or folder of captioned pictures, or scenes:COUNT")
    return config


def restored_config(values: dict[str, Any]) -> TrainConfig:
    """Return the TrainConfig of plain values, as a command line or a run's state holds them."""
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return TrainConfig(**fields)


def _add_flag(parser: argparse.ArgumentParser, name: str, hint: object, default: object) -> None:
    flag = "--" + name.replace("_", "-")
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default)
    elif origin is tuple:
        kind = inner[0]
        nargs = "+" if kind is int else None
        action = "store" if nargs else "append"
        start = default if nargs else list(typing.cast(tuple[str, ...], default))
        parser.add_argument(flag, type=kind, nargs=nargs, action=action, default=start, metavar=name.upper())
    elif origin in (Literal, types.UnionType):
        parser.add_argument(flag, choices=inner, default=default)
    else:
        parser.add_argument(
            flag, type=typing.cast(type, hint), default=default, help=f"default {default!r}", metavar=name.upper()
        )
