"""Public checkpoints of other programs, as ours: names and layouts, one small file a family, and nothing else."""

from model.pretrained.convert import convert_folder
from model.pretrained.families import KNOWN, convert_network, source_image

__all__ = ["KNOWN", "convert_folder", "convert_network", "source_image"]
