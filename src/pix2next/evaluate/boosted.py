"""A per-pixel map of colour and surroundings to NIR by boosted trees: what can be learned without a network."""

import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float

from pix2next.data.pairs import Pair, load_pair
from pix2next.images import Nir, Rgb, full_scale

PIXELS = 200_000
"""Of all training pictures together that trees are grown on."""
TREES, LEAVES, RATE = 60, 31, 0.2
BLURS = (0.01, 0.05)
"""Standard deviations of the blurs, as shares of the picture's shorter side."""
_ROWS = 2**20
"""Pixels that pass the trees at a time, so that a large picture's features do not fill memory."""
EXTRA = "compare"
"""Of the package's optional dependencies, the one with scikit-learn."""


def can_boost() -> bool:
    """Whether scikit-learn, which is optional, is installed."""
    return find_spec("sklearn") is not None


class BoostedMap:
    """NIR of a pixel's red, green and blue, the same blurred narrowly and widely, and its height in the picture.

    Height stands for what is where in photographs: sky above, ground below.
    """

    def __init__(self, trees: Any) -> None:
        """`trees` predict values on the scale where white is 1."""
        self.trees = trees

    @classmethod
    def fit(cls, pairs: Sequence[Pair]) -> "BoostedMap":
        """On as many pixels of each pair, drawn from a fixed seed; one pair in memory at a time.

        The same pairs in the same order give the same map. Raises: ImageError or PairError from pictures that cannot
        be used.
        """
        from sklearn.ensemble import HistGradientBoostingRegressor

        rng, each = np.random.default_rng(0), max(1, PIXELS // len(pairs))
        rows, targets = [], []
        for pair in pairs:
            rgb, nir = load_pair(pair)
            chosen = np.sort(rng.choice(nir.size, min(each, nir.size), replace=False))
            rows.append(pixel_features(rgb)[chosen])
            targets.append(nir.reshape(-1)[chosen] / full_scale(nir.dtype))
        trees = HistGradientBoostingRegressor(
            max_iter=TREES, max_leaf_nodes=LEAVES, learning_rate=RATE, early_stopping=False, random_state=0
        )
        return cls(trees.fit(np.concatenate(rows), np.concatenate(targets)))

    def apply(self, rgb: Rgb) -> Nir:
        """The prediction in the picture's depth: cut off at black and white, and rounded for integers."""
        rows = pixel_features(rgb)
        values = [self.trees.predict(rows[start : start + _ROWS]) for start in range(0, len(rows), _ROWS)]
        return in_depth_of(rgb, np.concatenate(values).reshape(rgb.shape[:2]))


def boosted_operations(side: int) -> int:
    """About how many operations a square picture takes: comparisons in the trees, and the blurs."""
    comparisons = TREES * math.log2(LEAVES)
    # Each blur passes rows, then columns, with a kernel of 8 standard deviations, for 3 colours.
    blurs = sum(2 * 2 * 3 * 8 * share * side for share in BLURS)
    return round((comparisons + blurs) * side**2)


BOOSTED_PARAMETERS = TREES * (LEAVES + 2 * (LEAVES - 1))
"""At most: the leaves' values, and which feature is compared with what on the way to them."""


def pixel_features(rgb: Rgb) -> Float[np.ndarray, "pixels 10"]:
    """A row a pixel: colour, two blurred colours, and the height from 0 at the top to 1 at the bottom."""
    colours = rgb.astype(np.float32) / np.float32(full_scale(rgb.dtype))
    height, width = rgb.shape[:2]
    blurred = [cv2.GaussianBlur(colours, (0, 0), max(0.5, share * min(height, width))) for share in BLURS]
    heights = np.linspace(0, 1, height, dtype=np.float32)[:, None, None].repeat(width, axis=1)
    return np.concatenate([colours, *blurred, heights], axis=2).reshape(height * width, -1)


def in_depth_of(rgb: Rgb, values: Float[np.ndarray, "h w"]) -> Nir:
    """Values on the scale where white is 1 as a picture of the depth of `rgb`, cut off and rounded."""
    scaled = values.clip(0, 1) * full_scale(rgb.dtype)
    return (scaled.round() if np.issubdtype(rgb.dtype, np.integer) else scaled).astype(rgb.dtype)
