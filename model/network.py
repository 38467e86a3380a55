"""The captioning network: pixels and tokens in, logits out. Decoding, scoring pass and training loss all use it.

Shapes: B images, R rows, T caption tokens, S image tokens, C hidden size, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.decoder import TextDecoder
from model.device import to_device
from model.encoder import ImageFeatures, PatchEncoder
from model.geometry import PatchGrid
from model.state import DecoderState


class CaptionNetwork(nn.Module):
    """PatchEncoder and TextDecoder, and the embedding that stands for "no image". A Runtime (model/runtime.py)."""

    def __init__(self, config: ModelConfig, *, dropout: float = 0.0, drop_path: float = 0.0, pretrained: bool = False) -> None:
        super().__init__()
        self.config = config
        self.encoder = PatchEncoder(config.encoder, config.image, drop_path=drop_path, pretrained=pretrained)
        self.decoder = TextDecoder(config.decoder, dropout=dropout)
        num_tokens = config.encoder.num_prefix_tokens + self.encoder.grid.num_patches
        size = config.encoder.hidden_size
        shape = [size] if config.unconditional == "learned" else [num_tokens, size]
        self.no_image = nn.Parameter(torch.randn(shape) * 0.02)  # (C,) or (S, C)

    @property
    def device(self) -> torch.device:
        return self.no_image.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the image tokens that the encoder gives the decoder; the two may compute in others."""
        return self.no_image.dtype

    @property
    def grid(self) -> PatchGrid:
        return self.encoder.grid

    @property
    def supports_gradients(self) -> bool:
        return self.decoder.packed_head is None

    def encode(self, pixels: Tensor) -> ImageFeatures:
        """pixels (B, 3, height, width), normalized -> ImageFeatures of tokens (B, S, C)."""
        features = self.encoder(to_device(pixels, self.device, self.encoder.dtype))
        return ImageFeatures(features.tokens.to(self.dtype), features.grid, features.num_prefix_tokens)

    def unconditional(self) -> ImageFeatures:
        """Return the features of "no image", one that all rows can share: its embedding replaces every image token."""
        grid, prefix = self.encoder.grid, self.config.encoder.num_prefix_tokens
        return ImageFeatures(self.no_image.expand(1, prefix + grid.num_patches, -1), grid, prefix)

    def drop_images(self, features: ImageFeatures, dropped: Tensor) -> ImageFeatures:
        """Return features in which "no image" replaces every token of the dropped images, dropped (B,) bool."""
        tokens = torch.where(dropped[:, None, None], self.no_image.to(features.tokens.dtype), features.tokens)  # (B, S, C)
        return ImageFeatures(tokens, features.grid, features.num_prefix_tokens)

    def start(self, features: ImageFeatures, image_of: tuple[int, ...] | None = None) -> DecoderState:
        """Return the state before the first token: one row per image, or the rows of `image_of`."""
        tokens = features.tokens.to(self.decoder.dtype)
        return self.decoder.start(tokens, image_of or tuple(range(tokens.size(0))))

    def decode(
        self, tokens: Tensor, state: DecoderState, *, weights: bool = False, logits_mask: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...], DecoderState]:
        """Score caption tokens (R, T); see TextDecoder.forward."""
        return self.decoder(tokens, state, weights=weights, logits_mask=logits_mask)
