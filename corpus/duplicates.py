"""Duplicate images: pairs with near perceptual hashes (Zauner 2010, phash of ImageHash), and groups of linked pairs.

N images; a hash has 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

HASH_BITS = 64


def near_links(hashes: NDArray[np.uint64], distance: int, are_alike: Callable[[int, int], bool]) -> list[tuple[int, int]]:
    """Return pairs of indices (i, j), i < j, that link all images whose hashes differ in at most `distance` bits and are alike.

    hashes (N,). Not every pair is returned: the first of several alike images with the same hash represents the others, so
    that a thousand copies give a thousand links. If a hash is cut into distance + 1 bands, two near hashes share at least one
    band (Manku, Jain and Sarma 2007, section 3). So only neighbors in the order of each band are compared.
    """
    unique, inverse = np.unique(hashes, return_inverse=True)
    representatives: list[list[int]] = [[] for _ in unique]  # images with this hash that are not alike
    links: list[tuple[int, int]] = []
    for index, number in enumerate(inverse.tolist()):
        first = next((first for first in representatives[number] if are_alike(first, index)), None)
        if first is None:
            representatives[number].append(index)
        else:
            links.append((first, index))
    for one, other in _near_pairs(unique, distance):
        links += [(min(i, j), max(i, j)) for i in representatives[one] for j in representatives[other] if are_alike(i, j)]
    return sorted(links)


def connected_groups(pairs: list[tuple[int, int]]) -> list[list[int]]:
    """Return the connected components of the graph with these pairs as edges, each in ascending order."""
    parent: dict[int, int] = {}

    def root(item: int) -> int:
        while parent.setdefault(item, item) != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for one, other in pairs:
        parent[root(other)] = root(one)
    components: dict[int, list[int]] = {}
    for item in sorted(parent):
        components.setdefault(root(item), []).append(item)
    return list(components.values())


def _near_pairs(unique: NDArray[np.uint64], distance: int) -> set[tuple[int, int]]:
    """Return the pairs of different hashes that are near, as indices into `unique`."""
    pairs: set[tuple[int, int]] = set()
    edges = np.linspace(0, HASH_BITS, distance + 2).astype(int)
    for low, high in pairwise(edges.tolist()):
        band = unique >> np.uint64(low) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        band, hashes = band[order], unique[order]
        for step in range(1, len(unique)):
            same = np.flatnonzero(band[step:] == band[:-step])
            if not len(same):
                break
            near = same[np.bitwise_count(hashes[same] ^ hashes[same + step]) <= distance]
            pairs |= {(int(min(pair)), int(max(pair))) for pair in zip(order[near], order[near + step], strict=True)}
    return pairs
