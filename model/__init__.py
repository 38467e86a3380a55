"""An image in, a caption with attention maps out."""

import model._compat  # isort: skip  # noqa: F401  it acts before torch and timm are imported

from model.attention import MultiHeadAttention, attention_weights
from model.batch import CaptionBatch
from model.captioner import Captioner
from model.captions import Caption, CaptionResult, Timing, Word
from model.checkpoint import (
    DEFAULT_CHECKPOINT,
    SHARD_BYTES,
    Checkpoint,
    load_checkpoint,
    read_config,
    recover_folder,
    replace_folder,
    save_checkpoint,
    write_config,
)
from model.confidence import CAPTION_FEATURES, WORD_FEATURES, caption_features, logistic, word_confidences, word_features
from model.config import ConfidenceConfig, DecoderConfig, EncoderConfig, ImageConfig, MapConfig, ModelConfig, TaskConfig
from model.cpu import available_threads
from model.decoder import TextDecoder
from model.detector import DETECTORS, Detector, center_patches
from model.device import (
    DevicePolicy,
    DtypeName,
    autocast,
    choose_device,
    choose_policy,
    device_memory,
    is_out_of_memory,
    num_parameters,
    release_memory,
    to_device,
)
from model.encoder import ImageEncoder, ImageFeatures, PatchEncoder, timm_configs
from model.errors import (
    CaptionerError,
    CheckpointError,
    ConfigError,
    EmptyImageError,
    ImageError,
    ImageTooLargeError,
    RegionError,
    TextError,
    UnsupportedImageError,
    read_reason,
)
from model.fields import FieldInfo, add_flags, check_fields, declared, fields_of, flag_values, from_json, markdown_table, to_json
from model.folding import fold_batch_norms
from model.geometry import Box, ImageView, PatchGrid
from model.hub import checkpoint_folder, pin_revision
from model.image import (
    ALL_FORMATS,
    DEFAULT_FORMATS,
    IMAGE_SUFFIXES,
    LOCAL_IMAGE_LIMITS,
    UNREAD_SUFFIXES,
    DecodedImage,
    ImageLimits,
    check_region,
    decode_image,
    is_image_name,
    is_system_name,
    make_view,
    missing_support,
    num_pixels,
    prepare,
    prepare_regions,
    resize_and_normalize,
    sniff_format,
)
from model.layers import linear_children
from model.maps import MAP_METHODS, MapMethod, ScoredRows, WordMap, find_map_method, merge_heads, peak_box, resample_map, word_map
from model.network import CaptionNetwork
from model.options import GenerationOptions, Strategy
from model.prefix import PrefixIds, prefix_ids
from model.pretrained import convert_source
from model.requests import CaptionRequest
from model.runtime import Runtime, prepare_network
from model.scoring import ScoredCaption, scoring_pass
from model.search import Hypothesis
from model.state import DecoderState
from model.style import plain_form
from model.tasks import dense_tasks
from model.tokenizer import BOS_ID, EOS_ID, PAD_ID, CaptionTokenizer, WordSpan

__all__ = [
    "ALL_FORMATS",
    "BOS_ID",
    "CAPTION_FEATURES",
    "DEFAULT_CHECKPOINT",
    "DEFAULT_FORMATS",
    "DETECTORS",
    "EOS_ID",
    "IMAGE_SUFFIXES",
    "LOCAL_IMAGE_LIMITS",
    "MAP_METHODS",
    "PAD_ID",
    "SHARD_BYTES",
    "UNREAD_SUFFIXES",
    "WORD_FEATURES",
    "Box",
    "Caption",
    "CaptionBatch",
    "CaptionNetwork",
    "CaptionRequest",
    "CaptionResult",
    "CaptionTokenizer",
    "Captioner",
    "CaptionerError",
    "Checkpoint",
    "CheckpointError",
    "ConfidenceConfig",
    "ConfigError",
    "DecodedImage",
    "DecoderConfig",
    "DecoderState",
    "Detector",
    "DevicePolicy",
    "DtypeName",
    "EmptyImageError",
    "EncoderConfig",
    "FieldInfo",
    "GenerationOptions",
    "Hypothesis",
    "ImageConfig",
    "ImageEncoder",
    "ImageError",
    "ImageFeatures",
    "ImageLimits",
    "ImageTooLargeError",
    "ImageView",
    "MapConfig",
    "MapMethod",
    "ModelConfig",
    "MultiHeadAttention",
    "PatchEncoder",
    "PatchGrid",
    "PrefixIds",
    "RegionError",
    "Runtime",
    "ScoredCaption",
    "ScoredRows",
    "Strategy",
    "TaskConfig",
    "TextDecoder",
    "TextError",
    "Timing",
    "UnsupportedImageError",
    "Word",
    "WordMap",
    "WordSpan",
    "add_flags",
    "attention_weights",
    "autocast",
    "available_threads",
    "caption_features",
    "center_patches",
    "check_fields",
    "check_region",
    "checkpoint_folder",
    "choose_device",
    "choose_policy",
    "convert_source",
    "declared",
    "decode_image",
    "dense_tasks",
    "device_memory",
    "fields_of",
    "find_map_method",
    "flag_values",
    "fold_batch_norms",
    "from_json",
    "is_image_name",
    "is_out_of_memory",
    "is_system_name",
    "linear_children",
    "load_checkpoint",
    "logistic",
    "make_view",
    "markdown_table",
    "merge_heads",
    "missing_support",
    "num_parameters",
    "num_pixels",
    "peak_box",
    "pin_revision",
    "plain_form",
    "prefix_ids",
    "prepare",
    "prepare_network",
    "prepare_regions",
    "read_config",
    "read_reason",
    "recover_folder",
    "release_memory",
    "replace_folder",
    "resample_map",
    "resize_and_normalize",
    "save_checkpoint",
    "scoring_pass",
    "sniff_format",
    "timm_configs",
    "to_device",
    "to_json",
    "word_confidences",
    "word_features",
    "word_map",
    "write_config",
]
