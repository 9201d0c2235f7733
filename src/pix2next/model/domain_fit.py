"""Statistics of training pictures, fitted for `pix2next.model.domain`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from pix2next.errors import ConfigError, ImageError
from pix2next.images import find_pictures, read_rgb
from pix2next.model.domain import QUANTILE, SMALLEST, Domain, Features, Normal, pooled
from pix2next.model.features import Vfm
from pix2next.model.pix2next import Pix2Next

RANK = 32
"""Principal axes that are kept."""
FEWEST = 20
"""Pictures: of fewer, one in twenty says nothing."""
_LEAST = 0.01
"""Of the average deviation, and of the average variance: what no training picture varied in is no reason for a large
distance."""


def fit_domain(model: Pix2Next, training: Path, held_out: Path) -> Domain:
    """Fit to all RGB pictures below one folder; the distance that counts as 1 comes from those below the other.

    Those held out should be of the same kind from other places, as a `val` split is. About one in twenty pictures of
    that kind is then called unlike. To attach it: `model.save(path, card={DOMAIN: domain.to_metadata()})`.

    Raises:
        ConfigError: the network has no VFM, or a folder holds fewer than `FEWEST` pictures.
        ImageError: a picture cannot be read, or is smaller than `SMALLEST`.
    """
    if model.vfm is None:
        raise ConfigError("statistics of pictures are made of a VFM's features, and this network has none (model.vfm)")
    folders = [_enough(folder) for folder in (training, held_out)]
    seen, apart = ([_features(model.vfm, path) for path in paths] for paths in folders)
    parts = {part: fit_normal(np.concatenate([features[part] for features in seen])) for part in seen[0]}
    return with_units(Domain(parts, len(seen), len(apart)), apart)


def _enough(folder: Path) -> list[Path]:
    found = sorted(find_pictures(folder))
    if len(found) < FEWEST:
        raise ConfigError(f"{folder} holds {len(found)} pictures; statistics need at least {FEWEST}")
    return found


def _features(vfm: Vfm, path: Path) -> Features:
    (features,) = pooled(vfm, [read_rgb(path)])
    if not features:
        raise ImageError(f"{path} is smaller than {SMALLEST} pixels; statistics need larger pictures")
    return features


def fit_normal(features: Float64[np.ndarray, "n d"], rank: int = RANK) -> Normal:
    """Fit mean, deviations, the `rank` largest axes, no more than half as many as there are rows, and the rest."""
    count, size = features.shape
    deviations = features.std(axis=0)
    scale = np.maximum(deviations, _LEAST * deviations.mean() + np.finfo(np.float32).tiny)
    mean = features.mean(axis=0)
    _, values, axes = np.linalg.svd((features - mean) / scale, full_matrices=False)
    rank = min(rank, size, max(1, count // 2))
    variances = values**2 / count
    across = variances[rank:].sum() / max(size - rank, 1)
    return Normal(mean, scale, axes[:rank].T, np.maximum(variances[:rank], _LEAST), max(float(across), _LEAST))


def with_units(domain: Domain, apart: Sequence[Features]) -> Domain:
    """The same with units so that `QUANTILE` of these pictures have a distance below 1.

    First content and look are made comparable, each by its own quantile; then both are stretched together, since a
    picture is unlike the others if it is in one of them.
    """
    own = {
        part: np.quantile(np.concatenate([normal.distance(features[part]) for features in apart]), QUANTILE)
        for part, normal in domain.parts.items()
    }
    scaled = _times(domain, own)
    both = np.quantile([scaled.distance(features).greatest for features in apart], QUANTILE)
    return _times(scaled, dict.fromkeys(own, both))


def _times(domain: Domain, factors: Mapping[str, float]) -> Domain:
    parts = {part: replace(it, unit=float(it.unit * factors[part])) for part, it in domain.parts.items()}
    return replace(domain, parts=parts)
