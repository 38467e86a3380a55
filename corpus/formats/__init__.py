"""Formats of captioned images on disk: detected, read, written and converted."""

from corpus.formats.convert import convert
from corpus.formats.read_options import ReadOptions
from corpus.formats.reader import read_data, stream_data, unique_examples
from corpus.formats.registry import FORMATS, Format

__all__ = ["FORMATS", "Format", "ReadOptions", "convert", "read_data", "stream_data", "unique_examples"]
