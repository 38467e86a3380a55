"""CaptionedImage pictures: `python -m corpus check | show | convert | scenes`."""

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
    """Do what the command line says; returns the exit status: 0 all done, 1 bad data, 2 wrong use."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (DataError, OSError) as error:
        print(f"corpus: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("corpus: stopped; nothing was written", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m corpus", description=__doc__)
    commands = parser.add_subparsers(required=True)
    data = "a file or folder, FORMAT:PATH where its format cannot be told; FORMAT is one of " + ", ".join(FORMATS)

    check = commands.add_parser("check", help="what is wrong with data; the exit status is 1 where there are errors")
    check.add_argument("data", help=data)
    check.add_argument("--language", default="", help="of captions whose language the data does not tell")
    check.add_argument("--html", type=Path, metavar="PAGE.html", help="also write the report as a page with examples")
    check.add_argument("--list", action="append", default=[], metavar="SPLIT=FILE", help="an official list of a split's pictures")
    check.add_argument("--json", action="store_true", help="print the report as JSON, with every case")
    check.set_defaults(run=_check)

    show = commands.add_parser("show", help="draw a page of examples")
    show.add_argument("data", help=data)
    show.add_argument("page", type=Path, metavar="PAGE.html")
    show.add_argument("--count", type=_positive, default=24)
    show.add_argument("--split", help="of this split alone")
    show.add_argument("--seed", type=int, default=0, help="another one draws other examples")
    show.set_defaults(run=_show)

    conversion = commands.add_parser("convert", help="write data in another format, in a new folder")
    conversion.add_argument("data", help=data)
    conversion.add_argument("target", metavar="FORMAT:FOLDER")
    conversion.add_argument("--lossy", action="store_true", help="leave out what the format cannot hold, and tell how much")
    conversion.set_defaults(run=_convert)

    scenes = commands.add_parser("scenes", help="draw a data set in COCO's format with exact captions and masks")
    scenes.add_argument("folder", type=Path)
    scenes.add_argument("--count", type=_positive, default=100)
    scenes.add_argument("--seed", type=int, default=0, help="the series: another seed draws other scenes")
    scenes.add_argument("--split", default="train")
    scenes.add_argument("--unseen", action="store_true", help="every scene holds a colour-shape pair that training never shows")
    scenes.set_defaults(run=_scenes)
    return parser


def _check(options: argparse.Namespace) -> int:
    for page in filter(None, [options.html]):
        _make_room(page)
    lists = {}
    for text in options.list:
        split, _, path = text.partition("=")
        if not path:
            raise DataError(f"--list {text!r} says no file; say SPLIT=FILE, as in train=trainImages.txt")
        lists[split] = Path(path)
    report = check_data(options.data, language=options.language, lists=lists)
    print(json.dumps(report.as_json(), ensure_ascii=False) if options.json else report.in_words(), flush=True)
    if options.html:
        options.html.write_text(check_page(report), encoding="utf-8")
    return 1 if report.errors else 0


def _make_room(page: Path) -> None:
    """Hold, before the work begins, that a page can be written where it is wanted."""
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{page} cannot be written ({error.strerror}); name another place") from error
    if page.is_dir():
        raise DataError(f"{page} is a folder; name the page in it, as in {page / 'page.html'}")


def _show(options: argparse.Namespace) -> int:
    _make_room(options.page)
    faults = ErrorLog(keep=True)
    stream = stream_data(options.data, faults=faults, need_images=False)
    examples = sample_examples((one for one in stream if options.split in (None, one.split)), options.count, options.seed)
    for message in faults.found[:3]:
        print(f"corpus: {message}", file=sys.stderr)
    if not examples:
        raise DataError(f"{options.data} has no example{f' in the split {options.split!r}' if options.split else ''} to show")
    options.page.write_text(examples_page(options.data, examples), encoding="utf-8")
    print(f"{len(examples)} examples in {options.page}")
    return 0


def _convert(options: argparse.Namespace) -> int:
    count, lost = convert(options.data, options.target, lossy=options.lossy)
    for what, pictures in lost.items():
        print(f"left out, of {pictures:,} pictures: {what}")
    print(f"{count:,} pictures in {options.target.partition(':')[2]}")
    return 0


def _scenes(options: argparse.Namespace) -> int:
    written = write_scenes(options.folder, options.count, options.seed, split=options.split, unseen=options.unseen)
    print(f"{written} scenes in {options.folder}")
    return 0


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
