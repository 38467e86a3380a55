"""A folder of images with a text file next to each, one caption per line; `a.zh.txt` has the Chinese captions of a.jpg.

Folders train, val and test (or validation, valid, dev) are splits; any other folder is a part of the image id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.fields import LANGUAGE_TAG
from corpus.formats.image_files import IMAGE_SUFFIXES
from corpus.formats.read_options import ReadOptions
from corpus.formats.splits import SPLITS, normalize_split
from corpus.formats.text_files import text_lines
from corpus.formats.writer import NewFolder, enumerate_valid

_IGNORED_STEMS = ("readme", "license", "licence")  # texts about the folder


def read_sidecar(paths: list[Path], options: ReadOptions) -> Iterator[Example]:
    """Read folders of images and texts. A text without its image is an error in `options.errors`."""
    return chain.from_iterable(_read(path, options) for path in paths)


def write_sidecar(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write a folder per split, and next to each image one text per language."""
    for number, example in enumerate_valid(examples):
        if LANGUAGE_TAG.fullmatch(Path(example.image_id).suffix[1:]):
            raise DataError(f"the image id {example.image_id!r} ends with a language; convert to another format, such as jsonl")
        name = folder.write_image(example, number, example.split, by_id=True)
        stem = name[: -len(Path(name).suffix)]
        by_language: defaultdict[str, list[str]] = defaultdict(list)
        for text, language in zip(example.references, example.languages, strict=True):
            by_language[language].append(text)
        for language, texts in by_language.items():
            with folder.open(f"{stem}.{language}.txt" if language else f"{stem}.txt") as file:
                file.writelines(f"{text}\n" for text in texts)


def _read(root: Path, options: ReadOptions) -> Iterator[Example]:
    visible = (path for path in root.rglob("*") if not any(part.startswith(".") for part in path.relative_to(root).parts))
    files = sorted(path for path in visible if path.is_file())
    images = {_without_suffix(path): path for path in files if path.suffix.lower() in IMAGE_SUFFIXES}
    texts: defaultdict[Path, list[tuple[str, Path]]] = defaultdict(list)
    for path in files:
        if path.suffix.lower() == ".txt" and path.stem.lower() not in _IGNORED_STEMS:
            with options.errors:
                image, language = _image_of_text(path, images)
                texts[image].append((language, path))
    path_of: dict[tuple[str, str], Path] = {}
    for path in (path for path in files if path.suffix.lower() in IMAGE_SUFFIXES):
        example = None
        with options.errors:
            example = _example(root, path, sorted(texts[path]), options)
            other = path_of.setdefault((example.split, example.image_id), path)
            if other != path:
                raise DataError(f"{path} and {other} differ only in their suffix, so they have the same text; rename one")
        if example is not None:
            yield example


def _without_suffix(path: Path) -> Path:
    return path.with_name(path.name[: -len(path.suffix)])


def _image_of_text(path: Path, images: dict[Path, Path]) -> tuple[Path, str]:
    """Return the image of a text, and the language of the text."""
    stem = _without_suffix(path)
    if stem in images:
        return images[stem], ""
    if LANGUAGE_TAG.fullmatch(stem.suffix[1:]) and _without_suffix(stem) in images:
        return images[_without_suffix(stem)], stem.suffix[1:]
    raise DataError(f"{path} has no image next to it ({stem.name}.jpg, …); add the image, or remove the text")


def _example(root: Path, path: Path, texts: list[tuple[str, Path]], options: ReadOptions) -> Example:
    parts = path.relative_to(root).parts
    split = normalize_split(parts[0]) if len(parts) > 1 else ""
    parts_of_id = parts[1:] if split in SPLITS else parts
    references, languages = [], []
    for language, text in texts:
        lines = [line.strip() for _, line in text_lines(text, options.errors) if line.strip()]
        if not lines:
            raise DataError(f"{text} is empty; write one caption per line")
        references += lines
        languages += [language] * len(lines)
    image_id = "/".join((*parts_of_id[:-1], _without_suffix(path).name))
    return Example(path, tuple(references), split if split in SPLITS else "train", image_id, tuple(languages), origin=str(path))
