"""Formats of captioned images on disk: detected, read, written and converted."""

from corpus.formats.convert import convert
from corpus.formats.identity import unique_examples
from corpus.formats.read_options import ReadOptions
from corpus.formats.reader import read_data, stream_data
from corpus.formats.registry import FORMATS, Format
from corpus.formats.text_files import json_document, read_text

__all__ = [
    "FORMATS",
    "Format",
    "ReadOptions",
    "convert",
    "json_document",
    "read_data",
    "read_text",
    "stream_data",
    "unique_examples",
]
