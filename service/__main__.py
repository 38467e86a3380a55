"""Serve captions: `python -m service [--checkpoint FOLDER | hub:ID | NAME=FOLDER]…`. Flags win over the environment."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin starve their neighbours

import argparse
import logging
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from model import CaptionerError
from service import Settings, create_app
from service.checkpoints import load_captioners
from service.logs import start_logging
from service.memory import bound, settle
from service.server import DrainingServer
from service.workers import start_decoder_server

_LOG = logging.getLogger("service")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    options = _parser().parse_args(arguments)
    bound()
    try:
        settings = Settings(**{name: value for name, value in vars(options).items() if value is not None})
        start_logging(settings.log_format)
        start_decoder_server()
        captioners = load_captioners(settings)
        app = create_app(captioners, settings)
    except (CaptionerError, ValidationError) as error:
        print(f"service: {error}", file=sys.stderr)
        return 1
    for name, captioner in captioners.items():
        _LOG.info(
            "ready model=%s device=%s dtype=%r threads=%d",
            name,
            captioner.policy.device,
            captioner.policy.reason,
            captioner.policy.num_threads,
        )
    settle()
    server = DrainingServer(app, settings)
    server.run()
    return server.status


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
