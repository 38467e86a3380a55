"""Checkpoint folders: config.json, tokenizer.json, weights (one file or shards with an index) and a card, README.md.

Writing is atomic: a folder is complete or as it was before. Reading is strict: a tensor that is missing, unknown or of
another shape is an error that names it. Shards and their index have the names that the Hugging Face hub uses.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from model.config import ModelConfig
from model.errors import CheckpointError, ConfigError
from model.fields import from_json, to_json
from model.network import CaptionNetwork
from model.tokenizer import CaptionTokenizer

FORMAT = "sightline-2"
DEFAULT_CHECKPOINT = Path(__file__).parent / "default"
SHARD_BYTES = 15_000_000

_CONFIG, _TOKENIZER, _CARD = "config.json", "tokenizer.json", "README.md"
_WEIGHTS, _INDEX = "weights.safetensors", "weights.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The content of a checkpoint folder."""

    network: CaptionNetwork  # float32 on the CPU, in evaluation mode
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
    """Write a checkpoint folder, replacing an existing one atomically."""
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_config(partial, config)
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


def write_config(folder: Path, config: ModelConfig) -> None:
    """Replace a checkpoint's config.json atomically: for fields chosen after training, such as the map heads."""
    path = Path(folder) / _CONFIG
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"format": FORMAT, **to_json(config)}, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def replace_folder(new: Path, folder: Path) -> None:
    """Move `new` to `folder`. After a crash between the two renames, readers and the next writer use the previous folder."""
    previous = _previous(folder)
    recover_folder(folder)
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        folder.rename(previous)
    new.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Restore a folder whose replacement was interrupted between its two renames. For the folder's only writer."""
    previous = _previous(folder)
    if not folder.exists() and previous.exists():
        previous.rename(folder)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder. Raises CheckpointError that names the file, field or tensor that is wrong."""
    folder = Path(folder)
    readable = _readable_folder(folder)
    try:
        return _load(readable)
    except CheckpointError:
        if readable == folder or not folder.is_dir():
            raise
        return _load(folder)  # its writer has finished in the meantime


def _load(folder: Path) -> Checkpoint:
    if not os.path.isdir(folder):  # pathlib's own raises for names that are too long
        raise CheckpointError(
            f"{str(folder)[:200]!r} is not a folder; use a checkpoint folder such as {str(DEFAULT_CHECKPOINT)!r}"
        )
    config = read_config(folder)
    tokenizer = CaptionTokenizer.from_json(_read(folder / _TOKENIZER))
    if tokenizer.size > config.decoder.vocab_size or (tokenizer.size < config.decoder.vocab_size and not config.is_converted):
        # A converted head may have rows that no token uses.
        raise CheckpointError(
            f"{folder} was trained with a vocab_size of {config.decoder.vocab_size} but its tokenizer has "
            f"{tokenizer.size} tokens; use the tokenizer saved with the checkpoint"
        )
    for name, index in config.decoder.special_ids:
        if index not in tokenizer.special_ids:
            raise CheckpointError(
                f"{folder}: {name} is {index}, which is not a special token of its tokenizer; "
                "use the tokenizer saved with the checkpoint"
            )
    network = CaptionNetwork(config)
    shards = folder / _INDEX
    _fill(network, read_shards(shards, read_tensors) if shards.exists() else read_tensors(folder / _WEIGHTS), folder)
    card = (folder / _CARD).read_text(encoding="utf-8") if (folder / _CARD).exists() else ""
    return Checkpoint(network.eval(), tokenizer, card)


def read_shards(index: Path, read_file: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of an index's shards, files of the same folder. Raises CheckpointError that names the fault."""
    document = parse_json(_read(index), index)
    weight_map = document.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f"{index} is not an index of shards: it has no weight_map of names and files; copy it again")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(weight_map.values())):
        if not file or Path(file).name != file:
            raise CheckpointError(f"{index} names {file!r}; shards must be in the same folder")
        shard = read_file(index.parent / file)
        expected = {name for name, its_file in weight_map.items() if its_file == file}
        if shard.keys() != expected:
            names = _first_names(sorted(shard.keys() ^ expected))
            raise CheckpointError(f"{index} and its shard {file} differ in {names}; copy the whole folder again")
        tensors |= shard
    return tensors


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file. Raises CheckpointError that names it."""
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; a checkpoint needs its weights, copy the whole folder") from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:  # ValueError, KeyError: a numeric type that torch lacks
        raise CheckpointError(f"{path} cannot be read; it is damaged or truncated, copy it again") from error


def parse_json(text: str, path: Path) -> dict[str, Any]:
    """Return the JSON object of a file. Raises CheckpointError that names the file and, if it is no JSON, the line."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise CheckpointError(f"{path} is not JSON{where}; copy it again from its source") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} is not a JSON object; copy it again from its source")
    return document


def read_config(folder: Path) -> ModelConfig:
    """Read and check config.json alone."""
    path = _readable_folder(Path(folder)) / _CONFIG
    document = parse_json(_read(path), path)
    file_format = document.pop("format", None)
    if file_format is None and "model_type" in document:
        raise CheckpointError(
            f"{path} is a {document['model_type']} of transformers; `python -m model convert {folder} FOLDER` converts it if its "
            "family is known"
        )
    if file_format != FORMAT:
        raise CheckpointError(
            f"{path} has format {file_format!r}; this version reads {FORMAT!r}: it belongs to another program or version"
        )
    try:
        return from_json(ModelConfig, document, str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def _fill(network: CaptionNetwork, weights: dict[str, Tensor], folder: Path) -> None:
    expected = network.state_dict()
    if missing := sorted(expected.keys() - weights.keys()):
        raise CheckpointError(f"{folder} lacks {_first_names(missing)}; its weights are incomplete, copy them again")
    if extra := sorted(weights.keys() - expected.keys()):
        raise CheckpointError(f"{folder} has tensors unknown to its config: {_first_names(extra)}; config and weights differ")
    for name, value in expected.items():
        if value.shape != weights[name].shape:
            raise CheckpointError(
                f"{folder}: {name} is {list(weights[name].shape)}, its config requires {list(value.shape)}; "
                "config and weights belong to different checkpoints"
            )
    network.load_state_dict({name: value.to(expected[name].dtype) for name, value in weights.items()})


def _write_weights(folder: Path, tensors: dict[str, Tensor], shard_bytes: int | None) -> None:
    sizes = {name: value.numel() * value.element_size() for name, value in tensors.items()}
    total = sum(sizes.values())
    if shard_bytes is None or total <= shard_bytes:
        safetensors.torch.save_file(tensors, folder / _WEIGHTS)
        return
    shards: list[list[str]] = [[]]
    last_size = 0
    for name, size in sizes.items():
        if shards[-1] and last_size + size > shard_bytes:
            shards.append([])
            last_size = 0
        shards[-1].append(name)
        last_size += size
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"weights-{number:05d}-of-{len(shards):05d}.safetensors"
        safetensors.torch.save_file({name: tensors[name] for name in names}, folder / file)
        weight_map.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / _INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CheckpointError(f"{path} cannot be read ({reason}); a checkpoint needs it, copy the whole folder") from error


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _readable_folder(folder: Path) -> Path:
    """Return the folder to read: the previous one while, or since, a writer stopped between its two renames."""
    if os.path.isdir(folder) or not folder.name or len(folder.name) > 200:
        return folder
    previous = _previous(folder)
    return previous if previous.is_dir() else folder


def _first_names(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
