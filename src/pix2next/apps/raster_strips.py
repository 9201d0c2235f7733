"""Rows of a raster, read once each, and the network's tiles out of them."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Shaped
from rasterio.windows import Window
from torch import Tensor

from pix2next.apps.raster_reading import Raster, Reading, read_window
from pix2next.images import to_model_range
from pix2next.images.tiles import Span


class Strip(NamedTuple):
    """Some whole rows of a raster as they are stored; `alpha` where the raster has one."""

    rgb: Shaped[np.ndarray, "3 h w"]
    valid: Bool[np.ndarray, "h w"]
    alpha: Shaped[np.ndarray, "h w"] | None

    def rows(self, start: int, stop: int) -> "Strip":
        """A part of it, by row numbers that count from its own first."""
        alpha = None if self.alpha is None else self.alpha[start:stop]
        return Strip(self.rgb[:, start:stop], self.valid[start:stop], alpha)


class Strips:
    """The rows that a row of tiles needs; those it shares with the one before are not read a second time."""

    def __init__(self, dataset: Raster, reading: Reading) -> None:
        self._dataset = dataset
        self._reading = reading
        self._start = self._stop = 0
        self._strip = self._rows(0, 0)

    def at(self, start: int, stop: int) -> Strip:
        """Rows `start` to `stop`, neither of which is before that of the last call.

        Raises: ImageError if they cannot be read.
        """
        if (start, stop) != (self._start, self._stop):
            kept = self._strip.rows(min(start, self._stop) - self._start, self._stop - self._start)
            self._strip = _joined(kept, self._rows(max(start, self._stop), stop))
            self._start, self._stop = start, stop
        return self._strip

    def held(self, start: int, stop: int) -> Strip:
        """A part of the rows that the last call gave."""
        return self._strip.rows(start - self._start, stop - self._start)

    def part(self, row: Span, column: Span) -> Float32[Tensor, "c h w"] | None:
        """A tile in [-1, 1], pixels without data filled; None if it holds nothing but such."""
        strip = self.at(row.start, min(row.stop, self._reading.height))
        valid = strip.valid[:, column.start : column.stop]
        if not valid.any():
            return None
        pixels = np.moveaxis(strip.rgb[:, :, column.start : column.stop], 0, 2)
        filled = pixels if valid.all() else fill(pixels, valid)
        # As floating point any range will do, one that begins below zero included.
        return to_model_range(filled.astype(np.result_type(pixels.dtype, np.float32)), self._reading.value_range)

    def _rows(self, start: int, stop: int) -> Strip:
        reading, dataset = self._reading, self._dataset
        if start == stop:
            empty = np.zeros((0, reading.width), bool)
            rgb = np.zeros((3, 0, reading.width), reading.dtype)
            return Strip(rgb, empty, None if reading.alpha is None else rgb[0])
        window = Window(0, start, reading.width, stop - start)
        rgb = read_window(dataset, dataset.read, list(reading.bands), window=window)
        valid = has_data(rgb, reading)
        if reading.masked:
            valid &= read_window(dataset, dataset.read_masks, reading.bands[0], window=window) != 0
        if reading.alpha is None:
            return Strip(rgb, valid, None)
        alpha = read_window(dataset, dataset.read, reading.alpha, window=window)
        return Strip(rgb, valid & (alpha != 0), alpha)


def _joined(above: Strip, below: Strip) -> Strip:
    alpha = None if above.alpha is None or below.alpha is None else np.concatenate([above.alpha, below.alpha])
    return Strip(np.concatenate([above.rgb, below.rgb], axis=1), np.concatenate([above.valid, below.valid]), alpha)


def has_data(rgb: Shaped[np.ndarray, "3 h w"], reading: Reading) -> Bool[np.ndarray, "h w"]:
    """Which pixels hold colours, by their values alone.

    The nodata value in a single band means none if no measured value can be like that (-9999); within the range (a 0 of
    8 bits) it may be one, and only all three bands together mean that there is no data. A mask counts instead of the
    value, as it does for GDAL. NaN and infinity are never data.
    """
    valid = np.isfinite(rgb).all(axis=0)
    if reading.nodata is None or reading.masked:
        return valid
    low, high = reading.value_range
    marked = rgb == reading.nodata
    return valid & ~(marked.all(axis=0) if low <= reading.nodata <= high else marked.any(axis=0))


def fill(picture: Shaped[np.ndarray, "h w c"], valid: Bool[np.ndarray, "h w"]) -> Shaped[np.ndarray, "h w c"]:
    """Pixels without data take the colours of the nearest that has some: the scene goes on, and no edge comes in.

    There has to be one.
    """
    holes = (~valid).astype(np.uint8)
    labels = cv2.distanceTransformWithLabels(holes, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    nearest = np.zeros(labels.max() + 1, np.int64)
    nearest[labels[valid]] = np.flatnonzero(valid)
    filled = picture.copy()
    filled[~valid] = picture.reshape(-1, picture.shape[2])[nearest[labels[~valid]]]
    return filled
