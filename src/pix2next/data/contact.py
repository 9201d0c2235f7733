"""A contact sheet of pairs: RGB, NIR, and the edges of both in one picture."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from pix2next.data.pairs import Pair
from pix2next.data.registration import edge_strength
from pix2next.errors import ImageError
from pix2next.images import Rgb, atomic_path, full_scale, luma, read_nir, read_rgb

WINDOW = 256
"""Of a larger picture the window of this side with most edges is shown, pixel for pixel."""

_CAPTION = 20
_GAP = 4


def write_contact_sheet(rows: Sequence[tuple[Pair, str]], path: Path) -> None:
    """A row for every pair, with its caption: RGB, NIR, and edges, RGB's in red and NIR's in cyan.

    Where both have an edge, it is white or grey; a pair that is off shows red and cyan lines side by side.

    Raises: OSError if it cannot be written; ImageError from pictures that cannot be read any more.
    """
    whole, data = cv2.imencode(".png", cv2.cvtColor(np.concatenate([_row(*row) for row in rows]), cv2.COLOR_RGB2BGR))
    if not whole:
        raise ImageError(f"cannot write {path}: OpenCV could not encode the contact sheet")
    with atomic_path(path) as beside:
        beside.write_bytes(data.data)


def _row(pair: Pair, caption: str) -> UInt8[np.ndarray, "h w 3"]:
    rgb, nir = read_rgb(pair.rgb), read_nir(pair.nir)
    edges = edge_strength(luma(rgb)), edge_strength(nir)
    window = _window(edges[0] + edges[1])
    overlay = edge_overlay(edges[0][window], edges[1][window])
    shown = [_to_8_bits(rgb[window]), _to_8_bits(cv2.merge([nir[window]] * 3)), overlay]
    width = 3 * WINDOW + 2 * _GAP
    row = np.full((WINDOW + _CAPTION + _GAP, width, 3), 255, np.uint8)
    cv2.putText(row, caption, (2, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    for place, picture in enumerate(shown):
        left = place * (WINDOW + _GAP)
        row[_CAPTION : _CAPTION + picture.shape[0], left : left + picture.shape[1]] = picture
    return row


def _window(edges: Float32[np.ndarray, "h w"]) -> tuple[slice, slice]:
    """The window with most edges, at most `WINDOW` on a side."""
    high, wide = (min(side, WINDOW) for side in edges.shape)
    sums = cv2.integral(edges)
    inside = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    top, left = map(int, np.unravel_index(inside.argmax(), inside.shape))
    return slice(top, top + high), slice(left, left + wide)


def edge_overlay(rgb: Float32[np.ndarray, "h w"], nir: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Strength of RGB's edges as red, of NIR's as green and blue; each stretched to its strongest percent."""
    red, cyan = ((edges / max(float(np.quantile(edges, 0.99)), 1e-6)).clip(0, 1) for edges in (rgb, nir))
    return np.rint(np.stack([red, cyan, cyan], axis=2) * 255).astype(np.uint8)


def _to_8_bits(picture: Rgb | Shaped[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """16-bit pictures are stretched to their brightest percent: sensors of 12 bits would look black."""
    if picture.dtype == np.uint8:
        return picture
    white = max(float(np.quantile(picture, 0.99)), full_scale(picture.dtype) / 256)
    return np.rint((picture / white).clip(0, 1) * 255).astype(np.uint8)
