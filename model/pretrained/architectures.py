"""Which family a source is: `architectures` of its config.json names network and task, model_type alone only the network."""

from __future__ import annotations

import re
from typing import Any, Literal

from model.errors import CheckpointError

Family = Literal["blip", "vision-encoder-decoder", "florence2"]

KNOWN = "ViT or DeiT with GPT-2 or TrOCR's decoder (vision-encoder-decoder), and BLIP captioning (blip)"
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
    "ForCausalLM": "text without images",
    "LMHeadModel": "text without images",
    "Model": "features without a caption",
}


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
    return next((f" ({task})" for ending, task in _TASKS.items() if name.endswith(ending)), "")


def _expected() -> str:
    return " and ".join(_FAMILIES)
