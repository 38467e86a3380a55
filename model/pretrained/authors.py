"""BLIP as its authors publish it: a .pth, and next to it the files of their own configs/ folder.

The numbers that these files lack are constants of their code (Li et al. 2022; models/blip.py and models/vit.py of the
repository salesforce/BLIP): a head size of 64, an epsilon of 1e-6, row-major patches from the upper left, CLIP's mean and std.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml
from torch import Tensor

from model.errors import CheckpointError

_HEAD_SIZE, _EPSILON = 64, 1e-6
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def authors_config(tensors: dict[str, Tensor], text: dict[str, Any], start: int, end: int) -> dict[str, Any]:
    """Return the config with transformers' field names: the encoder's from shapes, the decoder's from med_config.json.

    `text` is med_config.json, `start` and `end` are the ids of [DEC] and [SEP]. Raises CheckpointError.
    """
    try:
        patches, table = tensors["visual_encoder.patch_embed.proj.weight"], tensors["visual_encoder.pos_embed"]
        hidden_size, patch_size = patches.size(0), patches.size(-1)
        side = round((table.size(1) - 1) ** 0.5)
        intermediate_size = tensors["visual_encoder.blocks.0.mlp.fc1.weight"].size(0)
    except (KeyError, IndexError) as error:
        raise CheckpointError(
            "the .pth is not a BLIP of its authors, which has a visual_encoder with patch_embed, pos_embed and blocks; use theirs"
        ) from error
    if hidden_size % _HEAD_SIZE or side**2 != table.size(1) - 1:
        raise CheckpointError(
            f"the image encoder of the .pth has a hidden size of {hidden_size} and {table.size(1) - 1} patches; a BLIP has a "
            f"multiple of {_HEAD_SIZE} and a square number of patches: use a .pth of BLIP's authors"
        )
    blocks = {name.split(".")[2] for name in tensors if name.startswith("visual_encoder.blocks.")}
    vision = {
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": hidden_size // _HEAD_SIZE,
        "image_size": side * patch_size,
        "patch_size": patch_size,
        "layer_norm_eps": _EPSILON,
        "hidden_act": "gelu",
    }
    ids = {"bos_token_id": start, "sep_token_id": end}
    return {"model_type": "blip", "vision_config": vision, "text_config": text | ids}


def authors_settings(text: str, count_tokens: Callable[[str], int]) -> tuple[int, dict[str, Any], str]:
    """Return the image size, the decoding settings with transformers' names, and the prompt of a caption yaml.

    `count_tokens` counts the tokens of a text: max_length and min_length include the prompt's. Raises CheckpointError.
    """
    try:
        document = yaml.safe_load(text)
        prompt = str(document.get("prompt", "")).strip()
        num_prompt_tokens = count_tokens(prompt)
        decoding = {
            "num_beams": int(document["num_beams"]),
            "max_length": int(document["max_length"]) - num_prompt_tokens,
            "min_length": max(0, int(document["min_length"]) - num_prompt_tokens),
        }
        return int(document["image_size"]), decoding, prompt
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            "the caption yaml cannot be used; it must have image_size, num_beams, max_length, min_length and prompt as "
            "configs/caption_coco.yaml of BLIP has them: copy that file"
        ) from error


def authors_preprocessing(size: int) -> dict[str, Any]:
    """Return the preprocessing of their evaluation, with the field names of preprocessor_config.json."""
    return {"size": size, "resample": 3, "image_mean": list(_MEAN), "image_std": list(_STD)}
