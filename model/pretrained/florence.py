"""Florence-2 (Xiao et al. 2024): DaViT, the projection of its patches, and BART, whose encoder reads patches and prompt together.

Two layouts are read: Microsoft's own, whose Python files are never run, and that of transformers 5. The numbers are the same,
names differ. The source adds embeddings of rows, columns and the first frame of a video; here they are one table.

Shapes: P patches, C channels of the last stage, D hidden size.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from model.config import DecoderConfig, EncoderConfig, ImageConfig, PromptEncoderConfig, TaskConfig
from model.errors import CheckpointError
from model.pretrained.bart import EPSILON, POSITION_OFFSET, attention_weights, bart_config, bart_weights
from model.pretrained.gpt2 import activation_name
from model.pretrained.source_config import SourceConfig
from model.pretrained.special_ids import SpecialIds
from model.pretrained.tensors import SourceTensors, Weights
from model.tokenizer import CaptionTokenizer

_OURS = "encoder.backbone."
_STEM = {"patch_size": 7, "patch_stride": 4, "patch_padding": 3, "patch_prenorm": False}  # timm's DaViT can have no others
_LATER = {"patch_size": 3, "patch_stride": 2, "patch_padding": 1, "patch_prenorm": True}
TASKS = (  # processing_florence2.py of both layouts: each prompt is a sentence, not the name of the task
    TaskConfig(name="caption", prompt="What does the image describe?"),
    TaskConfig(name="detailed_caption", prompt="Describe in detail what is shown in the image."),
    TaskConfig(name="more_detailed_caption", prompt="Describe with a paragraph what is shown in the image."),
    TaskConfig(name="dense_region_caption", prompt="Locate the objects in the image, with their descriptions.", output="boxes"),
    TaskConfig(name="object_detection", prompt="Locate the objects with category name in the image.", output="boxes"),
    TaskConfig(name="region_proposal", prompt="Locate the region proposals in the image.", output="proposals"),
    TaskConfig(name="phrase_grounding", prompt="Locate the phrases in the caption: {input}", input="text", output="boxes"),
    TaskConfig(name="open_vocabulary_detection", prompt="Locate {input} in the image.", input="text", output="boxes"),
    TaskConfig(name="region_caption", prompt="What does the region {input} describe?", input="region"),
    TaskConfig(name="region_category", prompt="What is the region {input}?", input="region"),
    TaskConfig(name="region_ocr", prompt="What text is in the region {input}?", input="region"),
    TaskConfig(name="ocr", prompt="What is the text in the image?"),
    TaskConfig(name="ocr_with_region", prompt="What is the text in the image, with regions?", output="quads"),
)
MICROSOFTS_TOKENS = (  # that its processor adds to BART's vocabulary, in this order
    "<od>", "</od>", "<ocr>", "</ocr>", *(f"<loc_{index}>" for index in range(1000)), "<cap>", "</cap>", "<ncap>", "</ncap>",
    "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>", "<sep>", "<region_cap>", "</region_cap>",
    "<region_to_desciption>", "</region_to_desciption>", "<proposal>", "</proposal>", "<poly>", "</poly>", "<and>",
)  # fmt: skip
NUM_LOCATIONS = 1000
ANSWER_TOKENS = 1024  # of the authors' example, where the source has no limit: the 20 of `generate` would cut every longer answer


def is_microsofts(config: SourceConfig) -> bool:
    """Return whether a config has the layout of Microsoft's own code."""
    return config.part("vision_config").has("dim_embed")


def florence_encoder(config: SourceConfig) -> EncoderConfig:
    """Return the encoder of a Florence2Config. Raises CheckpointError for another vision tower."""
    vision = config.part("vision_config")
    kind = vision.text("model_type", "davit")
    if kind not in ("davit", "florence_vision"):
        raise CheckpointError(f"the vision tower is {kind!r}; Florence-2 has 'davit' (or 'florence_vision')")
    sizes = vision.integers("dim_embed" if is_microsofts(config) else "embed_dim")
    depths, heads = vision.integers("depths"), vision.integers("num_heads")
    if vision.integers("num_groups") != heads:
        raise CheckpointError("the vision tower has other num_groups than num_heads; timm's DaViT has the same")
    for name in _STEM:
        expected = [_STEM[name], *[_LATER[name]] * (len(sizes) - 1)]
        if vision.has(name) and list(vision.values[name]) != expected:
            raise CheckpointError(f"the vision tower's {name} is {vision.values[name]!r:.80}; supported is {expected}")
    if (activation := vision.text("activation_function", "gelu")) != "gelu":
        raise CheckpointError(f"the vision tower's activation is {activation!r}; timm's DaViT has 'gelu'")
    sources = vision.values.get("image_feature_source", ["spatial_avg_pool", "temporal_avg_pool"])
    if sources != ["spatial_avg_pool", "temporal_avg_pool"]:
        raise CheckpointError(f"image_feature_source is {sources!r:.80}; supported are spatial_avg_pool, then temporal_avg_pool")
    return EncoderConfig(
        architecture="davit",
        hidden_size=vision.integer("projection_dim"),
        num_layers=sum(depths),
        num_heads=heads[-1],
        mlp_ratio=vision.number("mlp_ratio", 4.0),
        patch_size=4,
        class_token=False,
        layer_norm_eps=EPSILON,
        qkv_bias=vision.boolean("qkv_bias", True),
        stage_depths=depths,
        stage_heads=heads,
        stage_sizes=sizes,
        window_size=vision.integer("window_size", minimum=1),
        final_norm=False,
        pooled_token=True,
    )


def florence_decoder(config: SourceConfig, encoder: EncoderConfig, ids: SpecialIds) -> DecoderConfig:
    """Return the decoder, which is BART's. Raises CheckpointError for another language model."""
    text = config.part("text_config")
    kind = text.text("model_type", "bart")
    if kind not in ("bart", "florence2_language"):
        raise CheckpointError(f"the language model is {kind!r}; Florence-2 has 'bart' (or 'florence2_language')")
    if encoder.hidden_size != text.integer("d_model"):
        raise CheckpointError(
            f"projection_dim is {encoder.hidden_size}, the language model's d_model {text.integer('d_model')}; they must be equal"
        )
    return bart_config(text, encoder.hidden_size, ids, image_projection=False)


def florence_prompt_encoder(config: SourceConfig) -> PromptEncoderConfig:
    """Return the prompt encoder; its token ids, which the tokenizer has, are added later (convert.py)."""
    text = config.part("text_config")
    size = text.integer("d_model")
    return PromptEncoderConfig(
        num_layers=text.integer("encoder_layers"),
        num_heads=text.integer("encoder_attention_heads"),
        intermediate_size=text.integer("encoder_ffn_dim"),
        max_positions=text.integer("max_position_embeddings"),
        position_offset=POSITION_OFFSET,
        layer_norm_eps=EPSILON,
        activation=activation_name(text.text("activation_function")),
        embedding_scale=size**0.5 if text.boolean("scale_embedding", False) else 1.0,
        bos_token_id=text.integer("bos_token_id"),
        eos_token_id=text.integer("eos_token_id"),
    )


def with_prompt_ids(config: PromptEncoderConfig, tokenizer: CaptionTokenizer, task: TaskConfig) -> PromptEncoderConfig:
    """Return the config with the ids that a tokenizer has: of coordinates, and of the default task's prompt."""
    ids = [tokenizer.id_of(f"<loc_{index}>") for index in range(NUM_LOCATIONS)]
    first = ids[0]
    if first is None or ids != list(range(first, first + NUM_LOCATIONS)) or not tokenizer.special_ids.issuperset(ids):
        raise CheckpointError(
            f"the tokenizer has no special tokens <loc_0> to <loc_{NUM_LOCATIONS - 1}> in a row, as Florence-2's has"
        )
    default = (config.bos_token_id, *tokenizer.encode(task.prompt), config.eos_token_id)
    return dataclasses.replace(config, first_location_id=first, num_locations=NUM_LOCATIONS, default_ids=default)


def florence_weights(
    tensors: SourceTensors, encoder: EncoderConfig, decoder: DecoderConfig, prompt: PromptEncoderConfig, image: ImageConfig
) -> Weights:
    """Return all weights, of either layout, for images of a size."""
    text = "language_model.model." if tensors.has_any("language_model.model.") else "model.language_model."
    weights = _vision_weights(tensors, encoder) | _projector_weights(tensors, encoder, image)
    shared = tensors.first(f"{text}shared.weight", f"{text}decoder.embed_tokens.weight")
    weights |= bart_weights(tensors, decoder, f"{text}decoder.", shared, ("lm_head.weight", "language_model.lm_head.weight"))
    weights["prompt_encoder.position_embedding.weight"] = tensors.take(f"{text}encoder.embed_positions.weight")
    weights |= tensors.module("prompt_encoder.embedding_norm", f"{text}encoder.layernorm_embedding")
    for index in range(prompt.num_layers):
        ours, layer = f"prompt_encoder.layers.{index}.", f"{text}encoder.layers.{index}."
        weights |= attention_weights(tensors, f"{ours}attention.", f"{layer}self_attn.")
        for name, part in (
            ("attention_norm", "self_attn_layer_norm"),
            ("mlp_norm", "final_layer_norm"),
            ("mlp.0", "fc1"),
            ("mlp.2", "fc2"),
        ):
            weights |= tensors.module(f"{ours}{name}", f"{layer}{part}")
    for name in ("final_logits_bias", "language_model.final_logits_bias"):
        if tensors.has(name) and bool(tensors.take(name).any()):
            raise CheckpointError(f"the source's {name} is not 0, as that of Florence-2 is; it was changed in training")
    tensors.ignore_names(*(f"{text}{part}.embed_tokens.weight" for part in ("encoder", "decoder")), shared)
    return weights


def _vision_weights(tensors: SourceTensors, config: EncoderConfig) -> Weights:
    theirs = "vision_tower." if tensors.has_any("vision_tower.") else "model.vision_tower."
    weights: Weights = {}
    for stage, depth in enumerate(config.stage_depths):
        ours = f"{_OURS}stages.{stage}.downsample." if stage else f"{_OURS}stem."
        convolution = f"{theirs}convs.{stage}."
        weights |= tensors.module(f"{ours}conv", f"{convolution}conv", f"{convolution}proj")
        weights |= tensors.module(f"{ours}norm", f"{convolution}norm")
        for index in range(depth):
            for kind, attention in (("spatial", "window_attn"), ("channel", "channel_attn")):
                block = f"{theirs}blocks.{stage}.{index}.{kind}_block."
                part = f"{_OURS}stages.{stage}.blocks.{index}.{kind}_block."
                for name, native, microsofts in (
                    ("cpe1.proj", "conv1", "conv1.fn.dw"),
                    ("norm1", "norm1", f"{attention}.norm"),
                    ("attn.qkv", f"{attention}.qkv", f"{attention}.fn.qkv"),
                    ("attn.proj", f"{attention}.proj", f"{attention}.fn.proj"),
                    ("cpe2.proj", "conv2", "conv2.fn.dw"),
                    ("norm2", "norm2", "ffn.norm"),
                    ("mlp.fc1", "ffn.fc1", "ffn.fn.net.fc1"),
                    ("mlp.fc2", "ffn.fc2", "ffn.fn.net.fc2"),
                ):
                    weights |= tensors.module(f"{part}{name}", f"{block}{native}", f"{block}{microsofts}")
    return weights


def _projector_weights(tensors: SourceTensors, config: EncoderConfig, image: ImageConfig) -> Weights:
    native = "model.multi_modal_projector."
    rows, columns = image.height // config.stride, image.width // config.stride
    down = tensors.take(f"{native}image_position_embed.row_embeddings.weight", "image_pos_embed.row_embeddings.weight")
    across = tensors.take(f"{native}image_position_embed.column_embeddings.weight", "image_pos_embed.column_embeddings.weight")
    if max(rows, columns) > min(len(down), len(across)):
        raise CheckpointError(
            f"images of {image.height} x {image.width} have {rows} x {columns} patches, more than the {len(down)} positions of "
            "the source; set a smaller size in preprocessor_config.json"
        )
    table = torch.cat(
        [across[:columns].expand(rows, -1, -1), down[:rows, None].expand(-1, columns, -1)], dim=-1
    )  # (rows, columns, C)
    frame = tensors.take_optional(f"{native}visual_temporal_embed.pos_idx_to_embed", "visual_temporal_embed.pos_idx_to_embed")
    first = _first_frame(table) if frame is None else frame[0]
    if tensors.has("image_projection"):
        projection = tensors.take("image_projection").T.contiguous()  # a matrix (C, D) in Microsoft's layout
    else:
        projection = tensors.take(f"{native}image_projection.weight")
    weights = {
        "encoder.projector.positions": (table + first).flatten(0, 1),  # (P, C)
        "encoder.projector.projection.weight": projection,
    }
    return weights | tensors.module("encoder.projector.norm", f"{native}image_proj_norm", "image_proj_norm")


def _first_frame(table: Tensor) -> Tensor:
    """Return the embedding of a video's first frame, sines and cosines of 0: (C,)."""
    return torch.arange(table.size(-1)).remainder(2).to(table.dtype)
