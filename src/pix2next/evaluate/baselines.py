"""What any translation has to beat: grey, a colour as it is, the best mixture of the colours, boosted trees."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pix2next.data.pairs import Pair, load_pair
from pix2next.evaluate.boosted import EXTRA, BoostedMap, can_boost, in_depth_of
from pix2next.images import Nir, Rgb, full_scale, luma

BASELINES = ("luma", "linear")
"""What stands beside every score."""
CHANNELS = ("red", "green", "blue")
EVERY_BASELINE = ("luma", *CHANNELS, "linear", "boosted")
"""What stands beside a comparison, the boosted trees only where scikit-learn is installed."""


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
        return in_depth_of(rgb, (_with_ones(rgb) @ np.array(self)).reshape(rgb.shape[:2]))


def _with_ones(rgb: Rgb) -> Float[np.ndarray, "pixels 4"]:
    """A row a pixel: red, green, blue on the scale where white is 1, and 1 for the offset."""
    colours = rgb.reshape(-1, 3) / full_scale(rgb.dtype)
    return np.concatenate([colours, np.ones((len(colours), 1))], axis=1)


@dataclass(frozen=True)
class Baselines:
    """What the baselines make of each scored picture; no picture is given a map that was fitted on it, unless alone."""

    maps: Sequence[LinearMap]
    map_of: Mapping[str, int]
    """Which map a picture is given, by the name of its pair."""
    fitted_on: str
    names: tuple[str, ...] = BASELINES
    """Those of `EVERY_BASELINE` that are wanted."""
    boosted: Sequence[BoostedMap] = ()
    """Beside `maps`, if they are wanted."""

    @classmethod
    def fit(cls, scored: Sequence[Pair], train: Sequence[Pair], names: Sequence[str] = BASELINES) -> "Baselines":
        """On the train split; without one, two maps, each for the half that the other was fitted on.

        Raises: ImageError or PairError from pictures that cannot be used.
        """
        if train:
            fitted_on = f"{len(train)} pictures of {_folder_of(train)}"
            folds, map_of = [train], {pair.name: 0 for pair in scored}
        elif len(scored) == 1:
            fitted_on = "the scored picture itself, there being no other"
            folds, map_of = [scored], {scored[0].name: 0}
        else:
            fitted_on = (
                "the scored pictures in two halves, each scored with the other's map, there being no train split"
            )
            folds = [scored[::2], scored[1::2]]
            map_of = {pair.name: 1 - half for half, pairs in enumerate(folds) for pair in pairs}
        boosted = [BoostedMap.fit(pairs) for pairs in folds] if "boosted" in names else []
        return cls([_fit(pairs) for pairs in folds], map_of, fitted_on, tuple(names), boosted)

    def of(self, pair: Pair, rgb: Rgb) -> dict[str, Nir]:
        """Every wanted baseline's picture by its name."""
        return {name: self._made(name, self.map_of[pair.name], rgb) for name in self.names}

    def note(self) -> dict[str, object]:
        """What the maps were fitted on, and the linear one's weights."""
        return {"fitted_on": self.fitted_on, "maps": [fitted._asdict() for fitted in self.maps]}

    def _made(self, name: str, fold: int, rgb: Rgb) -> Nir:
        match name:
            case "luma":
                return luma(rgb)
            case "linear":
                return self.maps[fold].apply(rgb)
            case "boosted":
                return self.boosted[fold].apply(rgb)
        return np.ascontiguousarray(rgb[..., CHANNELS.index(name)])


def baselines_to_be_had() -> tuple[tuple[str, ...], list[str]]:
    """Names of the baselines that can be computed here, and why one cannot."""
    if can_boost():
        return EVERY_BASELINE, []
    without = tuple(name for name in EVERY_BASELINE if name != "boosted")
    return without, [f"no boosted baseline: it needs scikit-learn (pip install 'pix2next[{EXTRA}]')"]


def _fit(pairs: Sequence[Pair]) -> LinearMap:
    return LinearMap.fit(load_pair(pair) for pair in pairs)


def _folder_of(pairs: Sequence[Pair]) -> str:
    """`outdoor/train` for `.../outdoor/train/rgb/x.png`."""
    depth = len(Path(pairs[0].name).parts)
    return "/".join(pairs[0].rgb.resolve().parts[-depth - 3 : -depth - 1])
