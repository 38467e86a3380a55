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
    DeiTConfig,
    GPT2Config,
    TrOCRConfig,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)

from benchmarks import randomize_weights

FAMILIES = ("blip", "blip_large", "vit_gpt2", "deit_gpt2", "vit_gpt2_projected", "trocr", "trocr_stage1")
VOCAB_SIZE, MAX_POSITIONS, SIZE = 61, 64, 16  # tokens, positions, pixels per side


def build(
    family: str,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    *,
    eager_decoder: bool = False,
    vocab_size: int = VOCAB_SIZE,
    ids: tuple[int, int, int] | None = None,
) -> Any:
    """Return a tiny peer in evaluation mode; `ids` are the ids of start, end and pad.

    An eager decoder returns its attention weights; the encoder is not changed.
    """
    model = (_blip if family.startswith("blip") else _encoder_decoder)(family, vocab_size, ids)
    if eager_decoder and "gpt2" in family:
        model.decoder.set_attn_implementation("eager")
    return randomize_weights(model.eval().to(dtype), seed).requires_grad_(False)


def logits_of(peer: Any, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the peer's logits with teacher forcing: (R, T, V)."""
    if hasattr(peer, "text_decoder"):
        return peer.text_decoder(input_ids=tokens, encoder_hidden_states=features_of(peer, pixels)).logits
    return peer(pixel_values=pixels, decoder_input_ids=tokens, **_resized(peer, pixels)).logits


def features_of(peer: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Return the output of the peer's encoder: (R, S, C)."""
    resized = _resized(peer, pixels)
    return peer.vision_model(pixels, **resized)[0] if hasattr(peer, "text_decoder") else peer.encoder(pixels, **resized)[0]


def cross_attentions_of(peer: Any, pixels: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the peer's cross-attention weights with teacher forcing: L x (R, H, T, S)."""
    decoder = peer.text_decoder if hasattr(peer, "text_decoder") else peer.decoder
    features = features_of(peer, pixels)
    if hasattr(peer, "enc_to_dec_proj"):
        features = peer.enc_to_dec_proj(features)
    return decoder(input_ids=tokens, encoder_hidden_states=features, output_attentions=True).cross_attentions


def _resized(peer: Any, pixels: torch.Tensor) -> dict[str, bool]:
    """Request resized positions only if the images have another size than the peer's."""
    vision = peer.config.vision_config if hasattr(peer, "text_decoder") else peer.config.encoder
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
        end = peer.config.text_config.sep_token_id
        inputs = {"input_ids": torch.tensor([[0, *prompt, end]] * images)}
    else:
        end = peer.generation_config.eos_token_id
        start = peer.generation_config.decoder_start_token_id
        inputs = {"decoder_input_ids": torch.tensor([[start, *prompt]] * images)}
    rows = peer.generate(pixel_values=pixels, **inputs, **options).tolist()
    captions = []
    for row in rows:
        tokens = row[1 + len(prompt) :]
        captions.append(tuple(tokens[: tokens.index(end)] if end in tokens else tokens))
    count = len(captions) // images
    return [captions[image * count : (image + 1) * count] for image in range(images)]


def _last_norm(peer: Any) -> tuple[Any, torch.Tensor, int]:
    """Return the norm before the head, the head's weight, and the end token's id."""
    if hasattr(peer, "text_decoder"):
        decoder = peer.text_decoder
        norm = decoder.cls.predictions.transform.LayerNorm
        return norm, decoder.bert.embeddings.word_embeddings.weight, peer.config.text_config.sep_token_id
    decoder, end = peer.decoder, peer.generation_config.eos_token_id
    end = end[0] if isinstance(end, list) else end
    if hasattr(decoder, "transformer"):
        return decoder.transformer.ln_f, decoder.lm_head.weight, end
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


def _encoder_decoder(family: str, vocab_size: int, ids: tuple[int, int, int] | None) -> Any:
    encoder = (DeiTConfig if family.startswith("deit") else ViTConfig)(
        hidden_size=40 if family == "vit_gpt2_projected" else 32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        image_size=SIZE,
        patch_size=4,
        qkv_bias=not family.startswith("trocr"),
    )
    if "gpt2" in family:
        shape = {"vocab_size": vocab_size, "n_positions": MAX_POSITIONS, "n_embd": 32, "n_layer": 2, "n_head": 4}
        start, end, pad = ids or (5, 5, 5)
        decoder = GPT2Config(**shape, add_cross_attention=True, is_decoder=True, bos_token_id=start, eos_token_id=end)
    else:
        first_stage = {  # options of TrOCR's first stage and of its small models only
            "activation_function": "relu",
            "scale_embedding": True,
            "use_learned_position_embeddings": False,
            "layernorm_embedding": False,
            "tie_word_embeddings": False,
        }
        decoder = TrOCRConfig(
            vocab_size=vocab_size,
            d_model=40,
            decoder_layers=2,
            decoder_attention_heads=4,
            decoder_ffn_dim=64,
            max_position_embeddings=MAX_POSITIONS,
            cross_attention_hidden_size=32,
            is_decoder=True,
            add_cross_attention=True,
            **(first_stage if family == "trocr_stage1" else {}),
        )
        start, end, pad = ids or (2, 2, 1)
    model = VisionEncoderDecoderModel(VisionEncoderDecoderConfig(encoder=encoder.to_dict(), decoder=decoder.to_dict()))
    config = model.generation_config
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id, config.bos_token_id = start, end, pad, None
    return model
