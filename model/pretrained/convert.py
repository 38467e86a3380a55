"""A folder that transformers wrote, as one of our checkpoint folders: whole, or not at all."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoint import load_tensors, save_checkpoint
from model.config import GenerationOptions, ImageConfig, ModelConfig
from model.errors import CheckpointError, ConfigError
from model.network import CaptionNetwork
from model.pretrained.families import convert_network
from model.tokenizer import CaptionTokenizer

_RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
_MOST = 60  # words, and what options.max_words allows


def convert_folder(source: Path, folder: Path, *, licence: str = "") -> ModelConfig:
    """Write the checkpoint of a source folder: config.json, weights, tokenizer.json, preprocessor_config.json.

    Raises CheckpointError that names the file, field or tensor that is wrong, and writes nothing then.
    """
    config, generation = _json(source / "config.json"), _json(source / "generation_config.json", needed=False)
    path = next((source / name for name in _WEIGHTS if (source / name).exists()), None)
    if path is None:
        raise CheckpointError(f"{source} has no weights; it needs one of {', '.join(_WEIGHTS)}")
    image = _image_config(_json(source / "preprocessor_config.json"), source)
    encoder, decoder, weights = convert_network(config, generation, _weights(path), image)
    tokenizer = CaptionTokenizer.from_json(_text(source / "tokenizer.json"))
    if tokenizer.size > decoder.vocabulary:
        raise CheckpointError(f"{source} has {tokenizer.size} tokens but a head of {decoder.vocabulary}; they do not fit")
    try:
        converted = ModelConfig(
            image=image,
            encoder=encoder,
            decoder=decoder,
            generation=_generation(generation, config),
            no_image="neutral",
            licence=licence,
            created=int(time.time()),
        )
    except ConfigError as error:
        raise CheckpointError(f"{source} cannot be a checkpoint here ({error})") from error
    weights["no_image"] = neutral_tokens(converted, weights)
    save_checkpoint(folder, converted, weights, tokenizer, _card(source, path, config, licence))
    return converted


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


def _image_config(told: dict[str, Any], source: Path) -> ImageConfig:
    size, crop = told.get("size"), told.get("crop_size") if told.get("do_center_crop") else None
    resample = _RESAMPLING.get(told.get("resample", -1))
    if resample is None or not told.get("do_resize", True) or not told.get("do_rescale", True):
        raise CheckpointError(f"{source}/preprocessor_config.json resizes in a way that is not known; bilinear and bicubic are")
    squashed, seen = _edges(size, source), _edges(crop or size, source)
    return ImageConfig(
        height=seen[0],
        width=seen[1],
        crop=squashed if squashed != seen else (),
        resample=resample,  # type: ignore[arg-type]  # one of the two
        exact=True,
        mean=tuple(told["image_mean"]) if told.get("do_normalize", True) else (0.0, 0.0, 0.0),
        std=tuple(told["image_std"]) if told.get("do_normalize", True) else (1.0, 1.0, 1.0),
    )


def _edges(size: Any, source: Path) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if not isinstance(size, dict) or not {"height", "width"} <= size.keys():
        raise CheckpointError(f"{source}/preprocessor_config.json has the size {size!r}; known is a height and a width")
    return int(size["height"]), int(size["width"])


def _generation(told: dict[str, Any], config: dict[str, Any]) -> GenerationOptions:
    """Return the source's own defaults of decoding; what it does not say is transformers' own default.

    BLIP's generate is its text decoder's, which does not see the outer generation_config.json.
    """
    told = {} if config.get("model_type") == "blip" else told
    decoder = config.get("decoder") or config.get("text_config") or {}

    def value(name: str, default: Any) -> Any:
        return next((place[name] for place in (told, config, decoder) if place.get(name) is not None), default)

    beams = min(8, int(value("num_beams", 1)))
    # max_length counts the start token; without one `generate` makes 20 tokens.
    most = int(value("max_new_tokens", 0)) or int(value("max_length", 21)) - 1
    return GenerationOptions(
        strategy="beam" if beams > 1 else "greedy",
        beams=max(2, beams),
        max_words=_MOST,
        max_tokens=max(1, min(256, most)),
        min_tokens=int(value("min_new_tokens", 0)) or max(0, int(value("min_length", 0)) - 1),
        length_penalty=float(value("length_penalty", 1.0)),
        early_stopping={True: "true", False: "false"}.get(value("early_stopping", False), "never"),  # type: ignore[arg-type]
        no_repeat=int(value("no_repeat_ngram_size", 0)),
        repetition_penalty=float(value("repetition_penalty", 1.0)),
    )


def _weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors in float32."""
    if path.suffix == ".bin":
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling fails in many ways
            raise CheckpointError(f"{path} cannot be read as weights ({error}); copy it again, or use safetensors") from error
        if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
            raise CheckpointError(f"{path} holds something else than named tensors; it is no file of weights")
    else:
        found = load_tensors(path)
    return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}


def _card(source: Path, weights: Path, config: dict[str, Any], licence: str) -> str:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    terms = licence or "not told: ask whoever published the source before you pass this on"
    return (
        f"# {source.name}\n\nConverted from a {config.get('model_type')} checkpoint of transformers.\n\n"
        f"- source: `{source.name}/{weights.name}`, sha256 {digest}\n- licence: {terms}\n"
        "- image reliance: the mean over eight pictures of nothing stands for 'no image'; the source learnt no such thing\n"
    )


def _json(path: Path, *, needed: bool = True) -> dict[str, Any]:
    if not needed and not path.exists():
        return {}
    try:
        found = json.loads(_text(path))
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON ({error}); copy it again from its source") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is no JSON object; copy it again from its source")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); a source needs it: write it with save_pretrained") from error
