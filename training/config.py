"""The settings of a training run. Each is declared once: a flag of train.py, a line of its --help, a row of docs/training.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from corpus import MAX_MAGNITUDE
from model import ConfigError, DtypeName, check_fields, declared, fields_of

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
    preset: Literal["none", "small", "coco", "finetune"] = declared(
        "none", "settings for a kind of run, which other flags replace; docs/training.md lists them"
    )
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
    text_epochs: int = declared(
        0,
        "first epochs in which the decoder learns text alone: --text, else the captions of the data without their images",
        unit="epochs",
        minimum=0,
    )
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
    drop_worst_ratio: float = declared(
        0.0, "share of the captions of a batch with the largest losses that are left out, late in a run", minimum=0, maximum=1
    )
    drop_worst_after: float = declared(0.33, "share of the steps after which --drop-worst-ratio begins", minimum=0, maximum=1)
    word_presence_weight: float = declared(
        0.0, "weight of the loss of predicting from the image alone which tokens its captions have", minimum=0
    )
    teacher: str = declared("", "checkpoint whose next-token probabilities are learned, too; it must have the same tokenizer")
    teacher_weight: float = declared(0.5, "share of the loss that is the divergence from --teacher", minimum=0, maximum=1)
    license: str = declared("", "license of the checkpoints, such as CC-BY-4.0; empty: that of --init")
    seed: int = declared(0, "random seed")
    epochs: int = declared(
        0, "passes over the data; 0: 8, or more if the data is small, or as --max-steps needs", unit="epochs", minimum=0
    )
    max_steps: int = declared(0, "stop after so many steps; 0: after the epochs", unit="steps", minimum=0)
    batch_size: int = declared(64, "images per step, of all ranks together", unit="images", minimum=1)
    max_images_per_epoch: int = declared(
        0, "images of one --data per epoch, drawn anew each time; 0: all", unit="images", minimum=0
    )
    captions_per_image: int = declared(5, "captions of an image that share one encoder pass, at most", minimum=1)
    num_views: int = declared(4, "crops and mirror images kept of each image; 1: only the image", unit="views", minimum=1)
    min_crop_area: float = declared(
        1.0,
        "smallest share of the area that a random crop keeps, another one each time; 1: no such crops",
        minimum=0.05,
        maximum=1,
    )
    rand_augment: int = declared(
        0, "random changes of each image, such as shear, shift, rotation; none of color", unit="changes", minimum=0
    )
    rand_augment_magnitude: int = declared(5, "strength of --rand-augment", minimum=0, maximum=MAX_MAGNITUDE)
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
    frozen_epochs: int = declared(
        0, "first epochs in which the whole encoder is frozen and its features are cached, then --freeze applies", unit="epochs",
        minimum=0,
    )  # fmt: skip
    lora_rank: int = declared(0, "rank of LoRA in every layer that is not frozen, instead of its weights; 0: none", minimum=0)
    lora_alpha: float = declared(16.0, "LoRA's update is scaled by this over its rank", minimum=0)
    lr: float | None = declared(None, "peak learning rate of AdamW; none: 6e-4, or 1e-4 with --init", minimum=0)
    encoder_lr_multiplier: float = declared(1.0, "the encoder's learning rate over the decoder's", minimum=0)
    layer_decay: float = declared(
        1.0,
        "the learning rate of an encoder layer over that of the next one; 0.75 is usual for a pretrained ViT",
        minimum=0,
        maximum=1,
    )
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
    patience: int = declared(
        0, "validations without a better CIDEr after which the run ends; 0: it has its full length", unit="validations", minimum=0
    )
    save_steps: int = declared(200, "steps between saves of the run's state", unit="steps", minimum=1)
    sample_images: int = declared(
        4, "validation images that TensorBoard shows with their captions and maps", unit="images", minimum=0
    )
    accumulate: int = declared(
        1,
        "parts that the images of a rank's step are computed in, for less memory; the result is the same, but --drop-worst-ratio "
        "and --self-critical-weight compare the captions of a part",
        unit="parts",
        minimum=1,
    )
    gradient_checkpointing: bool = declared(
        False, "activations are computed again in the backward pass: less memory, a third more time"
    )
    compile: bool = declared(False, "compile the blocks of encoder and decoder (torch.compile): faster steps after a slow start")
    fsdp: bool = declared(False, "shard weights, gradients and optimizer over the ranks of torchrun (FSDP2), instead of DDP")
    workers: int | None = declared(
        None, "processes that load batches; none: threads - 1 where images are decoded, 0 for cached features", unit="processes",
        minimum=0,
    )  # fmt: skip
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
        for name in (
            "warmup_ratio", "label_smoothing", "dropout", "drop_path", "unconditional_ratio", "val_share", "drop_worst_ratio",
        ):  # fmt: skip
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
        self._check_recipe()

    def _check_recipe(self) -> None:
        """Raises ConfigError for parts of a recipe that exclude each other."""
        if self.is_augmented and self.freeze != "none":
            raise ConfigError(
                "--min-crop-area and --rand-augment change images anew each time and need --freeze none: the features of frozen "
                "parts are cached for --num-views"
            )
        if self.is_augmented and (self.region_weight or self.teacher):
            raise ConfigError(
                "--region-weight and --teacher cannot be used with --min-crop-area and --rand-augment: they know the image as "
                "it is"
            )
        if self.lora_rank and not self.init:
            raise ConfigError("--lora-rank keeps the weights of a checkpoint and needs --init; a new network has none to keep")
        if self.lora_rank and self.frozen_epochs:
            raise ConfigError("--lora-rank and --frozen-epochs cannot be used together; leave one of them out")
        if self.fsdp and self.self_critical_weight:
            raise ConfigError(
                "--fsdp cannot be used with --self-critical-weight: ranks sample captions of other lengths, and shards need all "
                "ranks at each token; leave --fsdp out"
            )
        if self.word_presence_weight and self.freeze == "encoder":
            raise ConfigError("--word-presence-weight trains the encoder, which --freeze encoder does not; leave one of them out")

    @property
    def is_augmented(self) -> bool:
        """Whether images are changed anew each time."""
        return self.min_crop_area < 1 or self.rand_augment > 0


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
