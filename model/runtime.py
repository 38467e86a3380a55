"""What the captioner needs from a network, and a CaptionNetwork prepared for inference.

Another runtime (an exported network, a remote one) has to provide `Runtime` and nothing else.

Shapes: B images, R rows, T caption tokens, S image tokens, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from model.config import ModelConfig
from model.cpu import can_pack, pack_linears
from model.device import DevicePolicy, num_parameters
from model.encoder import ImageFeatures
from model.folding import fold_batch_norms
from model.geometry import PatchGrid
from model.network import CaptionNetwork
from model.state import DecoderState


class Runtime(Protocol):
    """A network that captions: encode images, start rows, decode tokens, and the features of "no image"."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def grid(self) -> PatchGrid: ...

    @property
    def supports_gradients(self) -> bool:
        """Whether `decode` can be differentiated with respect to the state's cross keys and values."""
        ...

    def encode(self, pixels: Tensor) -> ImageFeatures:
        """pixels (B, 3, height, width), normalized, on the CPU -> ImageFeatures of tokens (B, S, C)."""
        ...

    def unconditional(self) -> ImageFeatures:
        """Return the features of "no image", of one image."""
        ...

    def start(
        self,
        features: ImageFeatures,
        image_of: tuple[int, ...] | None = None,
        prompts: Sequence[tuple[int, ...]] | None = None,
    ) -> DecoderState:
        """Return the state before the first token: one row per image, or the rows of `image_of`.

        `prompts` has the ids of each image's prompt, for a network with a prompt encoder; None: its default prompt.
        """
        ...

    def decode(
        self, tokens: Tensor, state: DecoderState, *, weights: bool = False, logits_mask: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...], DecoderState]:
        """Return logits (R, T, V), cross-attention weights L x (R, H, T, S) if `weights`, and the state T tokens later.

        With `logits_mask` (R, T) bool the logits are those of its N True positions, (N, V).
        """
        ...


def prepare_network(network: CaptionNetwork, policy: DevicePolicy, *, copy_weights: bool = True) -> CaptionNetwork:
    """Return the network on the policy's device, in its types and laid out for inference.

    The given network is left as it was, unless `copy_weights` is False: then its memory is reused.
    """
    prepared = copy.deepcopy(network) if copy_weights else network
    prepared = prepared.eval().requires_grad_(False)
    fold_batch_norms(prepared.encoder)
    decoder_dtype = policy.decoder_dtype(num_parameters(prepared.decoder))
    if policy.dtype != torch.float32:
        prepared.encoder.to(policy.dtype)
        if prepared.prompt_encoder is not None:
            prepared.prompt_encoder.to(policy.dtype)
    if decoder_dtype != torch.float32:
        prepared.decoder.to(decoder_dtype)
    prepared.to(policy.device)
    if policy.device.type == "cpu":
        if policy.dtype == torch.bfloat16 and can_pack():
            pack_linears(prepared.encoder, activations=True)
            if prepared.prompt_encoder is not None:
                prepared.prompt_encoder.pack()
        if decoder_dtype == torch.bfloat16:
            prepared.decoder.pack()
    return prepared
