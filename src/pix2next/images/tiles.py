"""Overlapping tiles, blended with a raised-cosine window and put together band by band.

The windows of neighbouring tiles add up to one at every pixel, so where two tiles agree nothing changes, and where
they differ the one fades into the other. A finished band of rows is handed out as soon as no later tile touches it:
what is held grows with the picture's width, never with its height.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32


class Span(NamedTuple):
    """One tile's place along one axis, and its weight at each pixel there."""

    start: int
    stop: int
    weight: Float32[np.ndarray, "n"]


Predict = Callable[[Span, Sequence[Span]], Float32[np.ndarray, "n h w"]]
"""The network's output for tiles that share a row span, one for each column span."""


def plan_spans(length: int, tile: int, overlap: int, multiple: int) -> list[Span]:
    """Tiles of equal size, at most `tile`, that cover `length` pixels, each at least `overlap` into the next.

    All three lengths are multiples of `multiple`, and so is every start: tiles see the picture in step with the
    network's downsampling, as one pass over the whole would. There are as few tiles as can be, each as small as can be.
    A length of at most `tile` is one span.
    """
    assert not any(value % multiple for value in (length, tile, overlap))
    assert 0 < overlap < tile
    count = 1 + max(0, math.ceil((length - tile) / (tile - overlap)))
    side = math.ceil((length + (count - 1) * overlap) / count / multiple) * multiple
    steps = np.arange(count) * ((length - side) / max(1, count - 1) / multiple)
    starts = [int(step) * multiple for step in np.rint(steps)]
    return _weighted([(start, start + side) for start in starts], length)


def _weighted(places: Sequence[tuple[int, int]], length: int) -> list[Span]:
    """Raised cosine over each overlap, flat elsewhere, and normalised to add up to one at every pixel."""
    windows = [np.ones(stop - start) for start, stop in places]
    for left, right in pairwise(range(len(places))):
        shared = places[left][1] - places[right][0]
        rise = np.sin((np.arange(shared) + 0.5) * (np.pi / 2 / shared)) ** 2
        windows[right][:shared] *= rise
        windows[left][-shared:] *= rise[::-1]
    total = np.zeros(length)
    for (start, stop), window in zip(places, windows, strict=True):
        total[start:stop] += window
    return [
        Span(start, stop, (window / total[start:stop]).astype(np.float32))
        for (start, stop), window in zip(places, windows, strict=True)
    ]


def blended_bands(
    rows: Sequence[Span], columns: Sequence[Span], predict: Predict, batch_size: int
) -> Iterator[tuple[int, Float32[np.ndarray, "h w"]]]:
    """Bands of finished rows from top to bottom, each with the row it starts at; together they are the picture.

    `predict` is asked for at most `batch_size` tiles at a time.
    """
    width = columns[-1].stop
    unfinished = np.zeros((0, width), np.float32)
    for index, row in enumerate(rows):
        band = np.zeros((row.stop - row.start, width), np.float32)
        band[: len(unfinished)] += unfinished
        for first in range(0, len(columns), batch_size):
            batch = columns[first : first + batch_size]
            for column, fake in zip(batch, predict(row, batch), strict=True):
                band[:, column.start : column.stop] += fake * row.weight[:, None] * column.weight
        end = rows[index + 1].start if index + 1 < len(rows) else row.stop
        yield row.start, band[: end - row.start]
        unfinished = band[end - row.start :]
