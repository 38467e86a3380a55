"""Token ids of many captions in two arrays: worker processes share them, where lists would be copied page by page."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

import numpy as np


class TokenLists:
    """For every image the token ids of its captions."""

    def __init__(self, images: Iterable[Sequence[Sequence[int]]]) -> None:
        tokens, ends, counts = array("i"), array("q", [0]), array("q", [0])
        for captions in images:
            for ids in captions:
                tokens.extend(ids)
                ends.append(len(tokens))
            counts.append(counts[-1] + len(captions))
        self._tokens = np.frombuffer(tokens, np.int32) if tokens else np.zeros(0, np.int32)
        self._ends, self._counts = np.array(ends), np.array(counts)

    def __len__(self) -> int:
        """The number of images."""
        return len(self._counts) - 1

    def __getitem__(self, image: int) -> list[list[int]]:
        """Return the ids of each caption of an image."""
        first, last = int(self._counts[image]), int(self._counts[image + 1])
        return [self._tokens[self._ends[n] : self._ends[n + 1]].tolist() for n in range(first, last)]

    def longest(self) -> list[int]:
        """Return the length of the longest caption of each image, 0 if it has none."""
        return [max(map(len, self[image]), default=0) for image in range(len(self))]
