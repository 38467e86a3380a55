"""Checkpoints on a Hugging Face hub: fetched into its cache, pinned by revision, and converted once where they are foreign.

huggingface_hub keeps the cache (HF_HOME), shows progress, goes to HF_ENDPOINT, and stays off the network where
HF_HUB_OFFLINE is 1.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import (
    CardData,
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    constants,
    metadata_load,
    snapshot_download,
)
from huggingface_hub.errors import (
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from model.checkpoint import FORMAT, load_checkpoint, read_config, replace_folder
from model.errors import CheckpointError
from model.pretrained import convert_source

PREFIX = "hub:"
_ID = re.compile(r"(?:hub:)?(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>.+))?")
_TEXTS = ["*.json", "vocab.txt", "merges.txt", "README.md"]
_TENSORS = ["model.safetensors", "model-*.safetensors", "weights.safetensors", "weights-*.safetensors"]
_OURS = ("config.json", "tokenizer.json")
_OUR_WEIGHTS = re.compile(r"weights(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
_FOREIGN = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "tf_model.h5", ".gguf", "modeling.py")
_NESTED = ["*/*"]  # other programs' copies of the same weights
_LICENCES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0", "openrail"}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class HubFolder:
    """A repository's files in the cache, and which commit they are of."""

    folder: Path
    repository: str
    commit: str
    licence: str  # what its card says, "" where it says nothing

    @property
    def is_ours(self) -> bool:
        try:
            return json.loads((self.folder / "config.json").read_text(encoding="utf-8")).get("format") == FORMAT
        except (OSError, ValueError, AttributeError):
            return False


def is_hub_id(text: str) -> bool:
    """Return whether a text may name a repository: organisation/name, hub: before it or not, @revision behind it or not."""
    return _ID.fullmatch(text) is not None


def fetch(reference: str) -> HubFolder:
    """Return a repository's files, downloaded where the cache lacks them. Raises CheckpointError that says what to do."""
    repository, revision = _parted(reference)

    def files(patterns: list[str]) -> Path:
        found = snapshot_download(repository, revision=revision, allow_patterns=patterns, ignore_patterns=_NESTED)
        return Path(str(found))

    folder = _asked(repository, lambda: files([*_TEXTS, *_TENSORS]))
    if not any(folder.glob("*.safetensors")):  # older repositories have pickles only; they are read as weights, never run
        folder = _asked(repository, lambda: files([*_TEXTS, "pytorch_model.bin"]))
    return HubFolder(folder, repository, folder.name, _licence(folder))


def checkpoint_folder(named: Path | str) -> Path:
    """Return the folder of a checkpoint that is named by its path, or as hub:ORGANISATION/NAME[@REVISION].

    What is foreign is converted once and kept beside the hub's cache. Raises CheckpointError.
    """
    if not str(named).startswith(PREFIX):
        return Path(named)
    found = fetch(str(named))
    if found.is_ours:
        return found.folder
    kept = Path(constants.HF_HOME) / "sightline" / found.repository.replace("/", "--") / found.commit
    try:
        read_config(kept)
    except CheckpointError:  # not there yet, or by an older version of this program
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".") as place:  # another process may convert it too
            converted = Path(place) / "checkpoint"
            convert_found(found, converted)
            _settle(converted, kept)
    return kept


def pinned(reference: str) -> str:
    """Return hub:ID with the commit that it stands for now; anything else as it is."""
    if not reference.startswith(PREFIX):
        return reference
    found = fetch(reference)
    return f"{PREFIX}{found.repository}@{found.commit}"


def _settle(converted: Path, kept: Path) -> None:
    """Move a conversion to its place, where another process may have put its own meanwhile: equal, and perhaps being read."""
    try:
        converted.rename(kept)
    except OSError:  # it is there
        try:
            read_config(kept)
        except CheckpointError:  # by an older version
            replace_folder(converted, kept)


def convert_found(
    found: HubFolder, folder: Path, *, licence: str = "", language: str = "en", unusual_heads: bool = False
) -> tuple[str, ...]:
    """Write a foreign repository's checkpoint as `convert_source` does; its card says which repository and commit it is of."""
    if found.is_ours:
        raise CheckpointError(f"{found.repository} is a checkpoint of this program already; fetch it with `pull`")
    origin = f"{found.repository} at {found.commit}"
    licence = licence or found.licence
    return convert_source(found.folder, folder, licence=licence, language=language, origin=origin, unusual_heads=unusual_heads)


def pull(reference: str, folder: Path) -> HubFolder:
    """Copy a repository of our own format to a folder, once it is known to be whole. Raises CheckpointError."""
    found = fetch(reference)
    if not found.is_ours:
        raise CheckpointError(f"{found.repository} is no checkpoint of this program; bring it with `convert`")
    load_checkpoint(found.folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(found.folder, partial)  # the cache holds links
    replace_folder(partial, folder)
    return found


def push(folder: Path, reference: str, *, private: bool = False) -> str:
    """Upload a checkpoint and its card as one commit; returns the commit's address.

    Raises CheckpointError where the checkpoint is not whole, or says no licence: nobody could use it.
    """
    repository, revision = _parted(reference)
    licence = load_checkpoint(folder).config.licence
    if not licence:
        raise CheckpointError(
            f"{folder} has no licence; train or convert with --licence, or write `licence` into its config.json and its card"
        )
    card = _hub_card(folder, licence)
    names = sorted(path.name for path in folder.iterdir() if path.name in _OURS or _OUR_WEIGHTS.fullmatch(path.name))
    api = HfApi()

    def upload() -> str:
        api.create_repo(repository, private=private, exist_ok=True)
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
        there = api.list_repo_files(repository, revision=revision)
        foreign = [name for name in there if name.endswith(_FOREIGN)]
        if foreign:
            raise FileExistsError(f"it holds {foreign[0]}, another program's; push to a repository of its own")
        adds = [CommitOperationAdd(name, folder / name) for name in names]
        stale = [CommitOperationDelete(name) for name in there if _OUR_WEIGHTS.fullmatch(name) and name not in names]
        written = CommitOperationAdd("README.md", card.encode())
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [written, *adds, *stale]
        return api.create_commit(repository, operations, commit_message="A Sightline checkpoint", revision=revision).commit_url

    return _asked(repository, upload)


def _parted(reference: str) -> tuple[str, str | None]:
    found = _ID.fullmatch(reference)
    if found is None:
        raise CheckpointError(f"{reference!r} is no hub id; write organisation/name, or organisation/name@revision")
    return found["repository"], found["revision"]


def _asked(repository: str, ask: Callable[[], _T]) -> _T:
    try:
        return ask()
    except Exception as error:  # the library, its HTTP client and the disk raise many kinds
        if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError):
            remedy = "it is not there, or private: check the name and revision, or `hf auth login`"
        elif isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
            why = "HF_HUB_OFFLINE keeps this off the network" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
            remedy = f"it is not in the cache, and {why}"
        else:
            remedy = f"{type(error).__name__}: {' '.join(str(error).split())}; to write, `hf auth login` first"
        raise CheckpointError(f"{repository} on the hub: {remedy}") from error


def _licence(folder: Path) -> str:
    told = _head(folder).get("license")
    return told if isinstance(told, str) else ""


def _hub_card(folder: Path, licence: str) -> str:
    """Return the card with the head that a hub reads; one that names a licence already stays as it is."""
    path, told = folder / "README.md", _head(folder)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if "license" in told:
        return text
    short = licence.lower().replace(" ", "-")
    told |= {"license": short} if short in _LICENCES else {
        "license": "other", "license_name": re.sub(r"[^a-z0-9]+", "-", licence.lower()).strip("-")[:60],
    }  # fmt: skip
    told |= {"pipeline_tag": "image-to-text", "library_name": "sightline", "tags": ["image-captioning"]}
    body = text.split("---\n", 2)[2] if text.startswith("---\n") else text
    return f"---\n{CardData(**told).to_yaml()}\n---\n\n{body.lstrip()}"


def _head(folder: Path) -> dict[str, Any]:
    """Return what the head of a folder's card says, {} where there is none."""
    path = folder / "README.md"
    try:
        return (metadata_load(path) or {}) if path.exists() else {}
    except ValueError:  # a broken head
        return {}
