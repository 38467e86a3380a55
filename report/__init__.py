"""What people look at: overlays, contact sheets, and heat maps of two sequences."""

from report.overlay import contact_sheet, heat, overlay, word_figures
from report.pages import page, picture_uri
from report.sequences import sequence_map

__all__ = [
    "contact_sheet",
    "heat",
    "overlay",
    "page",
    "picture_uri",
    "sequence_map",
    "word_figures",
]
