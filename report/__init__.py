"""Overlays of attention maps, contact sheets, heat maps of two sequences, and HTML pages."""

import model  # isort: skip  # noqa: F401  before torch is imported

from report.overlay import contact_sheet, heat_map, overlay, word_summary
from report.pages import image_uri, page
from report.sequences import sequence_map

__all__ = [
    "contact_sheet",
    "heat_map",
    "image_uri",
    "overlay",
    "page",
    "sequence_map",
    "word_summary",
]
