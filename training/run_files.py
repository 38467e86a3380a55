"""What a run writes about itself: RUN/run.json with its settings, the commit of the code and the versions of its libraries."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from training.config import TrainConfig
from training.ranks import Ranks
from training.state import CONFIG_NAME

_ROOT = Path(__file__).parent.parent
_LIBRARIES = ("torch", "timm", "tokenizers", "numpy", "pillow")


def write_run_description(run: Path, config: TrainConfig, ranks: Ranks) -> None:
    """Write RUN/run.json; a resumed run replaces it."""
    document = {
        "settings": dataclasses.asdict(config),
        "code": _commit(),
        "ranks": ranks.count,
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }
    partial = run / f".{CONFIG_NAME}.partial"
    partial.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, run / CONFIG_NAME)


def _commit() -> dict[str, Any]:
    """Return the commit of this program, and whether files differ from it; both None outside of a git repository."""
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "is_changed": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):  # git is not installed, or this is no repository
        return None
    return result.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
