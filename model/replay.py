"""One teacher-forced pass over finished captions: every probability, every attention row, and image reliance.

Position t reads token t-1 (the start token first) and predicts token t: the attention of row t is that of the position
that produced token t, and uses nothing that came later.

Shapes: B images, R captions, T tokens, S image tokens (null key included), P cells, H heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import MapConfig
from model.encoder import ImageFeatures
from model.network import CaptionNetwork
from model.state import DecoderState

UNSEEN = 1e-4  # attention that counts as none in a geometric mean: a fiftieth of a uniform share of 14 x 14 cells


@dataclass(frozen=True, slots=True)
class ReplayedCaption:
    """What one caption's replay read, a value a token; the end token is the last where the caption has one."""

    log_probs: tuple[float, ...]  # log p(token | tokens before, image), nats
    blind_log_probs: tuple[float, ...]  # the same with no image; empty unless asked for
    rows: Tensor | None  # (T, P) attention on the cells, row t produced token t; each sums to its image mass


@torch.inference_mode()
def replay(
    network: CaptionNetwork,
    features: ImageFeatures,
    image_of: tuple[int, ...],
    captions: Sequence[tuple[int, ...]],
    *,
    maps: bool,
    reliance: bool,
    started: DecoderState | None = None,
    nothing: DecoderState | None = None,
) -> list[ReplayedCaption]:
    """Score R captions, whose tokens hold no start, over the images that `image_of` names.

    A caption ends with the end token where it was chosen. Log-probabilities are those of the network's own softmax:
    temperature 1, no penalties, no banned tokens. `started` and `nothing` are the states of the images and of no image
    where the caller has them: keys and values of 577 image tokens cost as much as a caption.
    """
    decoder = network.config.decoder
    longest = max(map(len, captions))
    padded = [[*tokens, *[decoder.pad_id] * (longest - len(tokens))] for tokens in captions]
    shape = (len(captions), longest)  # T is 0 where all captions are empty
    targets = torch.tensor(padded, dtype=torch.long, device=network.device).reshape(shape)  # (R, T)
    start = torch.full((len(captions), 1), decoder.start_id, device=network.device)
    inputs = torch.cat([start, targets[:, :-1]], dim=1)  # (R, T), and (R, 1) where T is 0

    state = (started or network.start(features)).select(list(image_of))
    logits, weights, _ = network.decode(inputs, state, weights=maps)
    seen = _chosen(logits, targets)
    blind = None
    if reliance:
        nothing = nothing or network.start(network.blank())
        blind_logits, _, _ = network.decode(inputs, nothing.select([0] * len(captions)))
        blind = _chosen(blind_logits, targets)
    rows = attention_rows(weights, network.config.maps, features) if maps else None
    return [
        ReplayedCaption(
            tuple(seen[at, : len(tokens)].tolist()),
            () if blind is None else tuple(blind[at, : len(tokens)].tolist()),
            None if rows is None else rows[at, : len(tokens)],
        )
        for at, tokens in enumerate(captions)
    ]


def attention_rows(weights: tuple[Tensor, ...], config: MapConfig, features: ImageFeatures) -> Tensor:
    """Return the mean attention of the chosen heads on the cells: L x (R, H, T, S) -> (R, T, P).

    Prefix tokens and the null key are left out, so a row sums to what its word took from the picture.
    """
    if config.heads:
        chosen = torch.stack([weights[layer][:, head] for layer, head in config.heads])  # (N, R, T, S)
    else:
        chosen = torch.cat([layer.transpose(0, 1) for layer in weights])  # (L*H, R, T, S)
    cells = slice(features.prefix, features.prefix + features.grid.cells)
    return merge_heads(chosen[..., cells], config)  # (R, T, P)


def merge_heads(rows: Tensor, config: MapConfig) -> Tensor:
    """Return the mean of N heads' attention on the cells: (N, …, P) -> (…, P).

    Whatever the mean, a row keeps the sum of the arithmetic one: the share of attention that lies on the picture.
    """
    mean = rows.mean(dim=0)
    if config.mean == "arithmetic":
        return mean
    agreed = rows.clamp_min(UNSEEN).log().mean(dim=0).exp()
    return agreed * (mean.sum(-1, keepdim=True) / agreed.sum(-1, keepdim=True))


def _chosen(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probability of every target: logits (R, T, V), targets (R, T) -> (R, T)."""
    if targets.size(1) == 0:
        return logits.new_zeros(targets.shape)
    if logits.dtype != torch.bfloat16:
        return logits.log_softmax(-1).gather(2, targets[..., None]).squeeze(2)
    # In float32, a row at a time: what is widened stays in the processor's cache.
    pairs = zip(logits, targets, strict=True)
    return torch.stack([row.float().log_softmax(-1).gather(1, ids[:, None]).squeeze(1) for row, ids in pairs])
