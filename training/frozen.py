"""Weights that are never trained are not in a run's state: they are taken from where they came from, and compared by a digest."""

from __future__ import annotations

import hashlib

from torch import Tensor, nn

from model import CaptionNetwork, CheckpointError
from training.config import TrainConfig
from training.features import FrozenPart


class StateWeights:
    """Which weights of a run are in its state: all but the untrained ones that --init, a package or a hub has."""

    def __init__(self, config: TrainConfig, network: CaptionNetwork, part: FrozenPart) -> None:
        self._config = config
        self._rebuilt = _rebuilt(config, network, part)
        self.digest = _digest(network.state_dict(), self._rebuilt)  # of the weights that are not in the state, "" if all are

    def select(self, network: nn.Module) -> dict[str, Tensor]:
        """Return the weights that belong into the state."""
        return {name: value for name, value in network.state_dict().items() if name not in self._rebuilt}

    def load(self, network: CaptionNetwork, weights: dict[str, Tensor]) -> None:
        """Load what `select` returned; older states have the frozen weights too. Raises CheckpointError if others differ."""
        expected = network.state_dict()
        missing = sorted(expected.keys() - weights.keys() - self._rebuilt)
        different = sorted(name for name, value in weights.items() if name not in expected or value.shape != expected[name].shape)
        if missing or different:
            raise CheckpointError(
                f"the state of {self._config.run} does not belong to its network: {', '.join((missing + different)[:4])} are "
                f"missing or differ; restore the data and the checkpoint that it was started with, or {self._restart}"
            )
        network.load_state_dict(weights, strict=False)

    def check(self, digest: str) -> None:
        """Raises CheckpointError if the frozen weights are not those of the state that has this digest."""
        if digest and digest != self.digest:
            config = self._config
            origin = config.init or (config.encoder if config.pretrained else config.stem)
            raise CheckpointError(
                f"the frozen weights of {origin!r} are not those that {config.run} was started with; restore them, or "
                f"{self._restart}"
            )

    @property
    def _restart(self) -> str:
        return f"start a new run from the weights of this one: --run FOLDER --init {self._config.run}/last"


def _rebuilt(config: TrainConfig, network: CaptionNetwork, part: FrozenPart) -> set[str]:
    """Return the names of untrained weights that come from a file or a package; random ones are kept in the state."""
    if config.lora_rank:  # of a checkpoint: --lora-rank needs --init
        trained = {name for name, value in network.named_parameters() if value.requires_grad}
        return set(network.state_dict()) - trained - {name for name, _ in network.named_buffers()}
    if part.kind == "stem":
        has_origin = bool(config.init) or config.stem_weights != "none"
    else:
        has_origin = part.kind == "encoder" and bool(config.init or config.pretrained)
    module = part.module(network.encoder) if has_origin else None
    tensors = set() if module is None else {id(value) for value in (*module.parameters(), *module.buffers())}
    return {name for name, value in network.state_dict(keep_vars=True).items() if id(value) in tensors}


def _digest(weights: dict[str, Tensor], names: set[str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(names):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest() if names else ""
