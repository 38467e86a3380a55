"""The captioning network: pixels and tokens in, logits out. Decoding, replay and the training loss all go through here.

Shapes: B images, R rows, T caption tokens, S image tokens, C width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.decoder import TextDecoder
from model.encoder import ImageFeatures, PatchEncoder
from model.state import DecoderState


class CaptionNetwork(nn.Module):
    """PatchEncoder and TextDecoder, and the learned embedding that stands for "no image"."""

    def __init__(self, config: ModelConfig, *, dropout: float = 0.0, drop_path: float = 0.0, pretrained: bool = False) -> None:
        super().__init__()
        self.config = config
        self.encoder = PatchEncoder(config.encoder, config.image, drop_path=drop_path, pretrained=pretrained)
        self.decoder = TextDecoder(config.decoder, dropout=dropout)
        tokens = config.encoder.prefix + self.encoder.grid.cells
        size = [config.encoder.width] if config.no_image == "learned" else [tokens, config.encoder.width]
        self.no_image = nn.Parameter(torch.randn(size) * 0.02)  # (C,) or (S, C)

    @property
    def device(self) -> torch.device:
        return self.no_image.device

    @property
    def dtype(self) -> torch.dtype:
        return self.no_image.dtype

    def encode(self, pixels: Tensor) -> ImageFeatures:
        """pixels (B, 3, height, width), normalised -> ImageFeatures of tokens (B, S, C)."""
        return self.encoder(pixels.to(self.device, self.dtype))

    def blank(self) -> ImageFeatures:
        """Return the features of no image, one that any row can share: the no-image embedding stands for every token."""
        grid, prefix = self.encoder.grid, self.config.encoder.prefix
        return ImageFeatures(self.no_image.expand(1, prefix + grid.cells, -1), grid, prefix)

    def without_image(self, features: ImageFeatures, dropped: Tensor) -> ImageFeatures:
        """Return features in which the no-image embedding stands for every token of the dropped images, dropped (B,) bool."""
        mixed = torch.where(dropped[:, None, None], self.no_image.to(features.tokens.dtype), features.tokens)  # (B, S, C)
        return ImageFeatures(mixed, features.grid, features.prefix)

    def start(self, features: ImageFeatures, image_of: tuple[int, ...] | None = None) -> DecoderState:
        """Return the state before the first token: one row an image, or the rows that `image_of` names."""
        tokens = features.tokens.to(self.decoder.token_embedding.weight.dtype)
        return self.decoder.start(tokens, image_of or tuple(range(tokens.size(0))))

    def decode(
        self, tokens: Tensor, state: DecoderState, *, weights: bool = False, only: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...], DecoderState]:
        """Score caption tokens (R, T); see TextDecoder.forward."""
        return self.decoder(tokens, state, weights=weights, only=only)
