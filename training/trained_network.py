"""The network of a run with everything that changes together with it: objective, optimizer, loss scaler, averaged weights."""

from __future__ import annotations

from typing import Any

import torch

from model import CaptionNetwork, CaptionTokenizer, ConfigError, DevicePolicy
from training.features import FrozenPart
from training.frozen import StateWeights
from training.lora import add_lora
from training.network import build_network, choose_frozen_part, inherited_text
from training.objective import TrainingObjective
from training.optimizer import WeightAverage, build_optimizer, load_optimizer_state, optimizer_state
from training.parallel import compile_blocks, distributed, shard
from training.ranks import Ranks
from training.start import RunStart


class TrainedNetwork:
    """What a run trains. `engine` is the module whose forward a step calls: the objective, or DDP around it."""

    def __init__(self, start: RunStart, policy: DevicePolicy, ranks: Ranks) -> None:
        """Build the network, with the weights of a resumed run's state. Raises CheckpointError if they do not belong to it."""
        config, state = start.config, start.state
        self._config, self._ranks = config, ranks
        torch.manual_seed(config.seed)
        tokenizer = CaptionTokenizer.from_json(state.parts["tokenizer"]) if state else None
        self.network, self.tokenizer = build_network(config, [source.dataset for source in start.sources], tokenizer)
        self.inherited = inherited_text(config, self.network)
        self.frozen = choose_frozen_part(self.network, config)  # during the whole run
        module = self.frozen.module(self.network.encoder)
        if config.word_presence_weight and self.frozen.kind == "encoder":
            raise ConfigError("--word-presence-weight trains the encoder, and the whole encoder is frozen; use --freeze none")
        if module is not None:
            module.requires_grad_(False)
        if config.lora_rank:
            add_lora(self.network, config.lora_rank, config.lora_alpha, module)
        self.objective = TrainingObjective(self.network, config, self.frozen).to(policy.device)
        self.state_weights = StateWeights(config, self.network, self.frozen)
        # It is validated, saved and served. It shares what is never trained, but not with shards.
        self.average = WeightAverage(self.network, FrozenPart("none") if config.fsdp else self.frozen)
        self._trained = [value for value in self.network.encoder.parameters() if value.requires_grad]
        if state:
            self.state_weights.check(state.frozen)
            self.state_weights.load(self.network, state.parts["network"])
            self.average.load(state.parts["average"])
            self.objective.load_heads(state.parts.get("heads", {}))
        self.network.encoder.gradient_checkpointing = config.gradient_checkpointing
        self.network.decoder.gradient_checkpointing = config.gradient_checkpointing
        if config.compile:
            compile_blocks(self.network)
        if config.fsdp:
            shard(self.network, self.objective, ranks, policy.device)
            self.average.shard(self.network)
            self._trained = [value for value in self.network.encoder.parameters() if value.requires_grad]
        self.optimizer = build_optimizer(self.objective, config)
        self.scaler = torch.amp.GradScaler(policy.device.type, enabled=policy.dtype == torch.float16)
        if state:
            load_optimizer_state(self.optimizer, self.objective, state.parts["optimizer"])
            if state.parts["scaler"]:  # a part of the run in another type had none
                self.scaler.load_state_dict(state.parts["scaler"])
        self.start_stage(self.frozen)

    def start_stage(self, part: FrozenPart) -> None:
        """Freeze a part of the encoder during some epochs: what is always frozen, or more."""
        self.objective.frozen = part
        is_trained = part.kind != "encoder"
        for value in self._trained:
            value.requires_grad_(is_trained)
        self.engine = distributed(self.objective, self._config, self._ranks)

    def whole(self) -> CaptionNetwork:
        """Return a network with the frozen weights, not sharded; with FSDP every rank must call it."""
        return self.average.network() if self._config.fsdp else self.network

    @property
    def num_trained(self) -> int:
        """The number of trained weights."""
        return sum(value.numel() for value in self.network.parameters() if value.requires_grad)

    def state_parts(self) -> dict[str, Any]:
        """Return what a state has of it. With FSDP the tensors are this rank's shards."""
        return {
            "tokenizer": self.tokenizer.to_json(),
            "network": self.state_weights.select(self.network),
            "average": self.average.state(),
            "heads": self.objective.heads(),
            "optimizer": optimizer_state(self.optimizer, self.objective),
            "scaler": self.scaler.state_dict(),
        }
