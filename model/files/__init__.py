"""`python -m model caption`: captions of image files and folders, written where people who caption data sets need them."""

from model.files.run import caption_files
from model.files.targets import add_output_flags

__all__ = ["add_output_flags", "caption_files"]
