"""BLIP as its authors publish it: a .pth, and beside it the files of their own configs/ folder.

What stands in none of their files stands in their code (Li et al. 2022; models/blip.py and models/vit.py of the repository
salesforce/BLIP): heads of 64, an epsilon of 1e-6, patches in rows from the upper left, CLIP's mean and standard deviation.
"""

from __future__ import annotations

from typing import Any

import yaml
from torch import Tensor

from model.errors import CheckpointError

_HEAD_WIDTH, _EPSILON = 64, 1e-6
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def authors_config(tensors: dict[str, Tensor], text: dict[str, Any], start: int, end: int) -> dict[str, Any]:
    """Return the config in transformers' words: of the picture from the tensors' shapes, of the text from med_config.json."""
    try:
        patches, table = tensors["visual_encoder.patch_embed.proj.weight"], tensors["visual_encoder.pos_embed"]
        width, patch = patches.size(0), patches.size(-1)
        side = round((table.size(1) - 1) ** 0.5)
        hidden = tensors["visual_encoder.blocks.0.mlp.fc1.weight"].size(0)
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"the .pth lacks {error}; it is no BLIP of its authors, which has a visual_encoder") from error
    if width % _HEAD_WIDTH or side**2 != table.size(1) - 1:
        raise CheckpointError(f"its picture encoder is {width} wide over {table.size(1) - 1} patches; BLIP's own is not")
    blocks = {name.split(".")[2] for name in tensors if name.startswith("visual_encoder.blocks.")}
    vision = {
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": width // _HEAD_WIDTH,
        "image_size": side * patch,
        "patch_size": patch,
        "layer_norm_eps": _EPSILON,
        "hidden_act": "gelu",
    }
    ids = {"bos_token_id": start, "sep_token_id": end}
    return {"model_type": "blip", "vision_config": vision, "text_config": text | ids}


def authors_settings(text: str, prompt_tokens: Any) -> tuple[int, dict[str, Any], str]:
    """Return the size of pictures, the settings of decoding in transformers' words, and the prompt of a caption yaml.

    `prompt_tokens` counts the prompt's tokens, which max_length and min_length count too. Raises CheckpointError.
    """
    try:
        told = yaml.safe_load(text)
        prompt = str(told.get("prompt", "")).strip()
        before = prompt_tokens(prompt)
        decoding = {
            "num_beams": int(told["num_beams"]),
            "max_length": int(told["max_length"]) - before,
            "min_length": max(0, int(told["min_length"]) - before),
        }
        return int(told["image_size"]), decoding, prompt
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the caption yaml cannot be used ({error}); take configs/caption_coco.yaml of BLIP") from error


def authors_preprocessing(size: int) -> dict[str, Any]:
    """Return what their evaluation does with a picture, in a preprocessor's words."""
    return {"size": size, "resample": 3, "image_mean": list(_MEAN), "image_std": list(_STD)}
