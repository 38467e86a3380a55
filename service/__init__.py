"""HTTP around a Captioner."""

import model  # isort: skip  # noqa: F401  before torch is imported

from service.app import create_app
from service.settings import Settings

__all__ = ["Settings", "create_app"]
