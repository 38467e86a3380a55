"""A source as one of our checkpoint folders: whole, or not at all."""

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
from model.pretrained.source import Source, read_source


def convert_source(
    place: Path, folder: Path, *, licence: str = "", language: str = "en", origin: str = "", unusual_heads: bool = False
) -> tuple[str, ...]:
    """Write the checkpoint of a source: a folder that transformers wrote, or a .pth of BLIP's authors.

    `origin` is what the card calls the source, its folder's name if nothing else is told. Raises CheckpointError that names
    the file, field or tensor that is wrong, and writes nothing then. Returns the settings of decoding that were left out.
    """
    try:
        source = read_source(place)
        encoder, decoder, weights = convert_network(
            source.config, source.generation, source.tensors, source.image, unusual_heads=unusual_heads
        )
        converted = ModelConfig(
            image=source.image,
            encoder=encoder,
            decoder=decoder,
            generation=source.options,
            no_image="neutral",
            licence=licence,
            languages=(language,),
            created=int(time.time()),
        )
    except CheckpointError:
        raise
    except ConfigError as error:
        raise CheckpointError(f"{place} cannot be a checkpoint here ({error})") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        told = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{place}: a field of its configs is missing or of another kind ({told}); copy them again"
        ) from error
    if source.tokenizer.size > decoder.vocabulary:
        raise CheckpointError(f"{place} has {source.tokenizer.size} tokens but a head of {decoder.vocabulary}; they do not fit")
    for name in ("start_id", "end_id", "pad_id"):
        if (index := getattr(decoder, name)) not in source.tokenizer.special_ids:
            raise CheckpointError(f"{place}: {name} is {index}, which is no special token of its tokenizer; they do not fit")
    weights["no_image"] = neutral_tokens(converted, weights)
    save_checkpoint(folder, converted, weights, source.tokenizer, _card(source, origin or place.name, licence))
    return source.left_out


@torch.inference_mode()
def neutral_tokens(config: ModelConfig, weights: dict[str, Tensor]) -> Tensor:
    """Return the mean of the encoder's tokens over pictures of nothing, (S, C): what stands for "no image".

    Raises CheckpointError that names a tensor whose shape is not what the config says.
    """
    network = CaptionNetwork(config).eval()
    for name, value in network.state_dict().items():
        if name in weights and weights[name].shape != value.shape:
            found, wanted = list(weights[name].shape), list(value.shape)
            raise CheckpointError(f"the source's {name} is {found}, its config makes it {wanted}; they do not belong together")
    network.load_state_dict(weights, strict=False)
    height, width = config.image.height, config.image.width
    down, across = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    flat = [torch.full((height, width), value) for value in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    slopes = [down[:, None].expand(height, width), across.expand(height, width)]
    noise = torch.randn(height, width, generator=torch.Generator().manual_seed(0)) / 2
    pictures = torch.stack([*flat, *slopes, noise])[:, None].expand(-1, 3, -1, -1)  # (8, 3, height, width)
    return network.encode(pictures).tokens.mean(dim=0)


def _card(source: Source, origin: str, licence: str) -> str:
    with source.weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    left = "".join(f"- not taken over from its decoding: {name}\n" for name in source.left_out)
    terms = licence or "not told: ask whoever published the source before you pass this on"
    return (
        f"# {origin}\n\nConverted from a {source.config.get('model_type')} checkpoint.\n\n"
        f"- source: {origin}, `{source.weights.name}`, sha256 {digest}\n- licence: {terms}\n{left}"
        "- image reliance: the mean over eight pictures of nothing stands for 'no image'; the source learnt no such thing\n"
    )
