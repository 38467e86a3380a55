"""Conversion of public checkpoints of other programs into our format: names and layouts, one file per family."""

from model.pretrained.architectures import KNOWN
from model.pretrained.convert import convert_source
from model.pretrained.families import convert_network, source_image
from model.pretrained.settings import NotAdopted

__all__ = ["KNOWN", "NotAdopted", "convert_network", "convert_source", "source_image"]
