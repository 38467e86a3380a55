"""Command lines of the model: `python -m model caption | convert | pull | push | show`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from model import (
    DEFAULT_CHECKPOINT,
    MAP_METHODS,
    Captioner,
    CaptionerError,
    CheckpointError,
    GenerationOptions,
    add_flags,
    convert_source,
    read_config,
    to_json,
)
from model.files import add_output_flags, caption_files
from model.hub import convert_hub_folder, fetch, is_hub_id, pull, push

_DTYPES = ["auto", "float32", "bfloat16", "float16"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 all done, 1 bad data, 2 wrong use."""
    options = make_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        return status
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CaptionerError, OSError) as error:
        print(f"model: {error}", file=sys.stderr)
        return 1


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    commands = parser.add_subparsers(required=True)

    caption = commands.add_parser("caption", help="caption images: one JSON line per image")
    caption.add_argument("images", nargs="+", type=Path, metavar="FILE|FOLDER", help="images, and folders of images")
    caption.add_argument(
        "--checkpoint",
        type=Path,
        default=DEFAULT_CHECKPOINT,
        metavar="FOLDER|hub:ID",
        help="checkpoint (default: the embedded one)",
    )
    caption.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto, which prefers a GPU)")
    caption.add_argument("--dtype", choices=_DTYPES, default="auto", help="numeric type (default: auto, by device and processor)")
    caption.add_argument("--maps", choices=["none", *MAP_METHODS], help="map method (default: the checkpoint's)")
    caption.add_argument("--language", default="", help="language of the captions, BCP 47 (default: the checkpoint's first)")
    caption.add_argument(
        "--batch-size", type=int, default=8, metavar="IMAGES", help="images per call of the network (default: 8)"
    )
    caption.add_argument(
        "--accept-truncated", action="store_true", help="caption what can be decoded of damaged images, and list them"
    )
    add_output_flags(caption.add_argument_group("output", "Text on a terminal and JSON lines in a pipe, if no file is named."))
    add_flags(caption.add_argument_group("decoding"), GenerationOptions, default_note="the checkpoint's")
    caption.set_defaults(run=caption_files)

    convert = commands.add_parser("convert", help="convert a checkpoint of transformers: ViT-GPT2, BLIP captioning, TrOCR")
    convert.add_argument("source", help="a folder of transformers, a .pth of BLIP's authors, or a hub id: NAME/NAME[@REVISION]")
    convert.add_argument("folder", type=Path, help="new folder for the checkpoint")
    convert.add_argument("--license", default="", help="license of the source (default: from its card)")
    convert.add_argument("--language", default="en", help="language of its captions, BCP 47 (default: en)")
    convert.add_argument("--unusual-heads", action="store_true", help="accept a number of heads that no published network has")
    convert.set_defaults(run=_convert)

    download = commands.add_parser("pull", help="download a checkpoint of this program from a hub")
    download.add_argument("repository", metavar="NAME/NAME[@REVISION]", help="hub id")
    download.add_argument("folder", type=Path, help="new folder for the checkpoint")
    download.set_defaults(run=_pull)

    upload = commands.add_parser("push", help="upload a checkpoint and its card to a hub; `hf auth login` first")
    upload.add_argument("folder", type=Path, help="checkpoint folder")
    upload.add_argument("repository", metavar="NAME/NAME[@BRANCH]", help="hub id")
    upload.add_argument("--private", action="store_true", help="create a private repository")
    upload.set_defaults(run=_push)

    show = commands.add_parser("show", help="print a checkpoint's configuration and card")
    show.add_argument(
        "checkpoint", type=Path, nargs="?", default=DEFAULT_CHECKPOINT, help="folder or hub:ID (default: the embedded one)"
    )
    show.set_defaults(run=_show)
    return parser


def _convert(options: argparse.Namespace) -> int:
    _require_new(options.folder)
    settings = {"license": options.license, "language": options.language, "unusual_heads": options.unusual_heads}
    if not Path(options.source).exists() and is_hub_id(options.source):
        not_adopted = convert_hub_folder(fetch(options.source), options.folder, **settings)
    else:
        not_adopted = convert_source(Path(options.source), options.folder, **settings)
    config = read_config(options.folder)
    print(f"{options.folder}: images of {config.image.height} x {config.image.width}, {config.decoder.vocab_size} tokens")
    for setting in not_adopted:
        print(f"generation setting that is not taken over: {setting}", file=sys.stderr)
    if not config.license:
        print("the source has no license: set it with --license, `push` needs one", file=sys.stderr)
    return 0


def _pull(options: argparse.Namespace) -> int:
    _require_new(options.folder)
    source = pull(options.repository, options.folder)
    print(f"{options.folder}: {source.repository} at {source.commit}")
    return 0


def _push(options: argparse.Namespace) -> int:
    print(push(options.folder, options.repository, private=options.private))
    return 0


def _show(options: argparse.Namespace) -> int:
    captioner = Captioner.load(options.checkpoint, device="cpu", dtype="float32")
    print(json.dumps({"parameters": captioner.parameters, **to_json(captioner.config)}, indent=2))
    print(captioner.card)
    return 0


def _require_new(folder: Path) -> None:
    if folder.exists():
        raise CheckpointError(f"{folder} exists; name a new folder")


if __name__ == "__main__":
    sys.exit(main())
