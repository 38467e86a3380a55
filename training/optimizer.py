"""The optimizer, the learning rate of every weight, and the moving average of the weights."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from model import CaptionNetwork, EncoderConfig
from training.config import TrainConfig
from training.features import FrozenPart
from training.lora import merged_weights
from training.objective import TrainingObjective
from training.parallel import full_tensor, sharded_like

_BLOCK = re.compile(r"encoder\.(?:vit|backbone)\.(?:(?:layers|stages)\.(\d+)\.)?blocks\.(\d+)\.")
_MERGING = re.compile(r"encoder\.backbone\.(?:layers|stages)\.(\d+)\.downsample\.")
_LAST = ("encoder.vit.norm.", "encoder.backbone.norm.", "encoder.projector.")
_FUSED = ("cpu", "cuda")  # devices that update all weights in one kernel: several times faster than one by one


def build_optimizer(objective: TrainingObjective, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov and Hutter 2019) over every parameter that is ever trained.

    Weight decay is for matrices only. The encoder's learning rate is the decoder's times `encoder_lr_multiplier`, and times
    `layer_decay` for every layer that is nearer to the pixels (Bao et al. 2022, section 3.1).
    """
    encoder = objective.network.config.encoder
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for name, value in objective.named_parameters():
        if value.requires_grad:
            scale, is_encoder = lr_scale(name.removeprefix("network."), encoder, config)
            groups.setdefault((scale, is_encoder, value.dim() >= 2), []).append(value)
    settings = [
        {
            "params": values,
            "weight_decay": config.weight_decay if is_matrix else 0.0,
            "peak_lr": config.peak_lr * scale,
            "is_encoder": is_encoder,
        }
        for (scale, is_encoder, is_matrix), values in groups.items()
    ]
    is_fused = objective.network.device.type in _FUSED
    return torch.optim.AdamW(settings, lr=config.peak_lr, betas=(0.9, 0.98), fused=is_fused)


def lr_scale(name: str, encoder: EncoderConfig, config: TrainConfig) -> tuple[float, bool]:
    """Return the learning rate of a network's weight over the decoder's, and whether it belongs to the encoder."""
    if not name.startswith("encoder."):
        return 1.0, False
    block = _BLOCK.match(name)
    depth = encoder.num_layers + 1 if name.startswith(_LAST) else 0
    merging = _MERGING.match(name)
    if merging:
        depth = sum(encoder.stage_depths[: int(merging[1])])
    elif block:
        depth = sum(encoder.stage_depths[: int(block[1] or 0)]) + int(block[2]) + 1
    scale: float = config.encoder_lr_multiplier * config.layer_decay ** (encoder.num_layers + 1 - depth)
    return scale, True


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float, encoder_factor: float) -> None:
    """Set every learning rate to its peak times `factor`; the encoder's times `encoder_factor`, too."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor * (encoder_factor if group["is_encoder"] else 1.0)


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the learning rate of the decoder, and that of the encoder's last layer if it is trained, for the log."""
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        name = "encoder_lr" if group["is_encoder"] else "lr"
        rates[name] = max(group["lr"], rates.get(name, 0.0))
    return rates


def clip_gradients(objective: nn.Module, max_norm: float) -> float:
    """Clip the gradients to a norm, 0 for none; returns their norm before, which is the same on every rank."""
    parameters = [value for value in objective.parameters() if value.grad is not None]
    norm = nn.utils.get_total_norm([value.grad for value in parameters if value.grad is not None])
    if max_norm:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return full_tensor(norm).item()


def optimizer_state(optimizer: torch.optim.Optimizer, objective: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Return the optimizer's tensors by the names of their parameters."""
    names: dict[Tensor, str] = {value: name for name, value in objective.named_parameters()}
    return {names[value]: dict(state) for value, state in optimizer.state.items()}


def load_optimizer_state(optimizer: torch.optim.Optimizer, objective: nn.Module, state: dict[str, Any]) -> None:
    """Load what `optimizer_state` returned, or the state_dict that older versions stored."""
    if "param_groups" in state:
        _load_older_state(optimizer, state)
        return
    parameters = dict(objective.named_parameters())
    for name, tensors in state.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {
            key: value.to(parameter.device, copy=True) if key == "step" else sharded_like(value, parameter)
            for key, value in tensors.items()
        }


def _load_older_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Older versions numbered the parameters by their groups, which were formed as `build_optimizer` does without layer decay."""
    own = optimizer.state_dict()
    optimizer.load_state_dict({"state": state["state"], "param_groups": own["param_groups"]})


class WeightAverage:
    """The exponential moving average of the trained weights (Polyak and Juditsky 1992), which is validated, saved and served.

    Weights that are never trained are shared with the network.
    """

    def __init__(self, network: CaptionNetwork, frozen: FrozenPart) -> None:
        """Copy a network; `frozen` is what is never trained."""
        module = frozen.module(network.encoder)
        shared = {} if module is None else {id(module): module}
        self._network = copy.deepcopy(network, shared).eval().requires_grad_(False)
        trained = {name for name, value in network.named_parameters() if value.requires_grad}
        self.values: dict[str, Tensor] = {name: value for name, value in self._network.named_parameters() if name in trained}
        self._is_sharded = False

    def shard(self, network: CaptionNetwork) -> None:
        """Keep this rank's shards only, as FSDP has sharded `network`; the whole is put together when it is needed."""
        parameters = dict(network.named_parameters())
        self.values = {name: sharded_like(value, parameters[name]) for name, value in self.values.items()}
        self._is_sharded = True

    @torch.no_grad()
    def update(self, network: CaptionNetwork, decay: float, step: int) -> None:
        """Move the average towards the network's weights; early steps move it further."""
        decay = min(decay, (1 + step) / (10 + step))
        parameters = dict(network.named_parameters())
        pairs = [(value, parameters[name].detach()) for name, value in self.values.items()]
        torch._foreach_lerp_([_local(mean) for mean, _ in pairs], [_local(now) for _, now in pairs], 1 - decay)
        for mean, now in _buffers(self._network, network):
            if mean is not now:  # those of a frozen part are shared
                mean.copy_(now)  # the statistics of a trained stem's batch norms are averages already

    def network(self) -> CaptionNetwork:
        """Return a network with the averaged weights. With FSDP every rank must call it."""
        if self._is_sharded:
            parameters = dict(self._network.named_parameters())
            with torch.no_grad():
                for name, value in self.values.items():
                    parameters[name].copy_(full_tensor(value))
        return self._network

    def checkpoint_weights(self) -> dict[str, Tensor]:
        """Return the averaged weights as a checkpoint has them. With FSDP every rank must call it."""
        return merged_weights(self.network())

    def load(self, weights: dict[str, Tensor]) -> None:
        """Load the averaged weights of a state, by name; those of older states that are never trained are left out."""
        with torch.no_grad():
            for name, value in self.values.items():
                value.copy_(sharded_like(weights[name], value))
            buffers = dict(self._network.named_buffers())
            for name in buffers.keys() & weights.keys():
                buffers[name].copy_(weights[name])

    def state(self) -> dict[str, Tensor]:
        """Return what `load` takes."""
        return self.values | dict(self._network.named_buffers())


def _local(value: Tensor) -> Tensor:
    """Return this rank's part of a sharded tensor, which shares its memory; another tensor as it is."""
    return value.to_local() if isinstance(value, DTensor) else value


def _buffers(average: nn.Module, network: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(average.buffers(), network.buffers(), strict=True)
