"""An image in, a caption with maps out."""

from model.checkpoint import DEFAULT_CHECKPOINT, SHARD_BYTES, Checkpoint, load_checkpoint, read_config, save_checkpoint
from model.config import (
    DecoderConfig,
    EncoderConfig,
    GenerationOptions,
    ImageConfig,
    MapConfig,
    ModelConfig,
    from_json,
    to_json,
)
from model.decoding import Generation
from model.encoder import ImageFeatures
from model.errors import (
    CaptionerError,
    CheckpointError,
    ConfigError,
    EmptyImageError,
    ImageError,
    ImageTooLargeError,
    TextError,
    UnsupportedImageError,
)
from model.geometry import Box, ImageView, PatchGrid
from model.image import ALL_FORMATS, DEFAULT_FORMATS, ImageLimits, Picture, prepare, read_picture, squash, view
from model.machine import DtypeName, Precision, available_threads, choose_precision, use_threads
from model.network import CaptionNetwork
from model.search import Hypothesis
from model.tokenizer import END_ID, PAD_ID, START_ID, CaptionTokenizer, WordSpan

__all__ = [
    "ALL_FORMATS",
    "DEFAULT_CHECKPOINT",
    "DEFAULT_FORMATS",
    "END_ID",
    "PAD_ID",
    "SHARD_BYTES",
    "START_ID",
    "Box",
    "CaptionNetwork",
    "CaptionTokenizer",
    "CaptionerError",
    "Checkpoint",
    "CheckpointError",
    "ConfigError",
    "DecoderConfig",
    "DtypeName",
    "EmptyImageError",
    "EncoderConfig",
    "Generation",
    "GenerationOptions",
    "Hypothesis",
    "ImageConfig",
    "ImageError",
    "ImageFeatures",
    "ImageLimits",
    "ImageTooLargeError",
    "ImageView",
    "MapConfig",
    "ModelConfig",
    "PatchGrid",
    "Picture",
    "Precision",
    "TextError",
    "UnsupportedImageError",
    "WordSpan",
    "available_threads",
    "choose_precision",
    "from_json",
    "load_checkpoint",
    "prepare",
    "read_config",
    "read_picture",
    "save_checkpoint",
    "squash",
    "to_json",
    "use_threads",
    "view",
]
