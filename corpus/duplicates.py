"""Pictures that are the same or nearly so: by their bytes, and by perceptual hashes (Zauner 2010, phash of ImageHash).

I pictures; a hash is 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

HASH_BITS = 64


def near_links(hashes: NDArray[np.uint64], distance: int, alike: Callable[[int, int], bool]) -> list[tuple[int, int]]:
    """Return pairs of indices (i, j), i < j, that link all whose hashes (I,) differ in at most `distance` bits and are `alike`.

    Not every pair is told: of pictures with the same hash that are alike the first stands for the others, so that a thousand
    copies are a thousand links. Cut into distance + 1 bands, two near hashes have a band in common (Manku, Jain and Sarma
    2007, section 3): only neighbours in a band's order are compared.
    """
    unique, inverse = np.unique(hashes, return_inverse=True)
    kinds: list[list[int]] = [[] for _ in unique]  # of each hash pictures that are not alike
    links: list[tuple[int, int]] = []
    for place, which in enumerate(inverse.tolist()):
        like = next((first for first in kinds[which] if alike(first, place)), None)
        if like is None:
            kinds[which].append(place)
        else:
            links.append((like, place))
    for one, other in _near(unique, distance):
        links += [(min(i, j), max(i, j)) for i in kinds[one] for j in kinds[other] if alike(i, j)]
    return sorted(links)


def _near(unique: NDArray[np.uint64], distance: int) -> set[tuple[int, int]]:
    """Return the pairs of different hashes that are near, as indices into them."""
    found: set[tuple[int, int]] = set()
    edges = np.linspace(0, HASH_BITS, distance + 2).astype(int)
    for low, high in pairwise(edges.tolist()):
        band = unique >> np.uint64(low) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        band, hashed = band[order], unique[order]
        for step in range(1, len(unique)):
            same = np.flatnonzero(band[step:] == band[:-step])
            if not len(same):
                break
            near = same[np.bitwise_count(hashed[same] ^ hashed[same + step]) <= distance]
            found |= {(int(min(pair)), int(max(pair))) for pair in zip(order[near], order[near + step], strict=True)}
    return found


def groups(pairs: list[tuple[int, int]]) -> list[list[int]]:
    """Join pairs into groups: who is like one of a group belongs to it."""
    leader: dict[int, int] = {}

    def find(item: int) -> int:
        while leader.setdefault(item, item) != item:
            leader[item] = leader[leader[item]]
            item = leader[item]
        return item

    for one, other in pairs:
        leader[find(other)] = find(one)
    found: dict[int, list[int]] = {}
    for item in sorted(leader):
        found.setdefault(find(item), []).append(item)
    return list(found.values())
