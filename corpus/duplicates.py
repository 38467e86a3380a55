"""Pictures that are the same or nearly so: by their bytes, and by perceptual hashes (Zauner 2010, phash of ImageHash).

I pictures; a hash is 64 bits.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

HASH_BITS = 64


def near_pairs(hashes: NDArray[np.uint64], distance: int) -> list[tuple[int, int]]:
    """Return all pairs of indices (i, j), i < j, whose hashes (I,) differ in at most `distance` bits.

    Cut into distance + 1 bands, two such hashes have a band in common (Manku, Jain and Sarma 2007, section 3): only
    neighbours in a band's order are compared. Equal hashes are compared once with the others.
    """
    unique, inverse = np.unique(hashes, return_inverse=True)
    order = np.argsort(inverse, kind="stable")  # pictures in the order of their hashes
    members = np.split(order, np.flatnonzero(np.diff(inverse[order])) + 1) if len(hashes) else []
    found = {(int(i), int(j)) for group in members for place, i in enumerate(group) for j in group[place + 1 :]}
    for one, other in _near(unique, distance):
        found |= {(min(i, j), max(i, j)) for i in members[one].tolist() for j in members[other].tolist()}
    return sorted(found)


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
