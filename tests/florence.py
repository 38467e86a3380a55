"""A tiny Florence-2 as it is published, in both layouts: weights, configs, tokenizer, preprocessing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import save_file
from transformers import CLIPImageProcessorPil, Florence2Processor, PreTrainedTokenizerFast

from model.pretrained.florence import MICROSOFTS_TOKENS
from tests.peers import build, end_competes
from tests.test_foreign_tokenizers import KINDS

SIDE = 32  # pixels: 4 x 4 patches
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
MICROSOFTS = {  # names of its state_dict, from those of transformers
    r"^model\.vision_tower\.": "vision_tower.",
    r"(convs\.\d+)\.conv\.": r"\1.proj.",
    r"\.conv(\d)\.(weight|bias)$": r".conv\1.fn.dw.\2",
    r"\.ffn\.fc(\d)\.": r".ffn.fn.net.fc\1.",
    r"\.(window_attn|channel_attn)\.(qkv|proj)\.": r".\1.fn.\2.",
    r"spatial_block\.norm1\.": "spatial_block.window_attn.norm.",
    r"channel_block\.norm1\.": "channel_block.channel_attn.norm.",
    r"(_block)\.norm2\.": r"\1.ffn.norm.",
    r"^model\.multi_modal_projector\.image_projection\.weight$": "image_projection",
    r"^model\.multi_modal_projector\.image_position_embed\.": "image_pos_embed.",
    r"^model\.multi_modal_projector\.": "",
    r"^model\.language_model\.": "language_model.model.",
    r"^lm_head\.": "language_model.lm_head.",
}


def tiny_florence(seed: int = 3, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Return a peer and its processor."""
    inner = tokenizers.Tokenizer.from_str(KINDS["bart"].to_str())
    inner.add_special_tokens([*MICROSOFTS_TOKENS, "<image>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, clean_up_tokenization_spaces=False, **SPECIAL, extra_special_tokens={"image_token": "<image>"}
    )
    peer = build("florence2", seed, dtype, vocab_size=inner.get_vocab_size(), ids=(2, 2, 1), max_positions=256)
    images = CLIPImageProcessorPil(size={"height": SIDE, "width": SIDE}, do_center_crop=False)
    images.image_seq_length = 1 + (SIDE // 8) ** 2
    parsing = {name: {} for name in ("ocr", "phrase_grounding", "pure_text", "description_with_bboxes", "bboxes")}
    processor = Florence2Processor(image_processor=images, tokenizer=tokenizer, post_processor_config=parsing)
    peer.generation_config.max_new_tokens = 24
    return end_competes(peer, -6.0), processor


def save_native(folder: Path, peer: Any, processor: Any) -> None:
    """Write a folder in the layout of transformers."""
    peer.save_pretrained(folder)
    processor.save_pretrained(folder)


def save_microsofts(folder: Path, peer: Any, processor: Any) -> None:
    """Write a folder in Microsoft's own layout: BART's tokenizer, other names, and Python files that must not be run."""
    folder.mkdir(parents=True)
    tensors = {}
    for name, value in peer.state_dict().items():
        for theirs, microsofts in MICROSOFTS.items():
            name = re.sub(theirs, microsofts, name)
        tensors[name] = (value.T if name == "image_projection" else value).clone().contiguous()
    size = tensors["language_model.model.shared.weight"].size(0) - 1  # without a row for <image>
    for name in list(tensors):
        if re.search(r"(shared|embed_tokens|lm_head)\.weight$", name):
            tensors[name] = tensors[name][:size].clone()
    tensors["language_model.final_logits_bias"] = torch.zeros(1, size)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = peer.config.to_dict()
    vision, text = config["vision_config"], config["text_config"]
    vision |= {
        "model_type": "davit",
        "dim_embed": vision.pop("embed_dim"),
        "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
        "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": 100},
        "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 10},
    }
    text |= {"model_type": "florence2_language", "vocab_size": size}
    config |= {
        "vision_config": vision,
        "text_config": text,
        "auto_map": {"AutoConfig": "configuration_florence2.Florence2Config"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(peer.generation_config.to_json_string(use_diff=False))
    (folder / "tokenizer.json").write_text(KINDS["bart"].to_str())
    processor.image_processor.save_pretrained(folder)
    (folder / "modeling_florence2.py").write_text("raise SystemExit('remote code was run')\n")
