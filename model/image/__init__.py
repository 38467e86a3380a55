"""Bytes of an image to an ImageView: the one preprocessing path of training, evaluation and service.

The order is: format by first bytes, size by header, limits, decoding, color mode, resizing to the encoder's size, color profile,
EXIF orientation, normalization. Nothing is cropped away, and nothing is decoded before its header was checked.
"""

from model.image.decode import LOCAL_IMAGE_LIMITS, DecodedImage, ImageLimits, decode_image, num_pixels
from model.image.formats import ALL_FORMATS, DEFAULT_FORMATS, describe, missing_support, sniff_format
from model.image.names import IMAGE_SUFFIXES, UNREAD_SUFFIXES, is_image_name, is_system_name
from model.image.views import check_region, make_view, prepare, prepare_regions, resize_and_normalize

__all__ = [
    "ALL_FORMATS",
    "DEFAULT_FORMATS",
    "IMAGE_SUFFIXES",
    "LOCAL_IMAGE_LIMITS",
    "UNREAD_SUFFIXES",
    "DecodedImage",
    "ImageLimits",
    "check_region",
    "decode_image",
    "describe",
    "is_image_name",
    "is_system_name",
    "make_view",
    "missing_support",
    "num_pixels",
    "prepare",
    "prepare_regions",
    "resize_and_normalize",
    "sniff_format",
]
