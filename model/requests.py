"""CaptionRequest: what a caller wants of one image."""

from __future__ import annotations

from dataclasses import dataclass

from model.geometry import Box, ImageView
from model.options import GenerationOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionRequest:
    """One image to caption by `options`, or whose `texts`, written elsewhere, to score (options None)."""

    view: ImageView | None  # None: the batch is given the image's features, and no maps are requested
    options: GenerationOptions | None = None
    texts: tuple[str, ...] = ()
    maps: str | None = None  # a name of MAP_METHODS, "none", or None for the checkpoint's own method
    reliance: bool = True
    language: str = ""  # BCP 47; "" is the checkpoint's default
    region: Box | None = None  # the part of the image that is to be described, in pixels of the upright image

    def __post_init__(self) -> None:
        if (self.options is None) == (not self.texts):
            raise ValueError("a request has either options, to be captioned, or texts, to be scored")

    @property
    def needs_reliance(self) -> bool:
        """Whether reliance is computed: it was requested, or confidence is computed from it."""
        return self.reliance or (self.options is not None and self.options.min_confidence > 0)

    @property
    def num_rows(self) -> int:
        """Rows of a step that it takes."""
        return 0 if self.options is None else self.options.num_rows
