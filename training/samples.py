"""Sample captions with their maps, for TensorBoard: how a run comes to look at the right parts of an image."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np

from corpus import CaptionedImage
from model import Captioner, CaptionNetwork, CaptionTokenizer, GenerationOptions, prepare
from report import contact_sheet


def sample_sheets(
    network: CaptionNetwork, tokenizer: CaptionTokenizer, entries: Sequence[CaptionedImage], language: str
) -> list[tuple[str, Any]]:
    """Return for each image its id and a sheet of its caption's words with their maps, (height, width, 3) uint8."""
    captioner = Captioner(network, tokenizer)
    sheets = []
    for entry in entries:
        image, file = entry.load(), BytesIO()
        image.save(file, "PNG")
        view = prepare(file.getvalue(), network.config.image)
        (result,) = captioner.caption([view], GenerationOptions(strategy="greedy", max_words=20), language=language)
        sheet = contact_sheet(image, result.captions[0], network.grid, view)
        sheets.append((entry.image_id, np.asarray(sheet.convert("RGB"))))
    return sheets
