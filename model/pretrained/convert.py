"""Conversion of a source into a checkpoint folder: complete, or not at all."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import torch
from torch import Tensor

from model.checkpoint import save_checkpoint
from model.config import ModelConfig
from model.errors import CheckpointError, ConfigError
from model.network import CaptionNetwork
from model.pretrained.families import convert_network
from model.pretrained.florence import TASKS, with_prompt_ids
from model.pretrained.settings import NotAdopted
from model.pretrained.source import SourceCheckpoint, read_source

_SPACELESS_LANGUAGES = ("ja", "zh", "yue", "th", "lo", "km", "my")


def convert_source(
    path: Path, folder: Path, *, license: str = "", language: str = "en", origin: str = "", unusual_heads: bool = False
) -> tuple[NotAdopted, ...]:
    """Write the checkpoint of a source: a folder that transformers wrote, or a .pth of BLIP's authors.

    `origin` is the source's name in the card, by default its folder's. Raises CheckpointError that names the file, field or
    tensor that is wrong, and writes nothing then. Returns the generation settings that are not taken over, and why.
    """
    try:
        source = read_source(path)
        encoder, decoder, prompt_encoder, weights = convert_network(
            source.config, source.generation, source.tensors, source.image, unusual_heads=unusual_heads
        )
        tasks = () if prompt_encoder is None else TASKS
        if prompt_encoder is not None:
            prompt_encoder = with_prompt_ids(prompt_encoder, source.tokenizer, TASKS[0])
        converted = ModelConfig(
            image=source.image,
            encoder=encoder,
            decoder=decoder,
            prompt_encoder=prompt_encoder,
            tasks=tasks,
            generation=source.options,
            unconditional="neutral",
            source_family=str(source.config.get("model_type")),
            license=license,
            languages=(language,),
            created=int(time.time()),
        )
    except CheckpointError:
        raise
    except ConfigError as error:
        raise CheckpointError(f"{path} cannot be converted: {error}; copy its configs again") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path}: a field of its configs is missing or has another type; copy them again") from error
    tokenizer = source.tokenizer
    if language.partition("-")[0].lower() in _SPACELESS_LANGUAGES and tokenizer.is_wordpiece:
        tokenizer = tokenizer.without_spaces()
    if source.tokenizer.size > decoder.vocab_size:
        raise CheckpointError(f"{path} has {source.tokenizer.size} tokens but a head of {decoder.vocab_size}; they do not match")
    for name, index in decoder.special_ids:
        if index not in source.tokenizer.special_ids:
            raise CheckpointError(
                f"{path}: {name} is {index}, which is not a special token of its tokenizer; copy its tokenizer files again, "
                "special_tokens_map.json and added_tokens.json with them, or correct the id in generation_config.json"
            )
    weights["no_image"] = neutral_tokens(converted, weights)
    save_checkpoint(folder, converted, weights, tokenizer, _card(source, origin or path.name, license))
    return source.not_adopted


@torch.inference_mode()
def neutral_tokens(config: ModelConfig, weights: dict[str, Tensor]) -> Tensor:
    """Return the mean of the encoder's tokens over neutral images, (S, C): it stands for "no image".

    Raises CheckpointError that names a tensor whose shape differs from the config.
    """
    with torch.device("meta"):  # no memory: the config may claim any size
        shapes = {name: value.shape for name, value in CaptionNetwork(config).state_dict().items()}
    for name, shape in shapes.items():
        if name in weights and weights[name].shape != shape:
            actual, expected = list(weights[name].shape), list(shape)
            raise CheckpointError(f"the source's {name} is {actual}, its config requires {expected}; they do not match")
    network = CaptionNetwork(config).eval()
    network.load_state_dict(weights, strict=False)
    height, width = config.image.height, config.image.width
    down, across = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    flat = [torch.full((height, width), value) for value in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    gradients = [down[:, None].expand(height, width), across.expand(height, width)]
    noise = torch.randn(height, width, generator=torch.Generator().manual_seed(0)) / 2
    images = torch.stack([*flat, *gradients, noise])[:, None].expand(-1, 3, -1, -1)  # (8, 3, height, width)
    return network.encode(images).tokens.mean(dim=0)


def _card(source: SourceCheckpoint, origin: str, license: str) -> str:
    with source.weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    terms = license or "unknown: ask the publisher of the source before you distribute this"
    return (
        f"# {origin}\n\nConverted from a {source.config.get('model_type')} checkpoint.\n\n"
        f"- source: {origin}, `{source.weights.name}`, sha256 {digest}\n- license: {terms}\n"
        "- image reliance: the mean over eight neutral images stands for 'no image'; the source has no embedding for it\n"
        + _not_taken_over(source.not_adopted)
    )


def _not_taken_over(settings: tuple[NotAdopted, ...]) -> str:
    """Return the part of the card on generation settings that this checkpoint does not have."""
    if not settings:
        return ""
    rows = "".join(f"| {one.row} |\n" for one in settings)
    return (
        "\n## Not taken over\n\nGeneration settings of the source that are not the default and that this checkpoint does not "
        f"have:\n\n| setting | value | reason |\n|---|---|---|\n{rows}"
    )
