"""How far a picture is from those that a network was trained on, as its VFM sees it: for a warning, not as a proof.

Pictures are compared in two ways, each with a normal distribution fitted to the training pictures:

* `content`, what is in them: means over space of the VFM's maps at stride 16 and coarser;
* `look`, their colours, light, sharpness and noise: means and deviations of the finer maps.

A distribution has variances of its own along its largest principal axes and one for all other directions, and its
distance is Mahalanobis's, in units that 95 % of held-out pictures stay below. That tells another kind of picture and
a strong change of light or colour. It does not tell whether a translation is right, and does not notice what leaves
these statistics as they are: a picture upside down, or a material that only looks like a familiar one.

Source: distance to training features, Lee et al. (arXiv:1807.03888), sec. 2; the covariance, Tipping and Bishop,
"Probabilistic Principal Component Analysis" (1999), sec. 3. Fitted by `pix2next.model.domain_fit`.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from pix2next.errors import WeightsError, one_line
from pix2next.images import ValueRange, pad_to_multiple, to_model_range
from pix2next.model.features import Vfm

DOMAIN = "domain_statistics"
"""The key in a checkpoint's metadata."""
SIDE = 256
"""Of what goes through the VFM."""
SMALLEST = 128
"""Of pictures with a shorter long side than this, statistics say more about their size than about them."""
COARSE = 16
QUANTILE = 0.95
_FORMAT = 1

Features = Mapping[str, Float64[np.ndarray, "views _"]]
"""By part."""


class Distance(NamedTuple):
    """From the training pictures; 1 is what 95 % of held-out ones stay below. 0 where the VFM has no such maps."""

    content: float
    look: float

    @property
    def greatest(self) -> float:
        """Of the two; above 1 the picture is unlike those of the training."""
        return max(self)

    @property
    def unlike(self) -> bool:
        """Whether to warn."""
        return self.greatest > 1

    @property
    def part(self) -> str:
        """In what it is further away."""
        return "content" if self.content >= self.look else "look"


@dataclass(frozen=True, eq=False)
class Normal:
    """A normal distribution of features, and the distance that counts as 1."""

    mean: Float64[np.ndarray, "d"]
    scale: Float64[np.ndarray, "d"]
    """Deviation of each feature, by which it is divided first."""
    axes: Float64[np.ndarray, "d k"]
    variances: Float64[np.ndarray, "k"]
    """Along the axes."""
    rest: float
    """Variance in every direction across them."""
    unit: float = 1.0

    def distance(self, features: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n"]:
        """Mahalanobis's, divided by the root of the number of features and by the unit."""
        scaled = (features - self.mean) / self.scale
        along = scaled @ self.axes
        across = np.maximum((scaled**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        squares = (along**2 / self.variances).sum(axis=1) + across / self.rest
        return np.sqrt(squares / len(self.mean)) / self.unit


@dataclass(frozen=True, eq=False)
class Domain:
    """What a network's training pictures were like."""

    parts: Mapping[str, Normal]
    """`content` and `look`, or one of them."""
    pictures: int
    """That it was fitted to."""
    held_out: int
    """That its units come from."""

    def distance(self, features: Features) -> Distance:
        """Of the view that is nearest: a picture is unlike the others only if all its views are."""
        rows = {part: normal.distance(features[part]) for part, normal in self.parts.items()}
        none = np.zeros(len(next(iter(rows.values()))))
        content, look = (rows.get(part, none) for part in Distance._fields)
        nearest = np.maximum(content, look).argmin()
        return Distance(float(content[nearest]), float(look[nearest]))

    def to_metadata(self) -> str:
        """The value of `DOMAIN`: JSON with arrays in base64, the axes in half precision; 63 kB for tiny networks."""
        parts = {
            name: {
                **{key: _packed(getattr(normal, key), np.float32) for key in ("mean", "scale", "variances")},
                "axes": _packed(normal.axes, np.float16),
                "rest": normal.rest,
                "unit": normal.unit,
            }
            for name, normal in self.parts.items()
        }
        whole = {"format": _FORMAT, "pictures": self.pictures, "held_out": self.held_out, "parts": parts}
        return json.dumps(whole, separators=(",", ":"))

    @classmethod
    def from_metadata(cls, text: str, vfm: Vfm | None) -> "Domain":
        """What `to_metadata` wrote, for the VFM whose features it is about.

        Raises: WeightsError if it is damaged, of another version, or of another VFM.
        """
        try:
            whole = json.loads(text)
            if whole["format"] != _FORMAT:
                raise ValueError(f"their format is {whole['format']!r}, not {_FORMAT}")
            parts = {str(name): _normal(part) for name, part in whole["parts"].items()}
            domain = cls(parts, int(whole["pictures"]), int(whole["held_out"]))
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            raise WeightsError(f"the statistics of the training pictures are damaged: {one_line(error)}") from error
        sizes = {name: len(normal.mean) for name, normal in parts.items()}
        if sizes != widths(vfm):
            raise WeightsError(f"the statistics of the training pictures are of another VFM: {sizes}")
        return domain


def _packed(array: Float64[np.ndarray, "..."], dtype: Any) -> str:
    return base64.b64encode(array.astype(np.dtype(dtype).newbyteorder("<")).tobytes()).decode()


def _unpacked(text: str, dtype: str) -> Float64[np.ndarray, "n"]:
    array = np.frombuffer(base64.b64decode(text, validate=True), dtype).astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError("a number is not finite")
    return array


def _normal(part: Mapping[str, Any]) -> Normal:
    mean, scale, variances = (_unpacked(part[key], "<f4") for key in ("mean", "scale", "variances"))
    axes = _unpacked(part["axes"], "<f2").reshape(len(mean), len(variances))
    normal = Normal(mean, scale, axes, variances, float(part["rest"]), float(part["unit"]))
    positive = np.array([*scale, *variances, normal.rest, normal.unit])
    if len(scale) != len(mean) or not ((positive > 0) & np.isfinite(positive)).all():
        raise ValueError("a deviation, variance or unit is missing or not above 0")
    return normal


def widths(vfm: Vfm | None) -> dict[str, int]:
    """How many features each part has of this VFM's maps."""
    channels = vfm.channels if vfm else {}
    content = sum(width for stride, width in channels.items() if stride >= COARSE)
    look = 2 * sum(width for stride, width in channels.items() if stride < COARSE)
    return {part: width for part, width in (("content", content), ("look", look)) if width}


def views(picture: Shaped[np.ndarray, "..."]) -> list[Shaped[np.ndarray, "..."]]:
    """What is looked at: the whole, reduced to `SIDE`, and of a larger picture its middle at its own scale, too.

    An orthophoto of a whole town reduced is unlike any training chip, and the middle of a large photo may be a wall.
    Smaller pictures are continued by their mirror image; none of one that is smaller than `SMALLEST`.
    """
    height, width = picture.shape[:2]
    longest = max(height, width)
    if longest < SMALLEST:
        return []
    native = np.ascontiguousarray(picture.astype(picture.dtype.newbyteorder("="), copy=False))
    if longest <= SIDE:
        more = ((0, SIDE - height), (0, SIDE - width), *[(0, 0)] * (picture.ndim - 2))
        return [native if longest == SIDE else np.pad(native, more, mode="symmetric")]
    size = [max(1, round(side * SIDE / longest)) for side in (width, height)]
    top, left = (max(0, (side - SIDE) // 2) for side in (height, width))
    return [cv2.resize(native, size, interpolation=cv2.INTER_AREA), native[top : top + SIDE, left : left + SIDE]]


@torch.inference_mode()
def pooled(
    vfm: Vfm, pictures: Sequence[Shaped[np.ndarray, "..."]], value_range: ValueRange | None = None
) -> list[Features]:
    """The features of each picture's views; nothing of pictures without views. The pictures are of one size."""
    seen = [[to_model_range(view, value_range, vfm.mean.device) for view in views(picture)] for picture in pictures]
    by_view = [_features(vfm, torch.stack(together)) for together in zip(*seen, strict=True)]
    parts = by_view[0] if by_view else ()
    return [{part: np.stack([rows[part][i] for rows in by_view]) for part in parts} for i in range(len(pictures))]


def _features(vfm: Vfm, rgb: Float[Tensor, "b c h w"]) -> dict[str, Float64[np.ndarray, "b _"]]:
    maps = vfm(pad_to_multiple(rgb.expand(-1, 3, -1, -1), vfm.multiple))
    parts: dict[str, list[Tensor]] = {"content": [], "look": []}
    for stride, map_ in maps.items():
        if stride >= COARSE:
            parts["content"].append(map_.mean(dim=(2, 3)))
        else:
            parts["look"] += [map_.mean(dim=(2, 3)), map_.std(dim=(2, 3), correction=0)]
    return {part: torch.cat(values, dim=1).double().cpu().numpy() for part, values in parts.items() if values}
