"""From what the settings or an administrator name to captioners that are loaded and warm."""

from __future__ import annotations

from pathlib import Path

import torch

from model import (
    DEFAULT_CHECKPOINT,
    Box,
    Captioner,
    ConfigError,
    DevicePolicy,
    ImageView,
    checkpoint_folder,
    choose_policy,
    load_checkpoint,
)
from service.settings import Settings


def load_captioners(settings: Settings) -> dict[str, Captioner]:
    """Return every checkpoint that the settings name, by name. Raises CaptionerError."""
    named = [entry.strip() for entry in settings.checkpoint.split(",") if entry.strip()]
    folders = dict(map(_named, named)) if named else {"default": DEFAULT_CHECKPOINT}
    if len(folders) < len(named):
        raise ConfigError(f"checkpoint is {settings.checkpoint!r}; two folders have one name: write NAME=FOLDER")
    policy = choose_policy(settings.device, settings.dtype, settings.threads)
    policy.apply()
    return {name: load_captioner(folder, policy) for name, folder in folders.items()}


def load_captioner(source: str | Path, policy: DevicePolicy) -> Captioner:
    """Load a folder or hub:ID, and let it write one caption: the first client waits for none. Raises CaptionerError."""
    captioner = Captioner.from_checkpoint(load_checkpoint(checkpoint_folder(source)), policy, copy_weights=False)
    size = captioner.image_config
    captioner.caption([blank_view(size.width, size.height)])
    return captioner


def blank_view(width: int, height: int) -> ImageView:
    """Return a grey picture."""
    return ImageView(torch.zeros(3, height, width), (width, height), Box(0, 0, width, height), "PNG", 1)


def _named(text: str) -> tuple[str, str]:
    if text.startswith("hub:"):
        return text.partition("@")[0].rpartition("/")[2], text
    name, equals, folder = text.partition("=")
    return (name, folder) if equals else (Path(text).resolve().name, text)
