"""The settings of a training run. Each is declared once: a flag of train.py, a line of its --help, a row of docs/training.md."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from model import ConfigError, DtypeName, add_flags, check_fields, declared, fields_of, flag_values

NETWORK_FLAGS = frozenset(  # of a new network; a checkpoint of --init has its own
    {
        "encoder", "pretrained", "vocab_size", "image_size", "stem", "stem_strides", "stem_weights", "patch_size", "hidden_size",
        "num_heads", "encoder_layers", "decoder_layers", "num_register_tokens", "class_token", "null_key",
    }
)  # fmt: skip

ENCODER_FLAGS = frozenset(  # of an encoder of our own; one that timm knows has its own
    {"stem", "stem_strides", "stem_weights", "patch_size", "encoder_layers", "num_register_tokens", "class_token"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """A run: data, network, optimizer."""

    data: tuple[str, ...] = declared(
        (), "file or folder of captioned images, scenes:COUNT or positions:COUNT; may be repeated; the first chooses RUN/best"
    )
    run: str = declared("", "folder for checkpoints and state")
    init: str = declared("", "checkpoint to start from: a folder or hub:ID; empty: a new network")
    from_scratch: bool = declared(False, "train a new network although there are few images")
    resume: bool = declared(False, "continue the run in --run with its own settings; --epochs or --max-steps make it longer")
    dry_run: bool = declared(False, "print what the run would cost, then stop")
    check: bool = declared(
        True, "check all data first and stop if it has errors; --no-check leaves out what cannot be used, and reports it"
    )
    feature_cache: str = declared("", "folder for the features of frozen parts; empty: RUN/features")
    language: str = declared("en", "language of the captions, BCP 47")
    more_languages: tuple[str, ...] = declared(
        (), "other languages that the data has captions in: 20 % of its batches have one of them", unit="languages"
    )
    text: str = declared("", "file of captions without images, one per line: learned as captions of no image")
    detections: tuple[str, ...] = declared(
        (), "files of detected objects, for --region-weight and --self-critical-weight; may be repeated"
    )
    region_weight: float = declared(
        0.0, "weight of the loss that keeps the attention of a word on its object: detected ones, and shapes of scenes", minimum=0
    )
    self_critical_weight: float = declared(
        0.0,
        "share of the loss that is the reward of sampled captions: CIDEr, less what --detections does not find; 0: none",
        minimum=0,
        maximum=1,
    )
    num_samples: int = declared(5, "captions sampled per image, for --self-critical-weight", unit="captions", minimum=2)
    license: str = declared("", "license of the checkpoints, such as CC-BY-4.0; empty: that of --init")
    seed: int = declared(0, "random seed")
    epochs: int = declared(
        0, "passes over the data; 0: 8, or more if the data is small, or as --max-steps needs", unit="epochs", minimum=0
    )
    max_steps: int = declared(0, "stop after so many steps; 0: after the epochs", unit="steps", minimum=0)
    batch_size: int = declared(64, "images per step", unit="images", minimum=1)
    max_images_per_epoch: int = declared(
        0, "images of one --data per epoch, drawn anew each time; 0: all", unit="images", minimum=0
    )
    captions_per_image: int = declared(5, "captions of an image that share one encoder pass, at most", minimum=1)
    num_views: int = declared(4, "crops and mirror images kept of each image; 1: only the image", unit="views", minimum=1)
    max_caption_tokens: int = declared(40, "longer training captions are cut", unit="tokens", minimum=1)
    vocab_size: int = declared(4096, "tokens of a new tokenizer", unit="tokens", minimum=1)
    encoder: str = declared("", "timm ViT, such as vit_base_patch16_clip_224.openai; empty: built from the flags below")
    pretrained: bool = declared(False, "start with timm's weights of --encoder, from the hub or its cache")
    image_size: int = declared(0, "pixels per side; 0: the encoder's own, else 224", unit="pixels", minimum=0)
    stem: str = declared("tf_efficientnet_lite2", "timm backbone below the encoder; empty: plain patches")
    stem_strides: tuple[int, ...] = declared((16, 32), "strides of the stem's feature maps", unit="pixels")
    stem_weights: Literal["packaged", "timm", "none"] = declared(
        "packaged", "weights of the stem; packaged: from a Python package, without a hub"
    )
    patch_size: int = declared(16, "pixels per side, without a stem", unit="pixels", minimum=1)
    hidden_size: int = declared(384, "hidden size of encoder and decoder", minimum=1)
    num_heads: int = declared(6, "attention heads of encoder and decoder", minimum=1)
    encoder_layers: int = declared(2, "layers of the encoder", minimum=0)
    decoder_layers: int = declared(3, "layers of the decoder", minimum=1)
    num_register_tokens: int = declared(0, "register tokens of the encoder", minimum=0)
    class_token: bool = declared(True, "whether the encoder has a class token")
    null_key: bool = declared(True, "whether cross-attention has a learned null key")
    freeze: Literal["auto", "stem", "encoder", "none"] = declared(
        "auto", "what is not trained; auto: the stem, else a whole encoder that has weights"
    )
    lr: float | None = declared(None, "peak learning rate of AdamW; none: 6e-4, or 1e-4 with --init", minimum=0)
    encoder_lr_multiplier: float = declared(1.0, "the encoder's learning rate over the decoder's", minimum=0)
    weight_decay: float = declared(0.05, "weight decay of matrices", minimum=0)
    warmup_ratio: float = declared(0.06, "share of the steps with a rising learning rate", minimum=0, maximum=1)
    max_grad_norm: float = declared(1.0, "gradients are clipped to this norm; 0: not clipped", minimum=0)
    label_smoothing: float = declared(0.1, "label smoothing of the cross-entropy", minimum=0, maximum=1)
    dropout: float = declared(0.15, "dropout of the decoder", minimum=0, maximum=1)
    drop_path: float = declared(0.05, "stochastic depth of the encoder", minimum=0, maximum=1)
    unconditional_ratio: float = declared(0.1, "share of images replaced by the no-image embedding", minimum=0, maximum=1)
    ema_decay: float = declared(0.999, "decay of the moving average of the weights", minimum=0, maximum=1)
    val_share: float = declared(
        0.05, "share of the images held out for validation, of a --data without a val split; 0: none", minimum=0, maximum=1
    )
    eval_images: int = declared(400, "validation images of each --data that are captioned", unit="images", minimum=0)
    eval_epochs: int = declared(
        0, "epochs between validations and saves of RUN/last; 0: about ten in a run", unit="epochs", minimum=0
    )
    save_steps: int = declared(200, "steps between saves of the run's state", unit="steps", minimum=1)
    device: str = declared("auto", "auto, cpu, cuda, cuda:N or mps; auto prefers a GPU")
    dtype: DtypeName = declared("auto", "numeric type of the products; auto depends on device and processor")
    threads: int = declared(0, "CPU threads; 0: the container's CPU quota", unit="threads", minimum=0)
    shuffle_images: bool = declared(False, "the control: every caption belongs to another image")

    @property
    def peak_lr(self) -> float:
        """The learning rate: a checkpoint of --init forgets what it can do at that of a new network."""
        return self.lr if self.lr is not None else 1e-4 if self.init else 6e-4

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("warmup_ratio", "label_smoothing", "dropout", "drop_path", "unconditional_ratio", "val_share"):
            if getattr(self, name) >= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be below 1")
        changed = [field.name for field in dataclasses.fields(self) if getattr(self, field.name) != field.default]
        if self.init and not self.resume and (conflicts := sorted(NETWORK_FLAGS.intersection(changed))):
            raise ConfigError(
                f"{_flags(conflicts)} cannot be used with --init: the network is that of {self.init}; leave one of them out"
            )
        if self.encoder and (conflicts := sorted(ENCODER_FLAGS.intersection(changed))):
            raise ConfigError(
                f"{_flags(conflicts)} cannot be used with --encoder {self.encoder}, which has its own; leave one of them out"
            )
        if self.pretrained and not self.encoder:
            raise ConfigError("--pretrained needs --encoder NAME, a ViT that timm knows; a stem has --stem-weights")
        if self.freeze == "stem" and not self.init and (self.encoder or not self.stem):
            raise ConfigError("--freeze stem needs a stem; use --freeze none, or set one with --stem")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of train.py: a flag for every field."""
    parser = argparse.ArgumentParser(prog="train.py", description="Train a captioner on captioned images.", allow_abbrev=False)
    add_flags(parser, TrainConfig)
    return parser


def parse_arguments(arguments: Sequence[str] | None = None) -> TrainConfig:
    """Read the command line into a TrainConfig; wrong use ends with status 2."""
    parser = make_parser()
    try:
        config = restored_config(flag_values(TrainConfig, parser.parse_args(arguments)))
    except ConfigError as error:
        name, _, rest = str(error).partition(" ")
        parser.error(f"{_flags([name])} {rest}" if name in TrainConfig.__dataclass_fields__ else str(error))
    if not config.run:
        parser.error("--run FOLDER is required: the folder for checkpoints")
    if not config.data and not config.resume:
        parser.error("--data DATA is required: a file or folder of captioned images, or scenes:COUNT")
    return config


def used_flags(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the values of the flags that a command line has, by field."""
    return flag_values(TrainConfig, make_parser().parse_args(arguments))


def command_line(values: dict[str, Any]) -> str:
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


def flag_of(name: str) -> str:
    """Return the flag of a field."""
    return "--" + name.replace("_", "-")


def restored_config(values: dict[str, Any]) -> TrainConfig:
    """Return the TrainConfig of plain values, as a command line or a run's state holds them."""
    known = {info.name for info in fields_of(TrainConfig)}
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name in known
    }
    return TrainConfig(**fields)


def _flags(names: Sequence[str]) -> str:
    return ", ".join(map(flag_of, names))
