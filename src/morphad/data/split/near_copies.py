"""Near copies by perceptual hash, found without comparing every image with every other."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

HASH_BITS = 256
_BLOCK = 1 << 22  # distances held at once
_EDGES = 1 << 22  # links held at once

Indices = NDArray[np.int64]


def near_pairs(hashes: Sequence[str], bits: int) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of different hashes that differ in at most `bits` of 256, in blocks; a pair may come more than once.

    Two hashes that differ in at most `bits` places agree in at least one of `bits` + 1 bands of places, so only hashes
    that share a band are compared. Bands interleave the places, for low frequencies are alike in most images of a line.

    Args:
        hashes: Different hexadecimal hashes of 256 bits.
        bits: The largest distance, 0..64.
    """
    if len(hashes) < 2 or bits < 1:
        return
    octets = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), HASH_BITS // 8)
    words = octets.view(np.uint64)
    places = np.unpackbits(octets, axis=1)
    for band in range(bits + 1):
        _, bucket = np.unique(np.packbits(places[:, band :: bits + 1], axis=1), axis=0, return_inverse=True)
        order = np.argsort(bucket, kind="stable")
        edges = np.flatnonzero(np.diff(bucket[order])) + 1
        for members in np.split(order, edges):
            yield from _compare(words, members, bits)


def _compare(words: NDArray[np.uint64], members: Indices, bits: int) -> Iterator[tuple[Indices, Indices]]:
    rows = max(1, _BLOCK // len(members))
    for start in range(0, len(members) - 1, rows):
        left, right = members[start : start + rows], members[start + 1 :]
        distance = np.zeros((len(left), len(right)), np.uint16)
        for word in range(words.shape[1]):
            distance += np.bitwise_count(words[left, word, None] ^ words[None, right, word])
        first, second = np.nonzero(distance <= bits)
        later = second >= first  # `right` begins one after `left`: each pair once, none with itself
        if later.any():
            yield left[first[later]], right[second[later]]


def components(count: int, pairs: Iterator[tuple[Indices, Indices]]) -> NDArray[np.int32]:
    """The connected component, 0, 1, ..., of each of `count` things, from blocks of linked pairs, in bounded memory."""
    labels: NDArray[np.int32] = np.arange(count, dtype=np.int32)
    waiting: list[tuple[Indices, Indices]] = []
    size = 0

    def merge() -> None:
        nonlocal labels, size
        left = np.concatenate([labels[a] for a, _ in waiting] or [labels[:0]])
        right = np.concatenate([labels[b] for _, b in waiting] or [labels[:0]])
        graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(count, count))
        labels = connected_components(graph, directed=False)[1][labels]
        waiting.clear()
        size = 0

    for pair in pairs:
        waiting.append(pair)
        size += len(pair[0])
        if size > _EDGES:
            merge()
    merge()
    return labels
