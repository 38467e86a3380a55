"""Captioners that are loaded and warm, from what the settings or an administrator name."""

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
    """Return all checkpoints of the settings, by name. Raises CaptionerError."""
    entries = [entry.strip() for entry in settings.checkpoint.split(",") if entry.strip()]
    sources = dict(map(_name_and_source, entries)) if entries else {"default": str(DEFAULT_CHECKPOINT)}
    if len(sources) < len(entries):
        raise ConfigError(f"checkpoint is {settings.checkpoint!r}; two checkpoints have one name: write NAME=FOLDER")
    policy = choose_policy(settings.device, settings.dtype, settings.threads)
    policy.apply()
    return {name: load_captioner(source, policy) for name, source in sources.items()}


def load_captioner(source: str | Path, policy: DevicePolicy) -> Captioner:
    """Load a folder or hub:ID, and caption one image, so that no client waits for a first call. Raises CaptionerError."""
    captioner = Captioner.from_checkpoint(load_checkpoint(checkpoint_folder(source)), policy, copy_weights=False)
    size = captioner.image_config
    captioner.caption([blank_view(size.width, size.height)])
    return captioner


def blank_view(width: int, height: int) -> ImageView:
    """Return a gray image."""
    return ImageView(torch.zeros(3, height, width), (width, height), Box(0, 0, width, height), "PNG", 1)


def _name_and_source(text: str) -> tuple[str, str]:
    if text.startswith("hub:"):
        return text.partition("@")[0].rpartition("/")[2], text
    name, equals, folder = text.partition("=")
    return (name, folder) if equals else (Path(text).resolve().name, text)
