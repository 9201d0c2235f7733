"""The same scene twice: pictures alike but for size, compression and brightness, found among thousands."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from pix2next.images import full_scale

FAR = 10
"""Candidates differ in at most this many of the 64 bits of their hashes."""
ALIKE = 0.98
"""And are duplicates where their thumbnails correlate at least so much."""

_SIDE = 32


class Fingerprint(NamedTuple):
    """What is kept of a picture, about a kilobyte."""

    digest: bytes
    """Of the pixels: equal for equal pictures."""
    bits: int
    """dHash: whether each of 8 x 8 cells is brighter than the one to its right."""
    thumbnail: UInt8[np.ndarray, "32 32"]


class Duplicate(NamedTuple):
    """Two pictures, by their positions, and how much their thumbnails correlate; exact ones have equal pixels."""

    first: int
    second: int
    correlation: float
    exact: bool


def fingerprint(rgb: Shaped[np.ndarray, "h w 3"], grey: Shaped[np.ndarray, "h w"]) -> Fingerprint:
    """Of the colours, the digest; of `grey`, their luma, the hash and the thumbnail."""
    unit = grey.astype(np.float32) / np.float32(full_scale(grey.dtype))
    cells = cv2.resize(unit, (9, 8), interpolation=cv2.INTER_AREA)
    bits = int.from_bytes(np.packbits(cells[:, :-1] > cells[:, 1:]).tobytes(), "big")
    thumbnail = cv2.resize(unit, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    digest = hashlib.blake2b(np.ascontiguousarray(rgb).data, digest_size=16, key=str(rgb.shape).encode()).digest()
    return Fingerprint(digest, bits, np.rint(thumbnail * 255).clip(0, 255).astype(np.uint8))


def find_duplicates(prints: Sequence[Fingerprint], groups: Sequence[int]) -> list[Duplicate]:
    """All pairs of pictures from different `groups` that show the same, the most alike first.

    Every pair of hashes is compared, a row at a time; the few candidates are confirmed by their thumbnails. Flat
    pictures (thumbnails without contrast) are duplicates of exact copies only.
    """
    if not prints:
        return []
    bits = np.array([entry.bits for entry in prints], np.uint64)
    group = np.array(groups)
    _, same = np.unique([entry.digest.hex() for entry in prints], return_inverse=True)
    found = []
    for first in range(len(prints) - 1):
        differing = np.bitwise_count(bits[first + 1 :] ^ bits[first])
        near = ((differing <= FAR) | (same[first + 1 :] == same[first])) & (group[first + 1 :] != group[first])
        for second in (first + 1 + np.flatnonzero(near)).tolist():
            exact = prints[first].digest == prints[second].digest
            correlation = 1.0 if exact else _correlation(prints[first].thumbnail, prints[second].thumbnail)
            if correlation >= ALIKE:
                found.append(Duplicate(first, second, correlation, exact))
    return sorted(found, key=lambda pair: -pair.correlation)


def _correlation(first: UInt8[np.ndarray, "32 32"], second: UInt8[np.ndarray, "32 32"]) -> float:
    centred: list[Float32[np.ndarray, "n"]] = [
        thumbnail.reshape(-1).astype(np.float32) - thumbnail.mean() for thumbnail in (first, second)
    ]
    norms = [float(np.linalg.norm(values)) for values in centred]
    if min(norms) < _SIDE:  # Less than one grey level of contrast.
        return 0.0
    return float(centred[0] @ centred[1] / (norms[0] * norms[1]))
