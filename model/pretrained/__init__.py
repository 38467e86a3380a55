"""Conversion of public checkpoints of other programs into our format: names and layouts, one file per family."""

from model.pretrained.convert import convert_source
from model.pretrained.families import KNOWN, convert_network, source_image

__all__ = ["KNOWN", "convert_network", "convert_source", "source_image"]
