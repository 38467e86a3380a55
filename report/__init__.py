"""What people look at: overlays and contact sheets."""

from report.overlay import contact_sheet, heat, overlay

__all__ = [
    "contact_sheet",
    "heat",
    "overlay",
]
