"""The scoring pass: a teacher-forced pass over captions gives every probability and map row, a second one image reliance.

Position t reads token t-1 (the start token first) and predicts token t: the attention of row t is that of the position
that predicted token t, and uses nothing later.

Shapes: B images, R captions, T tokens, S image keys (null key included), P patches, H heads, K head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.encoder import ImageFeatures
from model.errors import ConfigError
from model.maps import MapMethod, ScoredRows, prompt_shares
from model.runtime import Runtime
from model.state import DecoderState


@dataclass(frozen=True, slots=True)
class ScoredCaption:
    """The scores of one caption, a value per token; the end token is the last if the caption has one."""

    log_probs: tuple[float, ...]  # log p(token | tokens before, image), nats
    unconditional_log_probs: tuple[float, ...]  # the same without an image; empty unless reliance was requested
    token_maps: Tensor | None  # (T, P) on the CPU, row t is the map of token t
    prompt_shares: tuple[float, ...] = ()  # share of attention on the prompt, per token; empty without a prompt or such a map

    def part(self, start: int, end: int) -> ScoredCaption:
        """Return the scores of tokens start to end."""
        maps = None if self.token_maps is None else self.token_maps[start:end]
        return ScoredCaption(
            self.log_probs[start:end], self.unconditional_log_probs[start:end], maps, self.prompt_shares[start:end]
        )


def scoring_pass(
    runtime: Runtime,
    features: ImageFeatures,
    image_of: Sequence[int],
    captions: Sequence[tuple[int, ...]],
    *,
    method: MapMethod | None,
    reliance: bool,
    prefixes: Sequence[tuple[int, ...]] | None = None,
    state: DecoderState | None = None,
    unconditional_state: DecoderState | None = None,
    unconditional_of: Sequence[int] | None = None,
    progress: Callable[[], None] | None = None,
) -> list[ScoredCaption]:
    """Score R captions, whose tokens hold no start, over the images of `image_of`.

    A caption ends with the end token if it was chosen. Log-probabilities are those of the network's own softmax:
    temperature 1, no penalties, no banned tokens. `prefixes` are the special ids before each caption, the start token where
    it is None. `state` and `unconditional_state` are the states of the images and of no image if the caller has them: keys
    and values of 577 image tokens cost as much as a caption. `unconditional_of` names the row of `unconditional_state` for
    each caption, the first one where it is None: with prompts "no image" differs. Raises ConfigError for gradients that the
    runtime cannot compute.
    """
    check_method(runtime, method)
    decoder = runtime.config.decoder
    prefixes = prefixes or [(decoder.bos_token_id,)] * len(captions)
    longest = max(map(len, captions))
    padded = [[*tokens, *[decoder.pad_token_id] * (longest - len(tokens))] for tokens in captions]
    targets = torch.tensor(padded, dtype=torch.long, device=runtime.device).reshape(len(captions), longest)  # (R, T)
    before = torch.tensor(prefixes, device=runtime.device)  # (R, number of ids before the caption)
    inputs = torch.cat([before, targets[:, :-1]], dim=1)
    first = before.size(1) - 1  # the position that predicts the caption's first token

    with torch.inference_mode():
        state = (state or runtime.start(features)).select(image_of)
        unconditional = None
        if reliance:
            shared = unconditional_state or runtime.start(runtime.unconditional())
            logits, _, _ = runtime.decode(inputs, shared.select(unconditional_of or [0] * len(captions)))
            unconditional = _target_log_probs(logits[:, first:], targets)
    with ExitStack() as stack:
        if method is not None and method.uses_gradients:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            state, inputs, targets = _differentiable(state), inputs.clone(), targets.clone()
        else:
            stack.enter_context(torch.inference_mode())
        logits, weights, _ = runtime.decode(inputs, state, weights=method is not None)
        logits = logits[:, first:]
        token_maps, shares = None, None
        if method is not None:
            weights = tuple(layer[:, :, first:] for layer in weights)

            def rescore(other: DecoderState) -> Tensor:
                return _target_log_probs(runtime.decode(inputs, other)[0][:, first:], targets)

            prefix, maps = features.num_prefix_tokens, runtime.config.maps
            rows = ScoredRows(logits, targets, weights, state, features.grid, prefix, maps, rescore, decoder.null_key, progress)
            token_maps = method.token_maps(rows).detach().cpu()  # (R, T, P)
            if runtime.config.prompt_encoder is not None and method.is_attention_share:
                shares = prompt_shares(rows).tolist()
        log_probs = _target_log_probs(logits.detach(), targets)
    conditional_values = log_probs.tolist()
    unconditional_values = [] if unconditional is None else unconditional.tolist()
    return [
        ScoredCaption(
            tuple(conditional_values[row][: len(tokens)]),
            tuple(unconditional_values[row][: len(tokens)]) if unconditional_values else (),
            None if token_maps is None else token_maps[row, : len(tokens)],
            tuple(shares[row][: len(tokens)]) if shares else (),
        )
        for row, tokens in enumerate(captions)
    ]


def check_method(runtime: Runtime, method: MapMethod | None) -> None:
    """Raises ConfigError if a map method needs gradients that the runtime cannot compute."""
    if method is not None and method.uses_gradients and not runtime.supports_gradients:
        raise ConfigError(f"maps is {method.name!r}, which needs gradients; use dtype float32 for this checkpoint")


def _differentiable(state: DecoderState) -> DecoderState:
    """Return the state with an image per row and cross values that are leaves of autograd."""
    image_of = torch.tensor(state.image_of, device=state.device)
    return replace(
        state,
        self_key=tuple(key.clone() for key in state.self_key),
        self_value=tuple(value.clone() for value in state.self_value),
        cross_key=tuple(key[image_of].clone() for key in state.cross_key),
        cross_value=tuple(value[image_of].clone().requires_grad_() for value in state.cross_value),
        image_of=tuple(range(state.num_rows)),
        num_keys=tuple(state.num_keys[image] for image in state.image_of),
    )


def _target_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probability of every target: logits (R, T, V), targets (R, T) -> (R, T)."""
    if targets.size(1) == 0:
        return logits.new_zeros(targets.shape)
    if logits.dtype not in (torch.bfloat16, torch.float16):
        return logits.log_softmax(-1).gather(2, targets[..., None]).squeeze(2)
    # In float32, a row at a time: the converted values stay in the processor's cache.
    pairs = zip(logits, targets, strict=True)
    return torch.stack([row.float().log_softmax(-1).gather(1, ids[:, None]).squeeze(1) for row, ids in pairs])
