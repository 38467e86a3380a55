"""CaptionedImage pictures in every format that people keep them in: read, written, converted."""

from corpus.formats.convert import convert
from corpus.formats.known import FORMATS, Format
from corpus.formats.reading import read_data, stream_data, unique

__all__ = ["FORMATS", "Format", "convert", "read_data", "stream_data", "unique"]
