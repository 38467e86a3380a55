"""The tensors of a source: safetensors or pickles, one file or shards with an index.

Pickles are read as weights only, never executed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoint import read_shards, read_tensors
from model.errors import CheckpointError

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def weights_file(folder: Path) -> Path:
    """Return the file of a folder's weights, or the index of its shards. Raises CheckpointError if there is none."""
    path = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if path is None:
        raise CheckpointError(f"{folder} has no weights; it needs one of {', '.join(WEIGHTS)}")
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, or of the shards of an index, in float32. Raises CheckpointError that names the file."""
    tensors = read_shards(path, _read_file) if path.suffix == ".json" else _read_file(path)
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _read_file(path: Path) -> dict[str, Tensor]:
    return read_tensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        tensors: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; the source needs its weights, copy the whole folder") from error
    except Exception as error:  # unpickling raises many types
        raise CheckpointError(
            f"{path} cannot be read as weights; it is damaged, or contains more than tensors: copy it again, or use safetensors"
        ) from error
    if isinstance(tensors, dict) and isinstance(tensors.get("model"), dict):
        tensors = tensors["model"]
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()
    ):
        raise CheckpointError(f"{path} does not contain named tensors; use a file of weights")
    return tensors
