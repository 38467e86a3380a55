"""Tiny networks: their configuration, and random weights that hide no mistake."""

from __future__ import annotations

import torch

from model import DecoderConfig, EncoderConfig, ImageConfig, ModelConfig


def tiny_config(vocab_size: int, **encoder: object) -> ModelConfig:
    options: dict[str, object] = {"hidden_size": 24, "num_layers": 1, "num_heads": 2, "patch_size": 8, "stem_strides": (8,)}
    return ModelConfig(
        image=ImageConfig(height=24, width=32),
        encoder=EncoderConfig(**(options | encoder)),  # type: ignore[arg-type]
        decoder=DecoderConfig(
            vocab_size=vocab_size,
            hidden_size=16,
            num_layers=2,
            num_heads=2,
            intermediate_size=32,
            max_positions=96,
            encoder_hidden_size=24,
        ),
        license="none: random weights",
        created=1,
    )


def redraw(network: torch.nn.Module, seed: int, scale: float = 0.35) -> None:
    """Add noise to every weight, so that no zero bias or unit norm of the initialization hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.parameters():
            value += torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.dtype) * scale
