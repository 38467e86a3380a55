"""Another captioner whose next-token probabilities a network learns (distillation; Hinton et al. 2015)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from model import CaptionNetwork, CaptionTokenizer, ConfigError, checkpoint_folder, load_checkpoint
from training.data import Batch
from training.features import FrozenPart

PART = FrozenPart("encoder")  # of the teacher: its features are cached as those of a frozen encoder are


class Teacher:
    """The network of --teacher. Not a module: it is neither trained nor saved with the run."""

    def __init__(self, network: CaptionNetwork) -> None:
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def logits(self, batch: Batch) -> Tensor:
        """Return the teacher's logits (N, V) of a batch's targets; it sees every image, also those that the batch drops."""
        features = PART.features(self.network.encoder, batch.teacher_inputs)
        state = self.network.start(features, batch.image_of)
        return self.network.decode(batch.tokens[:, :-1], state, logits_mask=batch.is_target)[0]


def load_teacher(name: str, network: CaptionNetwork, tokenizer: CaptionTokenizer, device: torch.device) -> Teacher:
    """Return the teacher of a checkpoint. Raises ConfigError if it has other tokens: its probabilities are then of no use."""
    start = load_checkpoint(checkpoint_folder(name))
    own, other = network.config, start.config
    has_same_ids = (own.decoder.vocab_size, own.language_token_ids) == (other.decoder.vocab_size, other.language_token_ids)
    if start.tokenizer.to_json() != tokenizer.to_json() or not has_same_ids:
        raise ConfigError(
            f"--teacher {name} has another tokenizer than the network, so that probabilities cannot be compared; learn from "
            f"its captions instead: python -m model caption IMAGES --checkpoint {Path(name)} --output captions.csv, then --data "
            "captions.csv"
        )
    return Teacher(start.network.to(device))
