"""Which family a source is: `architectures` of its config.json names network and task, model_type alone only the network."""

from __future__ import annotations

import re
from typing import Any, Literal

from model.errors import CheckpointError

Family = Literal["blip", "vision-encoder-decoder", "florence2"]

KNOWN = (
    "an encoder of ViT, DeiT, BEiT, Swin, Swin v2, DINOv2 or Donut with a decoder of GPT-2, BERT, RoBERTa, XLM-RoBERTa, TrOCR or "
    "mBART (vision-encoder-decoder), BLIP captioning (blip), and Florence-2 (florence2)"
)
_FAMILIES: dict[str, Family] = {
    "BlipForConditionalGeneration": "blip",
    "VisionEncoderDecoderModel": "vision-encoder-decoder",
    "Florence2ForConditionalGeneration": "florence2",
}
_TASKS = {  # endings of class names in transformers, and what such a network does
    "ForQuestionAnswering": "question answering",
    "ForImageTextRetrieval": "image-text retrieval",
    "ForImageClassification": "image classification",
    "ForMaskedLM": "filling in words",
    "ForMultipleChoice": "multiple choice",
    "ForImageAndTextRetrieval": "image-text retrieval",
    "ForImagesAndTextClassification": "classification",
    "ForMaskedImageModeling": "filling in patches",
    "ForCausalLM": "text without images",
    "LMHeadModel": "text without images",
    "Model": "features without a caption",
}


_NETWORKS = {  # beginnings of class names, and what such a network is: none has a decoder that attends to image tokens
    **dict.fromkeys(("Git", "Kosmos2"), "a captioner whose text network has no cross-attention"),
    **dict.fromkeys(
        ("Llava", "Qwen2VL", "Qwen2_5_VL", "Qwen3VL", "PaliGemma", "Idefics", "SmolVLM", "Gemma3", "Pixtral", "Moondream",
         "HfMoondream", "InternVL", "Phi3V", "Phi4Multimodal", "Mistral3", "Molmo"),
        "a language model that reads an image as tokens",
    ),
    **dict.fromkeys(("CLIP", "Siglip", "Align", "Blip2ForImageTextRetrieval"), "image-text retrieval"),
    "InstructBlip": "a language model after a query transformer",
    "Pix2Struct": "an encoder of patches of variable size with T5's decoder",
    "Mllama": "a language model with gated cross-attention",
}  # fmt: skip


def family_of(config: dict[str, Any]) -> Family:
    """Return the family that a source's config.json names. Raises CheckpointError if it is another one, or another task.

    Networks of one model_type can have equal shapes and different tasks, so `architectures` decides. Without it, model_type
    does, and the names of the tensors must fit (model/pretrained/tensors.py).
    """
    kind, names = config.get("model_type"), config.get("architectures")
    if not names:  # missing, null or empty
        family = next((family for family in _FAMILIES.values() if family == kind), None)
        if family is None:
            raise CheckpointError(f"the source's model_type is {kind!r}; supported are {KNOWN}")
        return family
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"the source's architectures is {names!r}; it must be a list of names such as {_expected()}")
    for name in names:
        known = _FAMILIES.get(_plain(name))
        if known is None:
            raise CheckpointError(
                f"the source's architectures is {name!r}{_task(name)}; supported are {_expected()}: {KNOWN}. Use a checkpoint "
                "that was trained to caption images"
            )
        if known != kind:
            raise CheckpointError(
                f"the source's architectures is {name!r} but its model_type is {kind!r}; it must be {known!r}: copy its "
                "config.json again"
            )
    return _FAMILIES[_plain(names[0])]


def _plain(name: str) -> str:
    """Return a class name without the prefix of another framework: the network is the same."""
    return re.sub(r"^(TF|Flax)", "", name)


def _task(name: str) -> str:
    network = next((kind for beginning, kind in _NETWORKS.items() if _plain(name).startswith(beginning)), None)
    if network is not None:
        return f" ({network})"
    return next((f" ({task})" for ending, task in _TASKS.items() if name.endswith(ending)), "")


def _expected() -> str:
    return " and ".join(_FAMILIES)
