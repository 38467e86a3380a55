"""Captioners of transformers with random weights of the published sizes, as folders on disk, for comparisons of speed.

Speed does not depend on the values of the weights.
"""

from __future__ import annotations

import itertools
import json
import string
from pathlib import Path
from typing import Any

import tokenizers
import torch

from corpus import DataError

PEER_FAMILIES = (
    "vit_gpt2", "blip", "blip_large", "trocr", "swin_gpt2", "manga_ocr", "donut", "florence2", "florence2_large",
)  # fmt: skip
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_IMAGE_SIZES = {"florence2": (768, 768)}  # height, width of families whose encoder's config has none


def random_peer(family: str, dtype: torch.dtype = torch.float32) -> Any:
    """Return a captioner of the published size (111 to 823 million parameters) with random weights, in evaluation mode.

    Donut's pages are of 1280 x 960 pixels, as many of its fine-tuned checkpoints have them. Raises DataError if transformers
    is missing.
    """
    try:
        import transformers
    except ImportError as error:
        raise DataError(f"{error}; install the extra dev to compare with transformers") from error
    library: Any = transformers  # Any: its types do not allow configs from keyword arguments
    make = _blip if family.startswith("blip") else _florence if family.startswith("florence") else _encoder_decoder
    return randomize_weights(make(library, family).eval().to(dtype), 0).requires_grad_(False)


def _blip(library: Any, family: str) -> Any:
    vision = {"image_size": 384, **(_LARGE if family == "blip_large" else {})}
    text = {"num_attention_heads": 12, "encoder_hidden_size": vision.get("hidden_size", 768)}
    return library.BlipForConditionalGeneration(library.BlipConfig(text_config=text, vision_config=vision))


def _florence(library: Any, family: str) -> Any:
    is_large = family == "florence2_large"
    width, layers, heads = (1024, 12, 16) if is_large else (768, 6, 12)
    stages = (
        {"embed_dim": [256, 512, 1024, 2048], "num_heads": [8, 16, 32, 64], "num_groups": [8, 16, 32, 64]} if is_large else {}
    )
    text = {
        "model_type": "bart", "vocab_size": 51290, "d_model": width, "encoder_layers": layers, "decoder_layers": layers,
        "encoder_attention_heads": heads, "decoder_attention_heads": heads, "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width, "max_position_embeddings": 1024,
    }  # fmt: skip
    config = library.Florence2Config(vision_config={"projection_dim": width, **stages}, text_config=text, image_token_id=51289)
    model = library.Florence2ForConditionalGeneration(config)
    generation = model.generation_config
    generation.bos_token_id = generation.forced_bos_token_id = 0
    generation.decoder_start_token_id = generation.eos_token_id = generation.forced_eos_token_id = 2
    generation.pad_token_id = 1
    return model


def _encoder_decoder(library: Any, family: str) -> Any:
    crossing = {"is_decoder": True, "add_cross_attention": True}
    ids = (50256, 50256, 50256)  # start, end, pad
    if family == "trocr":
        encoder, ids = library.ViTConfig(image_size=384, qkv_bias=False), (2, 2, 1)
        decoder = library.TrOCRConfig(**crossing, cross_attention_hidden_size=768)
    elif family == "manga_ocr":
        encoder, ids = library.ViTConfig(), (2, 3, 0)
        decoder = library.BertConfig(**crossing, vocab_size=6144, num_hidden_layers=2)
    elif family == "donut":
        encoder, ids = (
            library.DonutSwinConfig(
                image_size=[1280, 960], embed_dim=128, depths=[2, 2, 14, 2], num_heads=[4, 8, 16, 32], window_size=10
            ),
            (0, 2, 1),
        )
        decoder = library.MBartConfig(**crossing, vocab_size=57532, decoder_layers=4, max_position_embeddings=1536)
    else:
        swin = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]}
        encoder = library.SwinConfig(**swin) if family == "swin_gpt2" else library.ViTConfig()
        decoder = library.GPT2Config(**crossing)
    config = library.VisionEncoderDecoderConfig(encoder=encoder.to_dict(), decoder=decoder.to_dict())
    model = library.VisionEncoderDecoderModel(config)
    generation = model.generation_config
    generation.bos_token_id = None
    generation.decoder_start_token_id, generation.eos_token_id, generation.pad_token_id = ids
    return model


def image_size(peer: Any) -> tuple[int, int]:
    """Return height and width of the images of a peer."""
    known = _IMAGE_SIZES.get(peer.config.model_type)
    if known is not None:
        return known
    vision = getattr(peer.config, "vision_config", None) or peer.config.encoder
    size = vision.image_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def peer_inputs(peer: Any, prompt: tuple[int, ...], count: int) -> dict[str, Any]:
    """Return what `generate` needs beside the pixels of `count` images: a prompt, and a token for each image token before it."""
    if peer.config.model_type != "florence2":
        return {}
    height, width = image_size(peer)
    row = [peer.config.image_token_id] * (1 + (height // 32) * (width // 32)) + list(prompt)
    return {"input_ids": torch.tensor([row] * count)}


@torch.no_grad()
def randomize_weights(model: Any, seed: int) -> Any:
    """Replace every parameter by random values and return the model; tied parameters stay tied.

    The library's zero biases and unit norms would hide errors of a conversion.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, value in sorted(model.named_parameters()):  # a tied tensor has one name here
        random_values = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        low = name.lower()
        if value.ndim == 1:
            random_values = 1 + 0.3 * random_values if "weight" in low else 0.2 * random_values
        elif any(part in low for part in ("emb", "wte", "wpe", "token")) and "patch" not in low:
            random_values = 0.7 * random_values
        else:
            random_values = (
                random_values / value[0].numel() ** 0.5 if value.ndim == 4 else 1.3 * random_values / min(value.shape) ** 0.5
            )
        value.copy_(random_values.to(value.dtype))
    return model


def save_peer(peer: Any, folder: Path) -> None:
    """Write a peer as a folder of transformers: weights, configs, a tokenizer of random words, and the preprocessor config."""
    peer.save_pretrained(folder)
    text, generation = getattr(peer.config, "text_config", None) or peer.config.decoder, peer.generation_config
    special = (
        generation.decoder_start_token_id, generation.forced_bos_token_id, generation.eos_token_id, generation.pad_token_id,
    )  # fmt: skip
    if peer.config.model_type == "blip":
        special = (text.bos_token_id, None, text.sep_token_id, text.pad_token_id)
    tokenizer = _random_tokenizer(text.vocab_size, special, has_locations=peer.config.model_type == "florence2")
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    height, width = image_size(peer)
    size = {"height": height, "width": width}
    preprocessing = {"size": size, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing), encoding="utf-8")


def _random_tokenizer(size: int, special: tuple[int | None, ...], *, has_locations: bool) -> tokenizers.Tokenizer:
    """Return a byte-level tokenizer in which nearly every token is a separate word; the last ones may be those of coordinates."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    letters = (part for count in (2, 3, 4) for part in itertools.product(string.ascii_lowercase, repeat=count))
    locations = ["<od>", *(f"<loc_{index}>" for index in range(1000))] if has_locations else []
    count = size - len(alphabet) - len(locations)
    pieces = [*alphabet, *("\u0120" + "".join(part) for part in itertools.islice(letters, count))]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({piece: index for index, piece in enumerate(pieces)}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([pieces[index] for index in sorted({index for index in special if index is not None})])
    tokenizer.add_special_tokens(locations)
    return tokenizer
