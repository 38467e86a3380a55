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

    def __init__(
        self, config: ModelConfig, *, dropout: float = 0.0, drop_path: float = 0.0, pretrained_stem: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = PatchEncoder(config.encoder, config.image, drop_path=drop_path, pretrained_stem=pretrained_stem)
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

    def without_image(self, features: ImageFeatures, dropped: Tensor | None = None) -> ImageFeatures:
        """Return features in which the no-image embedding stands for every token of the dropped images.

        dropped (B,) bool; None drops all of them and returns a single image, which any row can share.
        """
        tokens = features.tokens
        blank = self.no_image.to(tokens.dtype)
        if dropped is None:
            return ImageFeatures(blank.expand(1, tokens.size(1), -1), features.grid, features.prefix)
        mixed = torch.where(dropped[:, None, None], blank, tokens)  # (B, S, C)
        return ImageFeatures(mixed, features.grid, features.prefix)

    def start(self, features: ImageFeatures, image_of: tuple[int, ...] | None = None) -> DecoderState:
        """Return the state before the first token: one row an image, or the rows that `image_of` names."""
        return self.decoder.start(features.tokens, image_of or tuple(range(features.tokens.size(0))))

    def decode(
        self, tokens: Tensor, state: DecoderState, *, weights: bool = False, only: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...], DecoderState]:
        """Score caption tokens (R, T); see TextDecoder.forward."""
        return self.decoder(tokens, state, weights=weights, only=only)
