"""What people look at: overlays, contact sheets, and heat maps of two sequences."""

from report.overlay import contact_sheet, heat, overlay, word_summary
from report.pages import image_uri, page
from report.sequences import sequence_map

__all__ = [
    "contact_sheet",
    "heat",
    "image_uri",
    "overlay",
    "page",
    "sequence_map",
    "word_summary",
]
