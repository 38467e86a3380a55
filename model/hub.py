"""Checkpoints on a Hugging Face hub: downloaded into its cache, pinned by revision, and converted once if they are not ours.

huggingface_hub manages the cache (HF_HOME), shows progress, uses HF_ENDPOINT, and makes no request if HF_HUB_OFFLINE is 1.
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
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from model.checkpoint import FORMAT, load_checkpoint, read_config, replace_folder
from model.errors import CheckpointError
from model.pretrained import NotAdopted, convert_source

PREFIX = "hub:"
_ID = re.compile(r"(?:hub:)?(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>.+))?")
_TEXTS = ["*.json", "vocab.txt", "merges.txt", "sentencepiece.bpe.model", "README.md"]
_TENSORS = ["model.safetensors", "model-*.safetensors", "weights.safetensors", "weights-*.safetensors"]
_PICKLES = ["pytorch_model.bin", "pytorch_model-*.bin"]
_OURS = ("config.json", "tokenizer.json")
_OUR_WEIGHTS = re.compile(r"weights(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
_FOREIGN = (
    "model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json", "tf_model.h5",
    ".gguf", "modeling.py",
)  # fmt: skip
_NESTED = ["*/*"]  # other programs' copies of the same weights
_LICENSES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0", "openrail"}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class HubFolder:
    """A repository's files in the cache, and their commit."""

    folder: Path
    repository: str
    commit: str
    license: str  # from its card, "" if it has none

    @property
    def is_ours(self) -> bool:
        try:
            return json.loads((self.folder / "config.json").read_text(encoding="utf-8")).get("format") == FORMAT
        except (OSError, ValueError, AttributeError):
            return False


def is_hub_id(text: str) -> bool:
    """Return whether a text may name a repository: [hub:]organization/name[@revision]."""
    return _ID.fullmatch(text) is not None


def fetch(reference: str) -> HubFolder:
    """Return a repository's files, downloaded if the cache lacks them. Raises CheckpointError that says what to do."""
    repository, revision = _split(reference)

    def files(patterns: list[str]) -> Path:
        snapshot = snapshot_download(repository, revision=revision, allow_patterns=patterns, ignore_patterns=_NESTED)
        return Path(str(snapshot))

    folder = _request(repository, lambda: files([*_TEXTS, *_TENSORS]))
    if not any(folder.glob("*.safetensors")):  # older repositories have pickles only; they are read as weights, never executed
        folder = _request(repository, lambda: files([*_TEXTS, *_PICKLES]))
    return HubFolder(folder, repository, folder.name, _license(folder))


def checkpoint_folder(name: Path | str) -> Path:
    """Return the folder of a checkpoint: a path, or hub:ORGANIZATION/NAME[@REVISION].

    A checkpoint of another program is converted once, into a folder next to the hub's cache. Raises CheckpointError.
    """
    if not str(name).startswith(PREFIX):
        return Path(name)
    source = fetch(str(name))
    if source.is_ours:
        return source.folder
    kept = Path(constants.HF_HOME) / "sightline" / source.repository.replace("/", "--") / source.commit
    try:
        read_config(kept)
    except CheckpointError:  # missing, or written by an older version of this program
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".") as temporary:  # another process may convert it too
            converted = Path(temporary) / "checkpoint"
            convert_hub_folder(source, converted)
            _move_if_missing(converted, kept)
    return kept


def pin_revision(reference: str) -> str:
    """Return hub:ID with its current commit; anything else as it is."""
    if not reference.startswith(PREFIX):
        return reference
    source = fetch(reference)
    return f"{PREFIX}{source.repository}@{source.commit}"


def _move_if_missing(converted: Path, kept: Path) -> None:
    """Move a conversion to `kept`, unless another process has put its own there meanwhile: it is equal, and may be in use."""
    try:
        converted.rename(kept)
    except OSError:  # it exists
        try:
            read_config(kept)
        except CheckpointError:  # written by an older version
            replace_folder(converted, kept)


def convert_hub_folder(
    source: HubFolder, folder: Path, *, license: str = "", language: str = "en", unusual_heads: bool = False
) -> tuple[NotAdopted, ...]:
    """Convert a repository as `convert_source` does; the card names repository and commit."""
    if source.is_ours:
        raise CheckpointError(f"{source.repository} is a checkpoint of this program already; download it with `pull`")
    origin = f"{source.repository} at {source.commit}"
    license = license or source.license
    return convert_source(source.folder, folder, license=license, language=language, origin=origin, unusual_heads=unusual_heads)


def pull(reference: str, folder: Path) -> HubFolder:
    """Copy a repository of our own format to a folder, after checking that it is complete. Raises CheckpointError."""
    source = fetch(reference)
    if not source.is_ours:
        raise CheckpointError(f"{source.repository} is not a checkpoint of this program; use `convert`")
    load_checkpoint(source.folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source.folder, partial)  # the cache holds links
    replace_folder(partial, folder)
    return source


def push(folder: Path, reference: str, *, private: bool = False) -> str:
    """Upload a checkpoint and its card as one commit; returns the commit's address.

    Raises CheckpointError if the checkpoint is incomplete, or has no license.
    """
    repository, revision = _split(reference)
    license = load_checkpoint(folder).config.license
    if not license:
        raise CheckpointError(
            f"{folder} has no license; train or convert with --license, or write `license` into its config.json and its card"
        )
    card = _hub_card(folder, license)
    names = sorted(path.name for path in folder.iterdir() if path.name in _OURS or _OUR_WEIGHTS.fullmatch(path.name))
    api = HfApi()

    def upload() -> str:
        api.create_repo(repository, private=private, exist_ok=True)
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
        existing = api.list_repo_files(repository, revision=revision)
        foreign = [name for name in existing if name.endswith(_FOREIGN)]
        if foreign:
            raise CheckpointError(
                f"{repository} on the hub: it contains {foreign[0]} of another program; push to a new repository"
            )
        adds = [CommitOperationAdd(name, folder / name) for name in names]
        stale = [CommitOperationDelete(name) for name in existing if _OUR_WEIGHTS.fullmatch(name) and name not in names]
        written = CommitOperationAdd("README.md", card.encode())
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [written, *adds, *stale]
        return api.create_commit(repository, operations, commit_message="A Sightline checkpoint", revision=revision).commit_url

    return _request(repository, upload)


def _split(reference: str) -> tuple[str, str | None]:
    match = _ID.fullmatch(reference)
    if match is None:
        raise CheckpointError(f"{reference!r} is not a hub id; write organization/name, or organization/name@revision")
    return match["repository"], match["revision"]


def _request(repository: str, call: Callable[[], _T]) -> _T:
    try:
        return call()
    except CheckpointError:
        raise
    except Exception as error:  # the library, its HTTP client and the disk raise many types
        if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError):
            remedy = "it does not exist, or is private: check the name and revision, or `hf auth login`"
        elif isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
            reason = "HF_HUB_OFFLINE forbids requests" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
            remedy = f"it is not in the cache, and {reason}"
        elif isinstance(error, HfHubHTTPError) and (status := getattr(error.response, "status_code", None)):
            remedy = f"it answers HTTP {status}; " + (
                "check your rights: `hf auth login` first" if status in (401, 403) else "try again later"
            )
        elif isinstance(error, LocalTokenNotFoundError):
            remedy = "no token is known: `hf auth login` first"
        elif isinstance(error, OSError) and error.strerror:
            remedy = f"{error.strerror}: check disk and network, then try again"
        else:
            remedy = f"the request failed ({type(error).__name__}); check the network and `hf auth login`, then try again"
        raise CheckpointError(f"{repository} on the hub: {remedy}") from error


def _license(folder: Path) -> str:
    license = _metadata(folder).get("license")
    return license if isinstance(license, str) else ""


def _hub_card(folder: Path, license: str) -> str:
    """Return the card with the metadata that a hub reads; a card that names a license already stays as it is."""
    path, metadata = folder / "README.md", _metadata(folder)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if "license" in metadata:
        return text
    short = license.lower().replace(" ", "-")
    metadata |= {"license": short} if short in _LICENSES else {
        "license": "other", "license_name": re.sub(r"[^a-z0-9]+", "-", license.lower()).strip("-")[:60],
    }  # fmt: skip
    metadata |= {"pipeline_tag": "image-to-text", "library_name": "sightline", "tags": ["image-captioning"]}
    body = text.split("---\n", 2)[2] if text.startswith("---\n") else text
    return f"---\n{CardData(**metadata).to_yaml()}\n---\n\n{body.lstrip()}"


def _metadata(folder: Path) -> dict[str, Any]:
    """Return the metadata of a folder's card, {} if it has none."""
    path = folder / "README.md"
    try:
        return (metadata_load(path) or {}) if path.exists() else {}
    except ValueError:  # broken metadata
        return {}
