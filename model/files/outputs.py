"""Where captions of files are written: standard output, JSON lines, CSV, texts or XMP files beside the images, contact sheets.

Every output knows which images it has already, so that a command that was interrupted goes on. What exists is never replaced
unless the user says so, and no file is left half-written.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from model.captions import Caption
from model.errors import CaptionerError
from model.files.listing import ImageFile
from model.files.xmp import new_xmp, with_description

_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class Captioned:
    """An image and its captions, best first, as they are to be written; `draw` returns its contact sheet as PNG."""

    file: ImageFile
    captions: tuple[Caption, ...]
    draw: Callable[[], bytes]


class Output(Protocol):
    """One place for captions."""

    def has(self, file: ImageFile) -> bool:
        """Whether it has this image's captions already."""
        ...

    def write(self, captioned: Captioned) -> None:
        """Write an image's captions, unless it has them. Raises OSError, CaptionerError."""
        ...

    def close(self) -> None: ...


class StandardOutput:
    """Text lines on a terminal, JSON lines otherwise."""

    def __init__(self, *, as_json: bool, before: Callable[[], None]) -> None:
        """`before` is called before something is printed."""
        self._as_json = as_json
        self._before = before

    def has(self, file: ImageFile) -> bool:
        return False

    def write(self, captioned: Captioned) -> None:
        self._before()
        if self._as_json:
            print(json.dumps(record(captioned), ensure_ascii=False), flush=True)
            return
        for caption in captioned.captions:
            print(f"{captioned.file.text}: {caption.text}", flush=True)

    def close(self) -> None:
        pass


class Table:
    """A JSON-lines or CSV file, one record per image; an existing one is continued."""

    def __init__(self, path: Path, *, columns: list[str] | None, overwrite: bool) -> None:
        """`columns` are those of a CSV file, None for JSON lines. Raises CaptionerError for a file that is not this command's."""
        self._columns = columns
        self._done: set[str] = set()
        text = "" if overwrite or not path.exists() else _complete_lines(path)
        if text:
            self._done = _csv_files(path, text, columns) if columns else _json_files(path, text)
        self._stream = path.open("r+" if text else "w", encoding="utf-8", newline="")
        if text:
            self._stream.seek(0)
            self._stream.truncate(len(text.encode()))  # without a record that was cut off
            self._stream.seek(0, os.SEEK_END)
        elif columns:
            self._write_row(dict(zip(columns, columns, strict=True)))

    def has(self, file: ImageFile) -> bool:
        return file.text in self._done

    def write(self, captioned: Captioned) -> None:
        if self.has(captioned.file):
            return
        self._done.add(captioned.file.text)
        if self._columns is None:
            self._stream.write(json.dumps(record(captioned), ensure_ascii=False) + "\n")
            self._stream.flush()
            return
        texts = [caption.text for caption in captioned.captions]
        names = [name for name in self._columns if name.startswith("caption")]
        texts[len(names) - 1 :] = ["; ".join(texts[len(names) - 1 :])]  # of a task that locates any number of things
        row = dict(zip(names, [*texts, *[""] * len(names)], strict=False)) | {"file": captioned.file.text}
        if "words" in self._columns:
            row["words"] = json.dumps(_words(captioned.captions[0]), ensure_ascii=False)
        self._write_row(row)

    def close(self) -> None:
        self._stream.close()

    def _write_row(self, row: dict[str, str]) -> None:
        assert self._columns is not None, "only CSV files have rows"
        line = io.StringIO()
        csv.DictWriter(line, self._columns, lineterminator="\n").writerow(row)
        self._stream.write(line.getvalue())
        self._stream.flush()


class FilesBeside:
    """A file per image: a text or an XMP file beside it, or a contact sheet in a folder."""

    def __init__(
        self,
        target: Callable[[ImageFile], Path],
        content: Callable[[Captioned, bytes | None], bytes],
        *,
        overwrite: bool,
        is_derived: bool = False,
    ) -> None:
        """`content` returns the bytes of a file from the captions and what the file contains already, None for a new one.

        A derived file, such as a contact sheet, is replaced whenever its image is captioned.
        """
        self.target = target
        self._content = content
        self._overwrite = overwrite
        self._replaces = overwrite or is_derived

    def has(self, file: ImageFile) -> bool:
        return not self._overwrite and self.target(file).exists()

    def write(self, captioned: Captioned) -> None:
        path = self.target(captioned.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        old = path.read_bytes() if path.exists() else None
        if old is None or self._replaces:
            _write_whole(path, self._content(captioned, old), overwrite=self._replaces)

    def close(self) -> None:
        pass


def text_content(captioned: Captioned, old: bytes | None) -> bytes:
    """Return a text file: one caption per line."""
    return "".join(f"{caption.text}\n" for caption in captioned.captions).encode()


def xmp_content(captioned: Captioned, old: bytes | None) -> bytes:
    """Return an XMP file with the best caption as its description, and what else it contained."""
    text = captioned.captions[0].text
    return new_xmp(text) if old is None else with_description(old, text)


def csv_columns(num_captions: int, *, has_words: bool) -> list[str]:
    """Return the columns of a CSV file: `caption`, or `caption_0`, `caption_1` … of several captions per image."""
    names = ["caption"] if num_captions == 1 else [f"caption_{number}" for number in range(num_captions)]
    return ["file", *names, *(["words"] if has_words else [])]


def record(captioned: Captioned) -> dict[str, Any]:
    """Return the JSON record of an image: the best caption, and all of them if several were requested."""
    best = captioned.captions[0]
    document = {"file": captioned.file.text, "text": best.text, "words": _words(best)}
    if len(captioned.captions) > 1 or best.region is not None:
        document["captions"] = [caption.text for caption in captioned.captions]
    if best.region is not None:  # of a task that locates what it describes
        regions = [caption.region for caption in captioned.captions if caption.region is not None]
        document["regions"] = [[round(edge) for edge in dataclasses.astuple(region)] for region in regions]
    return document


def _words(caption: Caption) -> list[dict[str, Any]]:
    return [
        {
            "text": word.text,
            "start": word.start,
            "end": word.end,
            "probability": round(word.probability, 6),
            "image_reliance": None if word.image_reliance is None else round(word.image_reliance, 6),
            "box": None if word.box is None else list(word.box),
        }
        for word in caption.words
    ]


def _write_whole(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Write a file that appears complete or not at all; without `overwrite`, one that appears in the meantime is left alone."""
    # Its name is short, as that of the file may have all 255 bytes, and the same in another run, which uses it again.
    partial = path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:24]}.partial")
    partial.write_bytes(content)
    if overwrite:
        partial.replace(path)
        return
    try:
        os.link(partial, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        partial.replace(path)
        return
    partial.unlink()


def _complete_lines(path: Path) -> str:
    """Return the text of a table up to its last line end: a command that was killed may have cut off a record."""
    try:
        data = path.read_bytes()
        return data[: data.rfind(b"\n") + 1].decode("utf-8")
    except UnicodeDecodeError as error:
        raise _foreign(path, "it is not UTF-8") from error


def _json_files(path: Path, text: str) -> set[str]:
    files = set()
    for number, line in enumerate(text.split("\n")[:-1], start=1):  # names may contain other line separators
        try:
            files.add(str(json.loads(line)["file"]))
        except (ValueError, KeyError, TypeError) as error:
            raise _foreign(path, f"line {number} has no 'file'") from error
    return files


def _csv_files(path: Path, text: str, columns: list[str]) -> set[str]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        if (header := next(rows)) != columns:
            raise _foreign(path, f"its columns are {','.join(header).lstrip(_BOM)}, and not {','.join(columns)}")
        return {row[0] for row in rows if row}
    except csv.Error as error:
        raise _foreign(path, "it is not a complete CSV file") from error


def _foreign(path: Path, reason: str) -> CaptionerError:
    return CaptionerError(f"{path} exists and cannot be continued: {reason}; name another file (--overwrite would replace it)")
