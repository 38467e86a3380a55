"""Captioned images on the command line: python -m corpus check | show | convert | scenes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from corpus.check import check_data
from corpus.errors import DataError, ErrorLog
from corpus.formats import FORMATS, convert, stream_data
from corpus.pages import check_page, examples_page, sample_examples
from corpus.scene_files import write_scenes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status: 0 for success, 1 for an error in the data, 130 if it was interrupted.

    Invalid arguments end the process with status 2.
    """
    options = make_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (DataError, OSError) as error:
        print(f"corpus: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("corpus: interrupted; nothing was written", file=sys.stderr)
        return 130


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; its `run` option is the function of the command."""
    parser = argparse.ArgumentParser(prog="python -m corpus", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", help="the command; COMMAND --help lists its options")
    data = f"file or folder, or FORMAT:PATH if its format cannot be detected; FORMAT is one of {', '.join(FORMATS)}"

    check = commands.add_parser("check", help="report problems of data; the exit status is 1 if there are errors")
    check.add_argument("data", metavar="DATA", help=data)
    check.add_argument("--language", default="", help="language of captions without a language tag (default: unknown)")
    check.add_argument("--html", type=Path, metavar="PAGE.html", help="also write the report as an HTML page with examples")
    check.add_argument(
        "--list",
        action="append",
        default=[],
        metavar="SPLIT=FILE",
        help="official list of images in a split; may be repeated",
    )
    check.add_argument("--json", action="store_true", help="print the report as JSON, with every case")
    check.set_defaults(run=_check)

    show = commands.add_parser("show", help="write an HTML page with a random sample of examples")
    show.add_argument("data", metavar="DATA", help=data)
    show.add_argument("page", type=Path, metavar="PAGE.html", help="file to write")
    show.add_argument("--count", type=_positive_int, default=24, help="number of examples (default: %(default)s)")
    show.add_argument("--split", help="sample from this split only, such as train")
    show.add_argument("--seed", type=int, default=0, help="seed of the random sample (default: %(default)s)")
    show.set_defaults(run=_show)

    conversion = commands.add_parser("convert", help="write data in another format, in a new folder")
    conversion.add_argument("data", metavar="DATA", help=data)
    conversion.add_argument("target", metavar="FORMAT:FOLDER", help="format to write, and the new folder")
    conversion.add_argument("--lossy", action="store_true", help="leave out what the format does not support, and print how much")
    conversion.set_defaults(run=_convert)

    scenes = commands.add_parser("scenes", help="render a data set in COCO's format with exact captions and masks")
    scenes.add_argument("folder", type=Path, metavar="FOLDER", help="new folder to write")
    scenes.add_argument("--count", type=_positive_int, default=100, help="number of scenes (default: %(default)s)")
    scenes.add_argument("--seed", type=int, default=0, help="seed of the series of scenes (default: %(default)s)")
    scenes.add_argument("--split", default="train", help="split of the images (default: %(default)s)")
    scenes.add_argument("--unseen", action="store_true", help="every scene has a color-shape pair that is held out from training")
    scenes.set_defaults(run=_scenes)
    return parser


def _check(options: argparse.Namespace) -> int:
    if options.html:
        _make_parent(options.html)
    lists = {}
    for text in options.list:
        split, _, path = text.partition("=")
        if not path:
            raise DataError(f"--list {text!r} has no file; write SPLIT=FILE, as in train=trainImages.txt")
        lists[split] = Path(path)
    report = check_data(options.data, language=options.language, lists=lists)
    print(json.dumps(report.as_json(), ensure_ascii=False) if options.json else report.to_text(), flush=True)
    if options.html:
        options.html.write_text(check_page(report), encoding="utf-8")
    return 1 if report.errors else 0


def _show(options: argparse.Namespace) -> int:
    _make_parent(options.page)
    errors = ErrorLog(keep=True)
    stream = stream_data(options.data, errors=errors, need_images=False)
    in_split = (example for example in stream if options.split in (None, example.split))
    examples = sample_examples(in_split, options.count, options.seed)
    for message in errors.messages[:3]:
        print(f"corpus: {message}", file=sys.stderr)
    if not examples:
        raise DataError(f"{options.data} has no example{f' in the split {options.split!r}' if options.split else ''} to show")
    options.page.write_text(examples_page(options.data, examples), encoding="utf-8")
    print(f"{len(examples)} examples in {options.page}")
    return 0


def _convert(options: argparse.Namespace) -> int:
    count, lost = convert(options.data, options.target, lossy=options.lossy)
    for feature, num_images in lost.items():
        print(f"left out for {num_images:,} images: {feature}")
    print(f"{count:,} images in {options.target.partition(':')[2]}")
    return 0


def _scenes(options: argparse.Namespace) -> int:
    count = write_scenes(options.folder, options.count, options.seed, split=options.split, unseen=options.unseen)
    print(f"{count} scenes in {options.folder}")
    return 0


def _make_parent(page: Path) -> None:
    """Create the folder of a page before the work starts. Raises DataError if the page cannot be written."""
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{page} cannot be written ({error.strerror}); name another file") from error
    if page.is_dir():
        raise DataError(f"{page} is a folder; name a file in it, such as {page / 'page.html'}")


def _positive_int(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be an integer of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
