"""One picture after another to scores, and the scores of many to means, intervals and tests.

A `Scorer` holds networks and nothing else. What the metrics of whole sets need of a picture (one row of features a
network, 3 KB for FID-768) is kept with its scores, so a caller may leave out a picture that failed, score in any order
and on several machines, and take the means of any selection.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pix2next.errors import PairError
from pix2next.evaluate.distributions import (
    Features,
    frechet_distance,
    gaussian_kernel_distance,
    kernel_distance,
    precision,
    rank_deficient,
    recall,
)
from pix2next.evaluate.embeddings import Inception, Resize, clip, dinov2
from pix2next.evaluate.metrics import DEFAULT_METRICS, METRICS, Sees, full_names
from pix2next.evaluate.perceptual import DISTS, LPIPS, Square, unit_tensor
from pix2next.evaluate.pixelwise import Picture, ndvi_error
from pix2next.evaluate.pretrained import fingerprint
from pix2next.evaluate.protocols import DEFAULT_PROTOCOL, PairScore, protocol_named
from pix2next.evaluate.uncertainty import (
    Interval,
    PairedTest,
    bootstrap_interval,
    known,
    paired_difference,
    set_interval,
)
from pix2next.images import Nir, Rgb

Values = dict[str, float | None]
"""Metric, value; None where it has none."""
Row = Float[np.ndarray, " d"]

TRUTH = "truth"
"""Whose features stand beside the methods' in `PictureScores.features`; no method may be called so."""


@dataclass(frozen=True)
class Example:
    """One picture to score: the truth, and what each method made of it."""

    name: str
    nir: Nir
    fakes: Mapping[str, Nir]
    rgb: Rgb | None = None
    """What the methods were given; only the metrics of vegetation ask for it."""


@dataclass(frozen=True)
class PictureScores:
    """One picture's scores."""

    name: str
    width: int
    height: int
    scores: dict[str, Values]
    """Method, metric, value; the metrics of whole sets are not among them."""
    features: Mapping[str, Mapping[str, Row]] = field(default_factory=dict, repr=False, compare=False)
    """Network, method (and `TRUTH`), row: what the metrics of whole sets are computed from. Not for files."""


class Scorer:
    """The chosen metrics with their networks, under one protocol.

    `metrics` are names of `METRICS`; networks are only loaded for those that need one, onto `device`.

    Raises: ConfigError for a metric or protocol that is not known; WeightsError when a network is not to be had.
    """

    def __init__(
        self,
        metrics: Sequence[str] = DEFAULT_METRICS,
        protocol: str = DEFAULT_PROTOCOL,
        device: str | torch.device = "cpu",
    ) -> None:
        self.metrics = full_names(metrics)
        self.protocol = protocol_named(protocol)
        self.device = torch.device(device)
        self.of_pictures = tuple(name for name in self.metrics if not METRICS[name].least)
        released = self.protocol.released
        self.pair_networks: dict[str, Any] = {
            name: make().to(self.device) for name in self.of_pictures if (make := _pair_network(name, released))
        }
        self.of_sets = {name: _of_sets(name, released) for name in self.metrics if METRICS[name].least}
        needed = {of_set.network: of_set for of_set in self.of_sets.values()}
        self.set_networks: dict[str, Any] = {name: each.make().to(self.device) for name, each in needed.items()}
        self.sees = {name: each.sees for name, each in needed.items()}

    @torch.inference_mode()
    def score(self, example: Example) -> PictureScores:
        """The metrics of every method on one picture; the truth passes each network once.

        Nothing is remembered: what the metrics of whole sets need comes back with the scores.

        Raises: PairError when a picture is not of the truth's size.
        """
        _check(example)
        scores: dict[str, Values] = {method: dict.fromkeys(self.of_pictures) for method in example.fakes}
        pictures = {TRUTH: example.nir, **example.fakes}
        pixels = {who: self.protocol.pixels(picture) for who, picture in pictures.items()}
        for name, function in self._pixelwise(example).items():
            for method in example.fakes:
                scores[method][name] = _finite(function(pixels[method], pixels[TRUTH]))
        features: dict[str, dict[str, Row]] = {}
        if self.pair_networks or self.set_networks:
            with _exactly():
                squares = {who: self.protocol.square(picture).to(self.device) for who, picture in pictures.items()}
                for name, network in self.pair_networks.items():
                    for method, distance in _distances(network, squares).items():
                        scores[method][name] = distance
                for name, network in self.set_networks.items():
                    seen = squares if self.sees[name] == "square" else self._as_tensors(pixels)
                    features[name] = {who: network.features(x)[0].cpu().numpy() for who, x in seen.items()}
        height, width = example.nir.shape
        return PictureScores(example.name, width, height, scores, features)

    def mean(self, pictures: Sequence[PictureScores]) -> tuple[dict[str, Values], list[str]]:
        """Method, metric, value over these pictures, in any order, and why a value is missing."""
        means: dict[str, Values] = {}
        for method in _methods(pictures):
            means[method] = {name: self._mean(name, method, pictures) for name in self.metrics}
        return means, self._notes(means, pictures)

    def intervals(
        self, pictures: Sequence[PictureScores], level: float = 0.95
    ) -> dict[str, dict[str, Interval | None]]:
        """Method, metric, interval of the mean (or of the set's value); None where it has none."""
        return {
            method: {name: self._interval(name, method, pictures, level) for name in self.metrics}
            for method in _methods(pictures)
        }

    def paired(self, pictures: Sequence[PictureScores]) -> dict[str, dict[str, dict[str, PairedTest | None]]]:
        """Method a, method b, metric, test of a - b on the same pictures; metrics of whole sets have none."""
        tests: dict[str, dict[str, dict[str, PairedTest | None]]] = {}
        for a, b in combinations(_methods(pictures), 2):
            tests.setdefault(a, {})[b] = {
                name: known(paired_difference(_column(name, a, pictures), _column(name, b, pictures)))
                for name in self.of_pictures
            }
        return tests

    def describe(self) -> dict[str, str]:
        """What each metric's values are, in words, with the weights they were computed with."""
        networks = {**self.pair_networks, **self.set_networks}
        weights = {name: f"; weights {each.source}, fingerprint {fingerprint(each)}" for name, each in networks.items()}
        used = {name: self.of_sets[name].network if name in self.of_sets else name for name in self.metrics}
        return {name: self.protocol.describe(name) + weights.get(used[name], "") for name in self.metrics}

    def _pixelwise(self, example: Example) -> dict[str, PairScore]:
        """The chosen functions of two pictures; NDVI's is one once it has the red channel."""
        functions = {name: self.protocol.pixelwise[name] for name in self.metrics if name in self.protocol.pixelwise}
        if "ndvi" in self.metrics and example.rgb is not None:
            functions["ndvi"] = partial(ndvi_error, self.protocol.pixels(np.ascontiguousarray(example.rgb[..., 0])))
        return functions

    def _as_tensors(self, pictures: Mapping[str, Picture]) -> dict[str, Float[Tensor, "1 1 _ _"]]:
        return {who: unit_tensor(picture).to(self.device) for who, picture in pictures.items()}

    def _mean(self, name: str, method: str, pictures: Sequence[PictureScores]) -> float | None:
        if name in self.of_sets:
            return _finite(self._score_of_set(name, method, pictures)(np.arange(len(pictures))))
        column = [value for value in _column(name, method, pictures) if value is not None]
        return math.fsum(column) / len(column) if len(column) == len(pictures) else None

    def _interval(self, name: str, method: str, pictures: Sequence[PictureScores], level: float) -> Interval | None:
        if name in self.of_sets:
            return known(set_interval(self._score_of_set(name, method, pictures), len(pictures), level=level))
        return known(bootstrap_interval(_column(name, method, pictures), level=level))

    def _score_of_set(
        self, name: str, method: str, pictures: Sequence[PictureScores]
    ) -> Callable[[Int[np.ndarray, " k"]], float]:
        """A function of which pictures to use, counted in the order of their names."""
        of_set, ordered = self.of_sets[name], sorted(pictures, key=lambda picture: picture.name)
        fake, nir = (np.stack([p.features[of_set.network][who] for p in ordered]) for who in (method, TRUTH))
        return lambda chosen: of_set.distance(fake[chosen], nir[chosen])

    def _notes(self, means: Mapping[str, Values], pictures: Sequence[PictureScores]) -> list[str]:
        """Why values are missing, and which are not to be trusted."""
        count, notes = len(pictures), []
        for name, of_set in self.of_sets.items():
            metric = METRICS[name]
            if count < metric.least:
                notes.append(f"no {metric.label}: it needs at least {metric.least} pictures, and there is {count}")
            elif of_set.distance is frechet_distance:
                width = len(pictures[0].features[of_set.network][TRUTH])
                notes += [_few_for_frechet(metric.label, count, width)] if rank_deficient(count, width) else []
        notes += [
            f"no mean {METRICS[name].label} of {method}: {METRICS[name].missing}"
            for method, values in means.items()
            for name in self.of_pictures
            if values[name] is None
        ]
        return notes


@dataclass(frozen=True)
class _OfSets:
    """A metric of whole sets: a network's features, and the distance of two sets of them."""

    network: str
    make: Callable[[], nn.Module]
    sees: Sees
    distance: Callable[[Features, Features], float]


def _pair_network(name: str, released: bool) -> Callable[[], nn.Module] | None:
    match name:
        case "lpips":
            return partial(LPIPS, "alex", released)
        case "lpips-vgg":
            return partial(LPIPS, "vgg", released)
        case "dists":
            return DISTS
    return None


def _of_sets(name: str, released: bool) -> _OfSets:
    sees = METRICS[name].sees
    match name:
        case "fd-dinov2":
            return _OfSets("dinov2", dinov2, sees, frechet_distance)
        case "cmmd":
            return _OfSets("clip", clip, sees, gaussian_kernel_distance)
    kind, width = name.rsplit("-", 1)
    resize: Resize = "clean" if kind.startswith("clean-") else "released" if released else "bilinear"
    distance = {
        "fid": frechet_distance,
        "kid": kernel_distance,
        "precision": precision,
        "recall": recall,
    }[kind.removeprefix("clean-")]
    return _OfSets(f"inception-{width}-{resize}", partial(Inception, int(width), resize), sees, distance)


def _distances(network: Any, squares: Mapping[str, Square]) -> dict[str, float]:
    """From the truth to every method's picture."""
    truth = network.features(squares[TRUTH])
    methods = (method for method in squares if method != TRUTH)
    return {method: network.distance(network.features(squares[method]), truth).item() for method in methods}


@contextmanager
def _exactly() -> Iterator[None]:
    """Plain float32 whatever the caller has switched on, so that scores do not depend on the device."""
    precision_before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    cudnn = torch.backends.cudnn
    try:
        with (
            cudnn.flags(enabled=cudnn.enabled, deterministic=True, allow_tf32=False),
            torch.autocast("cuda", enabled=False),
            torch.autocast("cpu", enabled=False),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(precision_before)


def _few_for_frechet(label: str, count: int, width: int) -> str:
    return (
        f"{label} of {count} pictures is biased upwards: their covariance in {width} features is rank-deficient up to "
        f"{width} pictures; compare it only with values of the same pictures"
    )


def _check(example: Example) -> None:
    assert TRUTH not in example.fakes, f"no method may be called '{TRUTH}'"
    height, width = example.nir.shape
    given = {**example.fakes, **({} if example.rgb is None else {"the RGB picture": example.rgb[..., 0]})}
    for method, picture in given.items():
        if picture.shape != (height, width):
            sides = f"{picture.shape[1]} x {picture.shape[0]} pixels, and the truth has {width} x {height}"
            made = "has" if method == "the RGB picture" else "made"
            raise PairError(f"{example.name}: {method} {made} {sides}")


def _methods(pictures: Sequence[PictureScores]) -> list[str]:
    return list(pictures[0].scores) if pictures else []


def _column(name: str, method: str, pictures: Sequence[PictureScores]) -> list[float | None]:
    return [picture.scores[method][name] for picture in pictures]


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None
