"""transformers' captioners of the published sizes with random weights, as folders on disk: what speeds are measured on.

Speed does not depend on what the weights are; equality does not either, and a few tokens are compared on the way.
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

PEERS = ("vit_gpt2", "blip", "blip_large", "trocr")


def random_peer(family: str, dtype: torch.dtype = torch.float32) -> Any:
    """Return a captioner of the published size, 224 to 446 million weights, in evaluation mode; every tensor is drawn.

    Raises DataError where transformers is missing.
    """
    try:
        import transformers
    except ImportError as error:
        raise DataError(f"{error}; install the extra dev to compare with transformers") from error
    peers: Any = transformers  # its classes are typed for another use than this
    if family.startswith("blip"):
        wide = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
        vision = {"image_size": 384, **(wide if family == "blip_large" else {})}
        text = {"num_attention_heads": 12, "encoder_hidden_size": vision.get("hidden_size", 768)}
        model = peers.BlipForConditionalGeneration(peers.BlipConfig(text_config=text, vision_config=vision))
    else:
        trocr = family == "trocr"
        encoder = peers.ViTConfig(image_size=384 if trocr else 224, qkv_bias=not trocr)
        decoder = (
            peers.TrOCRConfig(is_decoder=True, add_cross_attention=True, cross_attention_hidden_size=768)
            if trocr
            else peers.GPT2Config(is_decoder=True, add_cross_attention=True)
        )
        both = peers.VisionEncoderDecoderConfig(encoder=encoder.to_dict(), decoder=decoder.to_dict())
        model = peers.VisionEncoderDecoderModel(both)
        told = model.generation_config
        start, end, pad = (2, 2, 1) if trocr else (50256, 50256, 50256)
        told.decoder_start_token_id, told.eos_token_id, told.pad_token_id, told.bos_token_id = start, end, pad, None
    return redrawn(model.eval().to(dtype), 0).requires_grad_(False)


@torch.no_grad()
def redrawn(model: Any, seed: int) -> Any:
    """Draw every tensor anew; tied ones stay tied. The library's zero biases and unit norms would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in sorted(model.named_parameters()):  # a tied tensor has one name here
        drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        low = name.lower()
        if value.ndim == 1:
            drawn = 1 + 0.3 * drawn if "weight" in low else 0.2 * drawn
        elif any(part in low for part in ("emb", "wte", "wpe", "token")) and "patch" not in low:
            drawn = 0.7 * drawn
        else:
            drawn = drawn / value[0].numel() ** 0.5 if value.ndim == 4 else 1.3 * drawn / min(value.shape) ** 0.5
        value.copy_(drawn.to(value.dtype))
    return model


def save_peer(peer: Any, folder: Path) -> None:
    """Write a peer as its users have it: weights, configs, a tokenizer of made-up words, and what is done to a picture."""
    peer.save_pretrained(folder)
    text = getattr(peer.config, "text_config", None)
    if text is not None:
        vision, special = peer.config.vision_config, (text.bos_token_id, text.sep_token_id, text.pad_token_id)
    else:
        vision, text, told = peer.config.encoder, peer.config.decoder, peer.generation_config
        special = (told.decoder_start_token_id, told.eos_token_id, told.pad_token_id)
    (folder / "tokenizer.json").write_text(_words(text.vocab_size, special).to_str(), encoding="utf-8")
    preprocessing = {"size": vision.image_size, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing), encoding="utf-8")


def _words(size: int, special: tuple[int, ...]) -> tokenizers.Tokenizer:
    """Return a byte-level tokenizer in which nearly every token is a word of its own."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    letters = (part for count in (2, 3, 4) for part in itertools.product(string.ascii_lowercase, repeat=count))
    pieces = [*alphabet, *("\u0120" + "".join(part) for part in itertools.islice(letters, size - len(alphabet)))]
    inner = tokenizers.Tokenizer(tokenizers.models.BPE({piece: index for index, piece in enumerate(pieces)}, []))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.add_special_tokens([pieces[index] for index in sorted(set(special))])
    return inner
