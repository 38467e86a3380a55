"""Public checkpoints of other programs, as ours: names and layouts, one small file a family, and nothing else."""

from model.pretrained.convert import convert_source
from model.pretrained.families import KNOWN, convert_network, source_image

__all__ = ["KNOWN", "convert_network", "convert_source", "source_image"]
