"""Serve captions: `python -m service [--checkpoint FOLDER | hub:ID | NAME=FOLDER]…`. Flags win over the environment."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin starve their neighbours

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from model import (
    DEFAULT_CHECKPOINT,
    Box,
    Captioner,
    CaptionerError,
    ConfigError,
    ImageView,
    checkpoint_folder,
    choose_precision,
    load_checkpoint,
    use_threads,
)
from service import Settings, create_app
from service.logs import start_logging
from service.server import DrainingServer

_LOG = logging.getLogger("service")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings(**{name: value for name, value in vars(options).items() if value is not None})
        start_logging(settings.log_format)
        threads = use_threads(settings.threads or None)
        captioners = load_captioners(settings)
        app = create_app(captioners, settings)
    except (CaptionerError, ValidationError) as error:
        print(f"service: {error}", file=sys.stderr)
        return 1
    for name, captioner in captioners.items():
        _LOG.info("ready model=%s threads=%d precision=%r", name, threads, captioner.precision.reason)
    server = DrainingServer(app, settings)
    server.run()
    return server.status


def load_captioners(settings: Settings) -> dict[str, Captioner]:
    """Load every checkpoint that the settings name, and let each write one caption: the first client waits for none."""
    named = [entry.strip() for entry in settings.checkpoint.split(",") if entry.strip()]
    folders = dict(map(_named, named)) if named else {"default": DEFAULT_CHECKPOINT}
    if len(folders) < len(named):
        raise ConfigError(f"checkpoint is {settings.checkpoint!r}; two folders have one name: write NAME=FOLDER")
    precision = choose_precision(settings.dtype)
    captioners = {name: Captioner(load_checkpoint(checkpoint_folder(folder)), precision) for name, folder in folders.items()}
    for captioner in captioners.values():
        size = captioner.image_config
        captioner.caption([blank_view(size.width, size.height)])
    return captioners


def blank_view(width: int, height: int) -> ImageView:
    """Return a grey picture."""
    import torch

    return ImageView(torch.zeros(3, height, width), (width, height), Box(0, 0, width, height), "PNG", 1)


def _named(text: str) -> tuple[str, str]:
    if text.startswith("hub:"):
        return text.partition("@")[0].rpartition("/")[2], text
    name, equals, folder = text.partition("=")
    return (name, folder) if equals else (Path(text).resolve().name, text)


def _parser() -> argparse.ArgumentParser:
    settings = "\n".join(
        f"  SIGHTLINE_{name.upper():<16} {field.description} (default {field.default!r})"
        for name, field in Settings.model_fields.items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description=__doc__,
        epilog=f"environment:\n{settings}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE.toml", help="settings by their names below, in lower case, without SIGHTLINE_")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--checkpoint", action=_Joined, metavar="FOLDER|hub:ID|NAME=…", help="may be given several times")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--threads", type=int)
    return parser


class _Joined(argparse.Action):
    """Joins a flag that is given several times with commas, as the setting holds them."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        known = getattr(namespace, self.dest)
        setattr(namespace, self.dest, f"{known},{values}" if known else str(values))


if __name__ == "__main__":
    sys.exit(main())
