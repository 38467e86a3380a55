"""Self-contained HTML pages: Jinja templates of report/templates, with images as data URIs."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

_TEMPLATES = Path(__file__).parent / "templates"
_JPEG_QUALITY = 80


def page(template: str, **values: object) -> str:
    """Return a template rendered with escaped values. Raises jinja2.UndefinedError if a value is missing."""
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template(template).render(**values)


def image_uri(image: Image.Image, edge: int = 260) -> str:
    """Return an RGB image as a JPEG data URI, resized so that its longer edge is at most `edge` pixels."""
    small = image.copy()
    small.thumbnail((edge, edge))
    file = io.BytesIO()
    small.convert("RGB").save(file, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
