"""A folder of images with a text file next to each, one caption per line; `a.zh.txt` has the Chinese captions of a.jpg.

A text is `.txt` or `.caption` (kohya); `a.jpg.txt` is the text of a.jpg. If an image has several, all their captions count.
Folders train, val and test (or validation, valid, dev) are splits; any other folder is a part of the image id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from corpus.errors import DataError
from corpus.example import Example
from corpus.formats.fields import LANGUAGE_TAG, clean_caption
from corpus.formats.image_files import is_system_file
from corpus.formats.read_options import ReadOptions
from corpus.formats.splits import SPLITS, normalize_split
from corpus.formats.text_files import text_lines
from corpus.formats.writer import NewFolder, enumerate_valid, with_own_id
from model import IMAGE_SUFFIXES, UNREAD_SUFFIXES

TEXT_SUFFIXES = (".txt", ".caption")
_IGNORED_STEMS = ("readme", "license", "licence")  # texts about the folder
_NO_LANGUAGES = {suffix[1:] for suffix in (*IMAGE_SUFFIXES, *UNREAD_SUFFIXES, *TEXT_SUFFIXES)} | {
    "cap",
    "tag",
    "bak",
    "old",
    "tmp",
}


def read_sidecar(paths: list[Path], options: ReadOptions) -> Iterator[Example]:
    """Read folders of images and texts. A text without its image is an error in `options.errors`."""
    return chain.from_iterable(_read(path, options) for path in paths)


def write_sidecar(examples: Iterable[Example], folder: NewFolder) -> None:
    """Write a folder per split, and next to each image one text per language."""
    for number, example in enumerate_valid(map(with_own_id, examples)):
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


def has_texts(root: Path) -> bool:
    """Return whether a folder has an image with a text next to it."""
    files = _files(root)
    images = _images_by_name(files)
    return any(_image_of_text(path, images) is not None for path in files if _is_text(path))


def _read(root: Path, options: ReadOptions) -> Iterator[Example]:
    root = _packed_root(root)
    files = _files(root)
    images = _images_by_name(files)
    texts: defaultdict[Path, list[tuple[str, Path]]] = defaultdict(list)
    for path in filter(_is_text, files):
        with options.errors:
            match = _image_of_text(path, images)
            if match is None:
                raise DataError(_without_image_message(path, files))
            candidates, language = match
            if len(candidates) > 1:
                names = " and ".join(str(image) for image in candidates)
                raise DataError(
                    f"{names} differ only in their suffix, so {path} may be the text of each; name it {candidates[0].name}.txt"
                )
            texts[candidates[0]].append((language, path))
    for path in filter(_is_image, files):
        example = None
        with options.errors:
            example = _example(root, path, sorted(texts[path], key=_order), options)
        if example is not None:
            yield example


def _files(root: Path) -> list[Path]:
    """Return the files of a folder and its sub-folders without those of the operating system."""
    return sorted(path for path in root.rglob("*") if not is_system_file(path.relative_to(root).as_posix()) and path.is_file())


def _packed_root(root: Path) -> Path:
    """Return the folder that has the splits: a folder may be packed into another one, alone."""
    children = [path for path in root.iterdir() if not is_system_file(path.name)]
    if len(children) != 1 or not children[0].is_dir():
        return root
    inner = _packed_root(children[0])
    return inner if any(normalize_split(path.name) in SPLITS for path in inner.iterdir() if path.is_dir()) else root


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _is_text(path: Path) -> bool:
    return path.suffix.lower() in TEXT_SUFFIXES and path.stem.lower() not in _IGNORED_STEMS


def _order(text: tuple[str, Path]) -> tuple[str, int, Path]:
    """Return the order of the texts of an image: by language, and .txt before .caption."""
    language, path = text
    return language, TEXT_SUFFIXES.index(path.suffix.lower()), path


def _images_by_name(files: list[Path]) -> dict[Path, list[Path]]:
    """Return the images by their path with and without suffix; the suffix is in lower case."""
    images: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in filter(_is_image, files):
        stem = _without_suffix(path)
        for name in (stem, stem.with_name(stem.name + path.suffix.lower())):
            images[name].append(path)
    return images


def _without_suffix(path: Path) -> Path:
    return path.with_name(path.name[: -len(path.suffix)])


def _image_of_text(path: Path, images: dict[Path, list[Path]]) -> tuple[list[Path], str] | None:
    """Return the images that a text may belong to, and its language; None if there is no image next to it.

    a.txt, a.jpg.txt, a.zh.txt and a.jpg.zh.txt are texts of a.jpg.
    """
    name = _without_suffix(path)
    if named := _named(name, images):
        return named, ""
    language = name.suffix[1:]
    if (
        LANGUAGE_TAG.fullmatch(language)
        and language.lower() not in _NO_LANGUAGES
        and (named := _named(_without_suffix(name), images))
    ):
        return named, language
    return None


def _named(name: Path, images: dict[Path, list[Path]]) -> list[Path]:
    """Return the images with this name, with or without suffix; an image may have got another suffix than its text has."""
    if name not in images and name.suffix.lower() in IMAGE_SUFFIXES:
        stem = _without_suffix(name)
        return images.get(stem.with_name(stem.name + name.suffix.lower())) or images.get(stem, [])
    return images.get(name, [])


def _without_image_message(path: Path, files: list[Path]) -> str:
    stem = _without_suffix(path)
    unread = [file for file in files if file.suffix.lower() in UNREAD_SUFFIXES and stem in (file, _without_suffix(file))]
    if unread:
        return f"{path} is the text of {unread[0].name}, which is in a format that is not read; save the image as JPEG or PNG"
    return f"{path} has no image next to it ({stem.name}.jpg, …); add the image, or remove the text"


def _example(root: Path, path: Path, texts: list[tuple[str, Path]], options: ReadOptions) -> Example:
    parts = path.relative_to(root).parts
    split = normalize_split(parts[0]) if len(parts) > 1 else ""
    parts_of_id = parts[1:] if split in SPLITS else parts
    captions: list[tuple[str, str]] = []  # language and text
    for language, text in texts:
        lines = [clean_caption(line, str(text)) for _, line in text_lines(text, options.errors)]
        if not any(lines):
            options.errors.skip(str(text), "has no caption")
        earlier = set(captions)  # a.txt and a.caption may have the same captions
        captions += [(language, line) for line in lines if line and (language, line) not in earlier]
    languages, references = zip(*captions, strict=True) if captions else ((), ())
    image_id = "/".join((*parts_of_id[:-1], _without_suffix(path).name))
    return Example(path, references, split if split in SPLITS else "train", image_id, languages, origin=str(path))
