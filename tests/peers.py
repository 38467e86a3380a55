"""Tiny peers: networks of transformers with random weights, one of each family that is converted.

Every tensor is sampled again: the library's zero biases, unit norms and zero positions would hide a mapping mistake.

Shapes: R rows, T tokens, S image tokens, H heads, C hidden size, V vocabulary, L layers.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    Florence2Config,
    Florence2ForConditionalGeneration,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
)

from benchmarks import randomize_weights
from tests.peer_configs import MAX_POSITIONS, SIZE, decoder_config, encoder_config

FAMILIES = (
    "blip", "blip_large", "vit_gpt2", "deit_gpt2", "vit_gpt2_projected", "trocr", "trocr_stage1",
    "beit_bert", "swin_roberta", "swinv2_xlm-roberta", "dinov2_mbart", "donut-swin_mbart", "florence2",
)  # fmt: skip
ENCODERS = ("vit", "deit", "beit", "swin", "swinv2", "dinov2")
DECODERS = ("gpt2", "bert", "roberta", "xlm-roberta", "trocr", "mbart")
VOCAB_SIZE = 61
PROMPT = (0, 11, 12, 13, 14, 2)  # of Florence-2: its start and end are 0 and 2


def build(
    family: str,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    *,
    eager_decoder: bool = False,
    vocab_size: int = VOCAB_SIZE,
    ids: tuple[int, int, int] | None = None,
    max_positions: int = MAX_POSITIONS,
) -> Any:
    """Return a tiny peer in evaluation mode; `ids` are the ids of start, end and pad.

    An eager decoder returns its attention weights; the encoder is not changed.
    """
    if family == "florence2":
        model = _florence(vocab_size, ids, max_positions)
    else:
        model = (_blip if family.startswith("blip") else _encoder_decoder)(family, vocab_size, ids)
    if eager_decoder and any(kind in family for kind in ("gpt2", "bert", "bart")):
        model.decoder.set_attn_implementation("eager")
    if eager_decoder and is_florence(model):
        model.model.language_model.set_attn_implementation("eager")
    return randomize_weights(model.eval().to(dtype), seed).requires_grad_(False)


def logits_of(peer: Any, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the peer's logits with teacher forcing: (R, T, V)."""
    if hasattr(peer, "text_decoder"):
        return peer.text_decoder(input_ids=tokens, encoder_hidden_states=features_of(peer, pixels)).logits
    if is_florence(peer):
        return peer(**prompted(peer, pixels), decoder_input_ids=tokens).logits
    return peer(pixel_values=pixels, decoder_input_ids=tokens, **_resized(peer, pixels)).logits


def is_florence(peer: Any) -> bool:
    return bool(peer.config.model_type == "florence2")


def prompted(peer: Any, pixels: torch.Tensor, prompt: tuple[int, ...] = PROMPT) -> dict[str, torch.Tensor]:
    """Return the inputs of a Florence-2: a placeholder for each image token, then the prompt."""
    stride = 2 ** (len(peer.config.vision_config.depths) + 1)
    count = 1 + (pixels.size(-2) // stride) * (pixels.size(-1) // stride)
    row = [peer.config.image_token_id] * count + list(prompt)
    return {"pixel_values": pixels, "input_ids": torch.tensor([row] * pixels.size(0))}


def features_of(peer: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Return the output of the peer's encoder: (R, S, C)."""
    if is_florence(peer):
        return peer.model.get_image_features(pixels).pooler_output
    resized = _resized(peer, pixels)
    return peer.vision_model(pixels, **resized)[0] if hasattr(peer, "text_decoder") else peer.encoder(pixels, **resized)[0]


def cross_attentions_of(peer: Any, pixels: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the peer's cross-attention weights with teacher forcing: L x (R, H, T, S)."""
    if is_florence(peer):
        return peer(**prompted(peer, pixels), decoder_input_ids=tokens, output_attentions=True).cross_attentions
    decoder = peer.text_decoder if hasattr(peer, "text_decoder") else peer.decoder
    features = features_of(peer, pixels)
    if hasattr(peer, "enc_to_dec_proj"):
        features = peer.enc_to_dec_proj(features)
    return decoder(input_ids=tokens, encoder_hidden_states=features, output_attentions=True).cross_attentions


def _resized(peer: Any, pixels: torch.Tensor) -> dict[str, bool]:
    """Request resized positions only if the images have another size than the peer's."""
    vision = peer.config.vision_config if hasattr(peer, "text_decoder") else peer.config.encoder
    if vision.model_type in ("swin", "swinv2", "donut-swin", "dinov2"):  # they take any size, without a word
        return {}
    return {} if pixels.size(-1) == vision.image_size == pixels.size(-2) else {"interpolate_pos_encoding": True}


@torch.no_grad()
def end_competes(peer: Any, level: float, seed: int = 0) -> Any:
    """Make the end token likely: captions of random weights hardly ever end, which leaves the rules of ending untested.

    The last norm's bias moves along a unit vector, and so does the end token's row of the head, until the median of its
    logit, relative to all other tokens and over random inputs, is `level`.
    """
    generator = torch.Generator().manual_seed(seed + 5)
    ln, head, end = _last_norm(peer)
    unit = torch.randn(head.size(1), generator=generator, dtype=torch.float64)
    unit = (unit / unit.norm()).to(head.dtype)
    ln.bias.add_(4 * unit)
    tokens = torch.randint(8, head.size(0) - 2, (4, 10), generator=generator)
    pixels = torch.randn(4, 3, SIZE, SIZE, generator=generator, dtype=torch.float64).to(head.dtype)
    for _ in range(6):
        logits = logits_of(peer, pixels, tokens)
        others = logits.clone()
        others[..., end] = float("-inf")
        gap = (logits[..., end] - others.logsumexp(-1)).median()
        head[end] += (level - gap) / 4 * unit * 0.9
    return peer


def generated(peer: Any, pixels: torch.Tensor, prompt: list[int], **options: Any) -> list[list[tuple[int, ...]]]:
    """Return the peer's tokens after the prompt, up to the first end token: for each image its captions, best first."""
    images = pixels.size(0)
    if hasattr(peer, "text_decoder"):  # its generate sets the first token to the start token and removes the last one
        end, special = peer.config.text_config.sep_token_id, [0]
        inputs = {"input_ids": torch.tensor([[0, *prompt, end]] * images)}
    else:
        config = peer.generation_config
        end, special = config.eos_token_id, [config.decoder_start_token_id]
        special += [] if config.forced_bos_token_id is None else [config.forced_bos_token_id]
        # Without a prompt the forced token is generated.
        inputs = {"decoder_input_ids": torch.tensor([[*special, *prompt] if prompt else special[:1]] * images)}
        inputs |= prompted(peer, pixels) if is_florence(peer) else {}
    rows = peer.generate(**({"pixel_values": pixels} | inputs), **options).tolist()
    captions = []
    for row in rows:
        tokens = row[len(special) + len(prompt) :]
        captions.append(tuple(tokens[: tokens.index(end)] if end in tokens else tokens))
    count = len(captions) // images
    return [captions[image * count : (image + 1) * count] for image in range(images)]


def _last_norm(peer: Any) -> tuple[Any, torch.Tensor, int]:
    """Return the norm before the head, the head's weight, and the end token's id."""
    if hasattr(peer, "text_decoder"):
        decoder = peer.text_decoder
        norm = decoder.cls.predictions.transform.LayerNorm
        return norm, decoder.bert.embeddings.word_embeddings.weight, peer.config.text_config.sep_token_id
    end = peer.generation_config.eos_token_id
    end = end[0] if isinstance(end, list) else end
    if is_florence(peer):
        return peer.model.language_model.decoder.layers[-1].final_layer_norm, peer.lm_head.weight, end
    decoder = peer.decoder
    if hasattr(decoder, "transformer"):
        return decoder.transformer.ln_f, decoder.lm_head.weight, end
    if hasattr(decoder, "bert"):
        return decoder.cls.predictions.transform.LayerNorm, decoder.bert.embeddings.word_embeddings.weight, end
    if hasattr(decoder, "roberta"):
        return decoder.lm_head.layer_norm, decoder.roberta.embeddings.word_embeddings.weight, end
    if hasattr(decoder, "lm_head"):
        return decoder.model.decoder.layer_norm, decoder.lm_head.weight, end
    return decoder.model.decoder.layers[-1].final_layer_norm, decoder.output_projection.weight, end


def _blip(family: str, vocab_size: int, ids: tuple[int, int, int] | None) -> Any:
    start, end, pad = ids or (vocab_size - 2, 7, 0)
    vision_size = 32 if family == "blip" else 40
    shared = {"num_hidden_layers": 2, "num_attention_heads": 4}
    text = shared | {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "encoder_hidden_size": vision_size,
        "intermediate_size": 64,
        "max_position_embeddings": MAX_POSITIONS,
        "bos_token_id": start,
        "eos_token_id": 2,
        "pad_token_id": pad,
        "sep_token_id": end,
    }
    vision = shared | {"hidden_size": vision_size, "intermediate_size": 2 * vision_size, "image_size": SIZE, "patch_size": 4}
    return BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))


def _florence(vocab_size: int, ids: tuple[int, int, int] | None, max_positions: int) -> Any:
    """A tiny Florence-2, or a whole one in small: windows do not divide the grids."""
    start, end, pad = ids or (2, 2, 1)
    vision = {
        "depths": [1, 2],
        "patch_size": [7, 3],
        "patch_stride": [4, 2],
        "patch_padding": [3, 1],
        "patch_prenorm": [False, True],
        "embed_dim": [16, 24],
        "num_heads": [2, 4],
        "num_groups": [2, 4],
        "window_size": 3,
        "projection_dim": 32,
        "max_position_embeddings": 10,
    }
    text = {
        "model_type": "bart",
        "vocab_size": vocab_size,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": max_positions,
        "bos_token_id": 0,
        "eos_token_id": end,
        "pad_token_id": pad,
        "decoder_start_token_id": start,
        "forced_bos_token_id": 0,
        "forced_eos_token_id": end,
    }
    model = Florence2ForConditionalGeneration(
        Florence2Config(vision_config=vision, text_config=text, image_token_id=vocab_size - 1)
    )
    config = model.generation_config
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id, config.bos_token_id = start, end, pad, 0
    config.forced_bos_token_id, config.forced_eos_token_id = 0, end
    return model


def _encoder_decoder(family: str, vocab_size: int, ids: tuple[int, int, int] | None) -> Any:
    kind, _, rest = family.partition("_") if not family.startswith("trocr") else ("vit", "", family)
    encoder = encoder_config(kind, 40 if family == "vit_gpt2_projected" else 32, qkv_bias="trocr" not in family)
    decoder_kind = rest.removesuffix("_projected")
    decoder, usual = decoder_config(decoder_kind, vocab_size, ids)
    model = VisionEncoderDecoderModel(VisionEncoderDecoderConfig(encoder=encoder.to_dict(), decoder=decoder.to_dict()))
    config = model.generation_config
    start, end, pad = ids or usual
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id, config.bos_token_id = start, end, pad, None
    config.forced_eos_token_id = end if decoder_kind == "mbart" else None  # as published ones have it
    return model
