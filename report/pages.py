"""Self-contained HTML pages: templates of report/templates filled by Jinja, pictures inside as data URIs.

Knows pages and pictures. Does not know what the figures on them mean.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

_TEMPLATES = Path(__file__).parent / "templates"
_QUALITY = 80  # of the pictures' JPEG


def page(template: str, **values: object) -> str:
    """Return a template filled with values; everything that is put in is escaped. A value that is missing is an error."""
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template(template).render(**values)


def image_uri(image: Image.Image, edge: int = 260) -> str:
    """Return an RGB picture as a data URI, made smaller so that its longer edge is at most `edge` pixels."""
    small = image.copy()
    small.thumbnail((edge, edge))
    file = io.BytesIO()
    small.convert("RGB").save(file, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
