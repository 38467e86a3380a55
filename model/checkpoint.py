"""Checkpoint folders: config.json, tokenizer.json, weights (one file or shards with an index) and a card, README.md.

Writing is atomic: a folder is complete or as it was before. Reading is strict: a tensor that is missing, unknown or of
another shape is an error that names it. Shards and their index are named as the Hugging Face hub names them.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from model.config import ModelConfig, from_json, to_json
from model.errors import CheckpointError, ConfigError
from model.network import CaptionNetwork
from model.tokenizer import CaptionTokenizer

FORMAT = "sightline-1"
DEFAULT_CHECKPOINT = Path(__file__).parent / "default"
SHARD_BYTES = 15_000_000

_LATER = {"encoder": {"timm": ""}}  # fields that were added to the format, and what checkpoints from before them mean
_CONFIG, _TOKENIZER, _CARD = "config.json", "tokenizer.json", "README.md"
_WEIGHTS, _INDEX = "weights.safetensors", "weights.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a folder holds."""

    network: CaptionNetwork  # float32, in evaluation mode
    tokenizer: CaptionTokenizer
    card: str

    @property
    def config(self) -> ModelConfig:
        return self.network.config


def save_checkpoint(
    folder: Path,
    config: ModelConfig,
    weights: dict[str, Tensor],
    tokenizer: CaptionTokenizer,
    card: str,
    *,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int | None = None,
) -> None:
    """Write a checkpoint folder, replacing what was there in one move."""
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    rewrite_config(partial, config)
    (partial / _TOKENIZER).write_text(tokenizer.to_json(), encoding="utf-8")
    (partial / _CARD).write_text(card, encoding="utf-8")
    tensors = {
        name: value.detach().to("cpu", dtype if value.is_floating_point() else value.dtype).contiguous()
        for name, value in weights.items()
    }
    _write_weights(partial, tensors, shard_bytes)
    for path in partial.iterdir():
        path.chmod(0o644)  # safetensors writes files that only their owner can read
        with path.open("rb") as file:
            os.fsync(file.fileno())
    replace_folder(partial, folder)


def rewrite_config(folder: Path, config: ModelConfig) -> None:
    """Replace a checkpoint's config.json in one move: for what is chosen after training, such as its map heads."""
    path = Path(folder) / _CONFIG
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"format": FORMAT, **to_json(config)}, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def replace_folder(new: Path, folder: Path) -> None:
    """Move `new` to `folder`; a crash between the two renames leaves the previous one, which `recover_folder` finds."""
    previous = folder.with_name(f".{folder.name}.previous")
    recover_folder(folder)
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        folder.rename(previous)
    new.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Bring back a folder whose replacement was cut off between its two renames."""
    previous = folder.with_name(f".{folder.name}.previous")
    if not folder.exists() and previous.exists():
        previous.rename(folder)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder. Raises CheckpointError that names the file, field or tensor that is wrong."""
    folder = Path(folder)
    if not os.path.isdir(folder):  # pathlib's own raises for names that are too long
        raise CheckpointError(f"{str(folder)[:200]!r} is no folder; name a checkpoint folder such as {str(DEFAULT_CHECKPOINT)!r}")
    config = read_config(folder)
    tokenizer = CaptionTokenizer.from_json(_read(folder / _TOKENIZER))
    if tokenizer.size > config.decoder.vocabulary or (
        tokenizer.size < config.decoder.vocabulary and config.no_image == "learned"
    ):
        # A converted head may have rows that no token uses.
        raise CheckpointError(
            f"{folder} was trained with a vocabulary of {config.decoder.vocabulary} but its tokenizer has "
            f"{tokenizer.size}; use the tokenizer saved beside the checkpoint"
        )
    for name in ("start_id", "end_id", "pad_id"):
        index = getattr(config.decoder, name)
        if index not in tokenizer.special_ids:
            raise CheckpointError(
                f"{folder}: {name} is {index}, which is no special token of its tokenizer; "
                "use the tokenizer saved beside the checkpoint"
            )
    network = CaptionNetwork(config)
    index = folder / _INDEX
    _fill(network, load_tensors(index if index.exists() else folder / _WEIGHTS), folder)
    card = (folder / _CARD).read_text(encoding="utf-8") if (folder / _CARD).exists() else ""
    return Checkpoint(network.eval(), tokenizer, card)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or an index of shards that lie beside it. Raises CheckpointError that names what is wrong."""
    if path.suffix != ".json":
        return _read_tensors(path)
    folder = path.parent
    try:
        place = json.loads(_read(path))["weight_map"]
        files = sorted(set(place.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is no index of shards ({error}); copy it again from its source") from error
    tensors: dict[str, Tensor] = {}
    for file in files:
        if Path(file).name != file:
            raise CheckpointError(f"{path} names {file!r}; shards must lie in the folder itself")
        tensors |= _read_tensors(folder / file)
    if place.keys() != tensors.keys():
        raise CheckpointError(
            f"{folder}: shards and index differ in {_some(sorted(place.keys() ^ tensors.keys()))}; copy them again"
        )
    return tensors


def read_config(folder: Path) -> ModelConfig:
    """Read and check config.json alone."""
    path = Path(folder) / _CONFIG
    try:
        document: dict[str, Any] = json.loads(_read(path))
        found = document.pop("format", None)
    except (ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is not a JSON object ({error}); copy it again from its source") from error
    if found is None and "model_type" in document:
        raise CheckpointError(
            f"{path} is of a {document['model_type']} of transformers; `python -m model convert {folder} FOLDER` makes a "
            "checkpoint of it, where it is of a known family"
        )
    if found != FORMAT:
        raise CheckpointError(
            f"{path} says format {found!r}; this version reads {FORMAT!r}: it is another program's file, or a newer one"
        )
    for part, fields in _LATER.items():
        if isinstance(document.get(part), dict):
            document[part] = fields | document[part]
    try:
        return from_json(ModelConfig, document, str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def _fill(network: CaptionNetwork, weights: dict[str, Tensor], folder: Path) -> None:
    wanted = network.state_dict()
    if missing := sorted(wanted.keys() - weights.keys()):
        raise CheckpointError(f"{folder} lacks {_some(missing)}; its weights are incomplete, copy them again")
    if extra := sorted(weights.keys() - wanted.keys()):
        raise CheckpointError(f"{folder} has tensors that its config does not know: {_some(extra)}; config and weights differ")
    for name, value in wanted.items():
        if value.shape != weights[name].shape:
            raise CheckpointError(
                f"{folder}: {name} is {list(weights[name].shape)}, its config makes it {list(value.shape)}; "
                "config and weights belong to different checkpoints"
            )
    network.load_state_dict({name: value.to(wanted[name].dtype) for name, value in weights.items()})


def _write_weights(folder: Path, tensors: dict[str, Tensor], shard_bytes: int | None) -> None:
    sizes = {name: value.numel() * value.element_size() for name, value in tensors.items()}
    total = sum(sizes.values())
    if shard_bytes is None or total <= shard_bytes:
        safetensors.torch.save_file(tensors, folder / _WEIGHTS)
        return
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    place: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"weights-{number:05d}-of-{len(shards):05d}.safetensors"
        safetensors.torch.save_file({name: tensors[name] for name in names}, folder / file)
        place.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": total}, "weight_map": place}
    (folder / _INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; a checkpoint needs its weights, copy the whole folder") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); it is damaged or cut off, copy it again") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); a checkpoint needs it, copy the whole folder") from error


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
