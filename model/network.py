"""The captioning network: pixels and tokens in, logits out. Decoding, scoring pass and training loss all use it.

Shapes: B images, R rows, T caption tokens, S image tokens, C hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.backbones import make_encoder
from model.config import ModelConfig
from model.decoder import TextDecoder
from model.device import to_device
from model.encoder import ImageFeatures
from model.geometry import PatchGrid
from model.prompt_encoder import PromptEncoder, groups_by_length
from model.state import DecoderState


class CaptionNetwork(nn.Module):
    """An image encoder, a TextDecoder, in some families a PromptEncoder between them, and what stands for "no image".

    A Runtime (model/runtime.py).
    """

    def __init__(self, config: ModelConfig, *, dropout: float = 0.0, drop_path: float = 0.0, pretrained: bool = False) -> None:
        super().__init__()
        self.config = config
        self.encoder = make_encoder(config.encoder, config.image, drop_path=drop_path, pretrained=pretrained)
        self.decoder = TextDecoder(config.decoder, dropout=dropout)
        prompt = config.prompt_encoder
        self.prompt_encoder = None if prompt is None else PromptEncoder(prompt, config.decoder.hidden_size)
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

    def start(
        self,
        features: ImageFeatures,
        image_of: tuple[int, ...] | None = None,
        prompts: Sequence[tuple[int, ...]] | None = None,
    ) -> DecoderState:
        """Return the state before the first token: one row per image, or the rows of `image_of`.

        `prompts` has the ids of each image's prompt, for a network with a prompt encoder; None: its default prompt.
        """
        rows = image_of or tuple(range(features.num_images))
        if self.prompt_encoder is None:
            return self.decoder.start(features.tokens.to(self.decoder.dtype), rows)
        prompts = prompts or [self.prompt_encoder.config.default_ids] * features.num_images
        groups = groups_by_length(prompts)
        states = [self._prompted(features.tokens[at], [prompts[image] for image in at]) for at in groups]
        images = [image for at in groups for image in at]  # the images of the states, in order
        together = DecoderState.concat(states)
        return together if list(rows) == images else together.select([images.index(image) for image in rows])

    def _prompted(self, image_tokens: Tensor, prompts: list[tuple[int, ...]]) -> DecoderState:
        """Return the state of images (B, S, C) whose B prompts have equal length."""
        assert self.prompt_encoder is not None, "this network has no prompts"
        dtype = self.prompt_encoder.dtype
        ids = torch.tensor(prompts, dtype=torch.long, device=self.device)
        embedded = self.decoder.token_embedding(ids).to(dtype)  # (B, T, C)
        encoded = self.prompt_encoder(image_tokens.to(dtype), embedded)
        return self.decoder.start(encoded.to(self.decoder.dtype), tuple(range(len(prompts))))

    def decode(
        self, tokens: Tensor, state: DecoderState, *, weights: bool = False, logits_mask: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...], DecoderState]:
        """Score caption tokens (R, T); see TextDecoder.forward."""
        return self.decoder(tokens, state, weights=weights, logits_mask=logits_mask)
