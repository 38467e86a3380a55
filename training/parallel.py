"""Several ranks train one network: DDP (each has all weights) or FSDP2 (each has a shard), torch's own engines."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from model import ConfigError, ImageEncoder, TextDecoder
from training.config import TrainConfig
from training.objective import TrainingObjective
from training.ranks import Ranks


def distributed(objective: TrainingObjective, config: TrainConfig, ranks: Ranks) -> nn.Module:
    """Return the module whose forward a step calls: `objective` itself, or DDP around it.

    Both engines divide gradients by the number of ranks. Batches without an image leave the encoder without gradients, and so
    does a stem whose last stages no stride needs.
    """
    if ranks.count == 1 or config.fsdp:
        return objective
    # A class token's gradient is a slice of a larger tensor: another memory layout, which costs next to no time.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
    trains_stem = bool(objective.network.config.encoder.stem) and objective.frozen.kind == "none"
    has_unused = bool(config.text or config.text_epochs) or trains_stem
    return DistributedDataParallel(objective, find_unused_parameters=has_unused)


def shard(network: nn.Module, objective: nn.Module, ranks: Ranks, device: torch.device) -> None:
    """Shard every block of the encoder, every layer of the decoder, and the rest, over all ranks (FSDP2)."""
    # A linear layer returns a view of a matrix on CPUs. It matters to operations in place only, of which the network has none.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    mesh = init_device_mesh(device.type, (ranks.count,))
    decoder, encoder = network.decoder, network.encoder
    assert isinstance(decoder, TextDecoder), "the network of a run"
    assert isinstance(encoder, ImageEncoder), "the network of a run"
    for block in encoder.blocks:
        fully_shard(block, mesh=mesh)
    for layer in decoder.layers:
        fully_shard(layer.cross_attention, mesh=mesh)  # type: ignore[arg-type]
        register_fsdp_forward_method(layer.cross_attention, "project")  # type: ignore[arg-type]  # once per image, outside forward
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)


@contextmanager
def gradients_summed(engine: nn.Module, *, is_last: bool) -> Iterator[None]:
    """The forward and backward pass of a part of a step; gradients are summed over the ranks with the last part."""
    if isinstance(engine, DistributedDataParallel) and not is_last:
        with engine.no_sync():
            yield
        return
    if isinstance(engine, FSDPModule):
        engine.set_requires_gradient_sync(is_last)
    yield


def compile_blocks(network: nn.Module) -> None:
    """Compile every block of the encoder and every layer of the decoder: they are alike, so that one compilation serves all."""
    for block in network.encoder.blocks:  # type: ignore[union-attr]
        block.compile()
    for layer in network.decoder.layers.children():  # type: ignore[union-attr]
        layer.compile(dynamic=True)  # captions of every length


def full_tensor(value: Tensor) -> Tensor:
    """Return the whole of a sharded tensor; every rank must call it. Another tensor is returned as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def sharded_like(value: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor that every rank has, sharded and placed on a device as `like` is."""
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements) if isinstance(like, DTensor) else value.clone()


def check_parallel(config: TrainConfig, ranks: Ranks) -> None:
    """Raises ConfigError if the flags and the number of ranks do not fit."""
    if config.fsdp and ranks.count == 1:
        raise ConfigError("--fsdp shards the weights over several ranks: torchrun --nproc-per-node 2 train.py …; leave it out")
    if config.batch_size < ranks.count * config.accumulate:
        raise ConfigError(
            f"--batch-size {config.batch_size} has no image for each of {ranks.count} ranks and {config.accumulate} parts; use "
            f"at least {ranks.count * config.accumulate}: it counts the images of all ranks"
        )
