"""What any translation has to beat: grey, and the best linear mixture of the colours."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pix2next.images import Nir, Rgb, full_scale
from pix2next.images import luma as luma

__all__ = ["LinearMap", "luma"]


class LinearMap(NamedTuple):
    """NIR as red, green and blue times a weight each, plus an offset; all on the scale where white is 1."""

    red: float
    green: float
    blue: float
    offset: float

    @classmethod
    def fit(cls, pairs: Iterable[tuple[Rgb, Nir]]) -> "LinearMap":
        """Least squares over every pixel of the pairs, one pair in memory at a time.

        Where the colours leave the mixture open (grey pictures), the smallest weights are taken; no pair gives zeros.
        """
        products, sums = np.zeros((4, 4)), np.zeros(4)
        for rgb, nir in pairs:
            colours, target = _with_ones(rgb), nir.reshape(-1) / full_scale(nir.dtype)
            products += colours.T @ colours
            sums += colours.T @ target
        return cls(*np.linalg.lstsq(products, sums, rcond=1e-10)[0].tolist())

    def apply(self, rgb: Rgb) -> Nir:
        """The mixture, in the picture's depth: cut off at black and white, and rounded for integers."""
        scale = full_scale(rgb.dtype)
        mixed = (_with_ones(rgb) @ np.array(self)).reshape(rgb.shape[:2]).clip(0, 1) * scale
        return (mixed.round() if np.issubdtype(rgb.dtype, np.integer) else mixed).astype(rgb.dtype)


def _with_ones(rgb: Rgb) -> Float[np.ndarray, "pixels 4"]:
    """A row a pixel: red, green, blue on the scale where white is 1, and 1 for the offset."""
    colours = rgb.reshape(-1, 3) / full_scale(rgb.dtype)
    return np.concatenate([colours, np.ones((len(colours), 1))], axis=1)
