"""How far a set of made pictures is from the set of true ones, in the features of a network.

A set is an array with a row of features per picture, and every score a pure function of two of them, computed in
float64. None depends on the order of the rows beyond the last digits, and nothing is drawn at random. A set that is
too small for a score has NaN.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

Features = Float[np.ndarray, "_ d"]

NEIGHBOURS = 3
CMMD_SIGMA = 10.0
CMMD_SCALE = 1000.0
_ROWS = 1024
"""Rows of a table of distances that are held at a time."""


def frechet_distance(fake: Features, nir: Features) -> float:
    """Fréchet distance of two sets taken as Gaussians: 0 when equal. FID, for features of Inception.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), covariances with n - 1. The distance is biased upwards in small sets:
    compare it only between sets of the same pictures.

    Source: Heusel et al. (arXiv:1706.08500), eq. 6.
    """
    if min(len(fake), len(nir)) < 2:
        return float("nan")
    (mean_x, root_x), (mean_y, root_y) = _root_of_covariance(fake), _root_of_covariance(nir)
    # With C = R'R, the trace of (C1 C2)^(1/2) is the sum of the singular values of R1 R2'; R may have n or d rows.
    overlap = np.linalg.svd(root_x @ root_y.T, compute_uv=False).sum()
    spread = (root_x**2).sum() + (root_y**2).sum() - 2 * overlap
    return max(float(((mean_x - mean_y) ** 2).sum() + spread), 0.0)


def rank_deficient(count: int, width: int) -> bool:
    """Whether the covariance of so many pictures' features has lost directions: it has one rank less than pictures.

    Such a Fréchet distance is biased upwards, the more the fewer pictures there are.
    """
    return count <= width


def _root_of_covariance(features: Features) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "k d"]]:
    """The mean, and a matrix R, of at most as many rows as columns, with R'R the covariance."""
    exact = features.astype(np.float64)
    mean = exact.mean(axis=0)
    root = (exact - mean) / np.sqrt(len(exact) - 1)
    if len(root) > root.shape[1]:
        root = np.linalg.qr(root, mode="r")
    return mean, root


def kernel_distance(fake: Features, nir: Features) -> float:
    """Squared maximum mean discrepancy with the kernel (x . y / d + 1)^3, without bias: about 0 for like sets.

    KID, for features of Inception. The unbiased estimate over all pairs of pictures (it may be negative), which the
    customary mean over random subsets approaches; often printed times 100 or 1000, here as it is.

    Source: Binkowski et al., "Demystifying MMD GANs" (arXiv:1801.01401), sec. 4.
    """
    if min(len(fake), len(nir)) < 2:
        return float("nan")

    def within(x: Features) -> float:
        count = len(x)
        diagonal = ((x.astype(np.float64) ** 2).sum(axis=1) / x.shape[1] + 1) ** 3
        return (_cubic(x, x) - float(diagonal.sum())) / (count * (count - 1))

    return within(fake) + within(nir) - 2 * _cubic(fake, nir) / (len(fake) * len(nir))


def precision(fake: Features, nir: Features) -> float:
    """Share of made pictures that lie among the true ones: 1 when every one looks true, 0 when none does.

    Among means: no farther from some true picture than that one's third-nearest other true picture.

    Source: Kynkäänniemi et al., "Improved Precision and Recall Metric" (arXiv:1904.06991), k = 3 (there: VGG16).
    """
    return _covered(fake, nir)


def recall(fake: Features, nir: Features) -> float:
    """Share of true pictures that lie among the made ones: `precision` with the two sets exchanged."""
    return _covered(nir, fake)


def gaussian_kernel_distance(fake: Features, nir: Features) -> float:
    """Squared maximum mean discrepancy with a Gaussian kernel of sigma 10, times 1000: 0 when equal.

    CMMD, for image embeddings of CLIP of length one. The estimate with each picture's distance to itself, as published.

    Source: Jayasumana et al., "Rethinking FID" (arXiv:2401.09603), sec. 4.
    """

    def mean_kernel(x: Features, y: Features) -> float:
        total = sum(float(np.exp(-squared / (2 * CMMD_SIGMA**2)).sum()) for squared in _squared_distances(x, y))
        return total / (len(x) * len(y))

    return CMMD_SCALE * (mean_kernel(fake, fake) + mean_kernel(nir, nir) - 2 * mean_kernel(fake, nir))


def _cubic(x: Features, y: Features) -> float:
    """The sum of KID's kernel over all pairs."""
    columns = y.astype(np.float64).T / y.shape[1]
    parts = (x[start : start + _ROWS].astype(np.float64) for start in range(0, len(x), _ROWS))
    return sum(float(((part @ columns + 1) ** 3).sum()) for part in parts)


def _covered(points: Features, support: Features) -> float:
    """The share of `points` within reach of `support`, whose every point reaches to its k-th nearest other."""
    if len(support) <= NEIGHBOURS:
        return float("nan")
    # Each point is its own nearest, at index 0.
    near = [np.partition(d, NEIGHBOURS, axis=1)[:, NEIGHBOURS] for d in _squared_distances(support, support)]
    reach = np.concatenate(near)
    inside = [(d <= reach).any(axis=1) for d in _squared_distances(points, support)]
    return float(np.concatenate(inside).mean())


def _squared_distances(x: Features, y: Features) -> Iterator[Float[np.ndarray, "rows m"]]:
    """From every row of x to every row of y, some rows of x at a time."""
    y = y.astype(np.float64)
    norms = (y**2).sum(axis=1)
    for start in range(0, len(x), _ROWS):
        part = x[start : start + _ROWS].astype(np.float64)
        yield ((part**2).sum(axis=1)[:, None] + norms - 2 * part @ y.T).clip(min=0)
