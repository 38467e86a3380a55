"""Serve captions over HTTP: `python -m service [--checkpoint FOLDER | hub:ID | NAME=FOLDER]…`.

Every setting is a flag, an environment variable SIGHTLINE_<NAME> and a key of the TOML file of --config. Flags win over the
environment, the environment over the file.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Literal, get_args, get_origin

from pydantic import ValidationError

from service.logs import start_logging
from service.memory import freeze_gc, limit_arenas
from service.settings import Settings

_LOG = logging.getLogger("service")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    options = make_parser().parse_args(arguments)
    limit_arenas()
    try:
        settings = Settings(**vars(options))
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, entry['loc']))} is {entry['input']!r:.80}" for entry in error.errors()]
        print(f"service: {'; '.join(wrong)}; --help says what is expected", file=sys.stderr)
        return 1
    except ValueError as error:  # ConfigError
        print(f"service: {error}", file=sys.stderr)
        return 1
    start_logging(settings.log_format)
    _LOG.info("starting; loading libraries and checkpoint takes some seconds")
    return _serve(settings)


def _serve(settings: Settings) -> int:
    """Load what the settings name, and serve it. Imports torch, which takes seconds, after the first line of the log."""
    from model import CaptionerError
    from service.app import create_app
    from service.runtime import load_captioners
    from service.server import DrainingServer
    from service.workers import start_worker_server

    try:
        start_worker_server()
        captioners = load_captioners(settings)
        app = create_app(captioners, settings)
    except CaptionerError as error:
        print(f"service: {error}", file=sys.stderr)
        return 1
    for name, captioner in captioners.items():
        policy = captioner.policy
        _LOG.info("loaded model=%s device=%s threads=%d dtype=%r", name, policy.device, policy.num_threads, policy.reason)
    freeze_gc()
    server = DrainingServer(app, settings)
    server.run()
    return server.status


def make_parser() -> argparse.ArgumentParser:
    """Return the parser: a flag per setting; one that is not used is absent."""
    parser = argparse.ArgumentParser(prog="python -m service", description=__doc__, argument_default=argparse.SUPPRESS)
    for name, field in Settings.model_fields.items():
        flag = "--" + name.replace("_", "-")
        default = str(field.default).lower() if isinstance(field.default, bool) else field.default
        text = f"{field.description} (default: {'none' if default == '' else default})".replace("%", "%%")
        if name == "checkpoint":
            parser.add_argument(flag, action=_Joined, metavar="FOLDER|hub:ID|NAME=…", help=f"{text}; may be repeated")
        elif get_origin(field.annotation) is Literal:
            parser.add_argument(flag, choices=get_args(field.annotation), help=text)
        elif field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        else:
            parser.add_argument(flag, metavar=name.upper(), help=text)
    return parser


class _Joined(argparse.Action):
    """Joins the values of a repeated flag with commas, as the setting holds them."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        previous = getattr(namespace, self.dest, "")
        setattr(namespace, self.dest, f"{previous},{values}" if previous else str(values))


if __name__ == "__main__":
    sys.exit(main())
