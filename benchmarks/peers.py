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

PEER_FAMILIES = ("vit_gpt2", "blip", "blip_large", "trocr")


def random_peer(family: str, dtype: torch.dtype = torch.float32) -> Any:
    """Return a captioner of the published size (224 to 446 million parameters) with random weights, in evaluation mode.

    Raises DataError if transformers is missing.
    """
    try:
        import transformers
    except ImportError as error:
        raise DataError(f"{error}; install the extra dev to compare with transformers") from error
    library: Any = transformers  # Any: its types do not allow configs from keyword arguments
    if family.startswith("blip"):
        large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
        vision = {"image_size": 384, **(large if family == "blip_large" else {})}
        text = {"num_attention_heads": 12, "encoder_hidden_size": vision.get("hidden_size", 768)}
        model = library.BlipForConditionalGeneration(library.BlipConfig(text_config=text, vision_config=vision))
    else:
        trocr = family == "trocr"
        encoder = library.ViTConfig(image_size=384 if trocr else 224, qkv_bias=not trocr)
        decoder = (
            library.TrOCRConfig(is_decoder=True, add_cross_attention=True, cross_attention_hidden_size=768)
            if trocr
            else library.GPT2Config(is_decoder=True, add_cross_attention=True)
        )
        config = library.VisionEncoderDecoderConfig(encoder=encoder.to_dict(), decoder=decoder.to_dict())
        model = library.VisionEncoderDecoderModel(config)
        generation = model.generation_config
        generation.bos_token_id = None
        generation.decoder_start_token_id = generation.eos_token_id = 2 if trocr else 50256
        generation.pad_token_id = 1 if trocr else 50256
    return randomize_weights(model.eval().to(dtype), 0).requires_grad_(False)


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
    text = getattr(peer.config, "text_config", None)
    if text is not None:
        vision, special = peer.config.vision_config, (text.bos_token_id, text.sep_token_id, text.pad_token_id)
    else:
        vision, text, generation = peer.config.encoder, peer.config.decoder, peer.generation_config
        special = (generation.decoder_start_token_id, generation.eos_token_id, generation.pad_token_id)
    (folder / "tokenizer.json").write_text(_random_tokenizer(text.vocab_size, special).to_str(), encoding="utf-8")
    preprocessing = {"size": vision.image_size, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing), encoding="utf-8")


def _random_tokenizer(size: int, special: tuple[int, ...]) -> tokenizers.Tokenizer:
    """Return a byte-level tokenizer in which nearly every token is a separate word."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    letters = (part for count in (2, 3, 4) for part in itertools.product(string.ascii_lowercase, repeat=count))
    pieces = [*alphabet, *("\u0120" + "".join(part) for part in itertools.islice(letters, size - len(alphabet)))]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({piece: index for index, piece in enumerate(pieces)}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([pieces[index] for index in sorted(set(special))])
    return tokenizer
