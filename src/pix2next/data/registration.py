"""How well an RGB and a NIR picture lie on one another, judged by their edges.

Near infrared turns grass white and sky black, so pixel values say little; but an object's outline is an outline in
both. The strength of edges (gradient magnitude, which does not care about the sign of a step) is therefore compared.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Shaped

from pix2next.images import full_scale

SEARCH = 16
"""Shifts are sought this many pixels to every side (less in small pictures)."""
LONGEST_SIDE = 1024
"""Larger pictures are halved until they fit; shifts are reported in pixels of the file."""

_SMALLEST_SIDE = 8


class Registration(NamedTuple):
    """Edges of NIR against edges of RGB. Correlations are Pearson's, in [-1, 1]; 0 is what unrelated pictures get."""

    edges: float
    """At no shift."""
    best: float
    """At the best shift found."""
    right: float
    """How many pixels the NIR content lies to the right of the RGB content, at the best shift."""
    down: float
    """The same downwards."""

    @property
    def shift(self) -> float:
        """Length of the best shift in pixels."""
        return float(np.hypot(self.right, self.down))

    @property
    def is_shifted(self) -> bool:
        """Whether the pair is off: another place fits clearly better, and well enough to be no accident.

        The best of a thousand places reaches 0.1 to 0.2 for unrelated pictures; real pairs have 0.3 and more.
        """
        return self.shift >= 1 and self.best >= 0.3 and self.best - self.edges >= 0.02


def edge_strength(picture: Shaped[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Gradient magnitude of the slightly blurred picture, on the scale where white is 1; logarithmic above noise.

    The logarithm keeps one hard edge (a roof against the sky) from outweighing all others.
    """
    scaled = picture.astype(np.float32) / np.float32(full_scale(picture.dtype))
    blurred = cv2.GaussianBlur(scaled, (0, 0), 1.0, borderType=cv2.BORDER_REPLICATE)
    across, down = (cv2.Sobel(blurred, cv2.CV_32F, dx, 1 - dx, borderType=cv2.BORDER_REPLICATE) for dx in (1, 0))
    strength: Float32[np.ndarray, "h w"] = np.log1p(cv2.magnitude(across, down) * 20).astype(np.float32)
    return strength


def register(
    grey: Shaped[np.ndarray, "h w"], nir: Shaped[np.ndarray, "h w"], search: int = SEARCH
) -> Registration | None:
    """Compare edges at every shift up to `search` pixels; None where a picture is too small or has no edges.

    The inner part of the NIR edges, `search` pixels off every border, is moved over the RGB edges: each shift is judged
    on the same number of pixels, none of them made up. The best is refined to a fraction of a pixel by a parabola.
    """
    scale = 1
    while max(grey.shape) > LONGEST_SIDE * scale:
        scale *= 2
    size = (max(grey.shape[1] // scale, 1), max(grey.shape[0] // scale, 1))
    rgb_edges, nir_edges = (
        edge_strength(cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if scale > 1 else picture)
        for picture in (grey, nir)
    )
    reach = min(search, min(size) // 4)
    inner = nir_edges[reach : size[1] - reach, reach : size[0] - reach]
    if min(size) < _SMALLEST_SIDE or inner.std() < 1e-4 or rgb_edges.std() < 1e-4:
        return None
    map_ = cv2.matchTemplate(rgb_edges, inner, cv2.TM_CCOEFF_NORMED)
    map_[~np.isfinite(map_)] = 0  # A window of RGB without any edge.
    top, left = map(int, np.unravel_index(map_.argmax(), map_.shape))
    right = reach - left - _vertex(map_[top], left)
    down = reach - top - _vertex(map_[:, left], top)
    return Registration(float(map_[reach, reach]), float(map_[top, left]), float(right * scale), float(down * scale))


def _vertex(line: Float32[np.ndarray, "n"], at: int) -> float:
    """Where a parabola through a maximum and its neighbours peaks, relative to it: within half a pixel; 0 at an end."""
    if not 0 < at < len(line) - 1:
        return 0.0
    before, peak, after = (float(value) for value in line[at - 1 : at + 2])
    bend = before - 2 * peak + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0
