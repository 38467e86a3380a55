"""An image in, a caption with maps out."""

from model.attention import MultiHeadAttention, attention_weights
from model.batch import CaptionBatch, Wanted
from model.captioner import Caption, Captioner, ImageCaptions, Timing, Word
from model.checkpoint import (
    DEFAULT_CHECKPOINT,
    SHARD_BYTES,
    Checkpoint,
    load_checkpoint,
    read_config,
    rewrite_config,
    save_checkpoint,
)
from model.config import (
    DecoderConfig,
    EncoderConfig,
    GenerationOptions,
    ImageConfig,
    MapConfig,
    ModelConfig,
    Strategy,
    from_json,
    to_json,
)
from model.decoder import TextDecoder
from model.decoding import Generation
from model.encoder import ImageFeatures, PatchEncoder, timm_configs
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
from model.hub import checkpoint_folder, pinned
from model.image import (
    ALL_FORMATS,
    DEFAULT_FORMATS,
    ImageLimits,
    Picture,
    picture_size,
    prepare,
    read_picture,
    sniff_format,
    squash,
    view,
)
from model.machine import DtypeName, Precision, available_threads, choose_precision, use_threads
from model.maps import WordMap, peak_box, resample, word_map
from model.network import CaptionNetwork
from model.pretrained import convert_source
from model.replay import ReplayedCaption, merge_heads, replay
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
    "Caption",
    "CaptionBatch",
    "CaptionNetwork",
    "CaptionTokenizer",
    "Captioner",
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
    "ImageCaptions",
    "ImageConfig",
    "ImageError",
    "ImageFeatures",
    "ImageLimits",
    "ImageTooLargeError",
    "ImageView",
    "MapConfig",
    "ModelConfig",
    "MultiHeadAttention",
    "PatchEncoder",
    "PatchGrid",
    "Picture",
    "Precision",
    "ReplayedCaption",
    "Strategy",
    "TextDecoder",
    "TextError",
    "Timing",
    "UnsupportedImageError",
    "Wanted",
    "Word",
    "WordMap",
    "WordSpan",
    "attention_weights",
    "available_threads",
    "checkpoint_folder",
    "choose_precision",
    "convert_source",
    "from_json",
    "load_checkpoint",
    "merge_heads",
    "peak_box",
    "picture_size",
    "pinned",
    "prepare",
    "read_config",
    "read_picture",
    "replay",
    "resample",
    "rewrite_config",
    "save_checkpoint",
    "sniff_format",
    "squash",
    "timm_configs",
    "to_json",
    "use_threads",
    "view",
    "word_map",
]
