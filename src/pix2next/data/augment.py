"""Random crops of pairs: one draw applied to both pictures, or one each; photometric jitter of the RGB alone."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from pix2next.config import DataConfig
from pix2next.data.pairs import Pair, load_pair
from pix2next.errors import ImageError, PairError
from pix2next.images import to_model_range

log = logging.getLogger(__name__)
JPEG_QUALITY = 30, 95


class TrainingCrops(Dataset[dict[str, Tensor]]):
    """Sample n of an endless stream of crops: {"rgb": [3, crop, crop], "nir": [1, crop, crop]} in [-1, 1].

    Sample n depends on `seed` and n alone: epoch n // len(pairs) is its own shuffle of the pairs, and the draw of crop,
    flip and jitter is seeded by n. So a run resumes its data by knowing how far it came, with any number of workers.
    With `unpaired` the NIR picture is that of another, independent shuffle, with a crop and a flip of its own.
    A pair that cannot be read is named in the log, once, and the next one of the epoch stands in.
    """

    def __init__(self, pairs: Sequence[Pair], config: DataConfig, seed: int) -> None:
        self.pairs = pairs
        self.config = config
        self.seed = seed
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._bad: set[int] = set()

    def __getitem__(self, n: int) -> dict[str, Tensor]:
        rgb, nir = self._load(n, 0)
        rng = np.random.default_rng((self.seed, 1, n))
        if self.config.unpaired:
            rgb = cut(rgb, draw_view(rgb, self.config, rng), self.config.crop)
            _, nir = self._load(n, 2)
            nir = cut(nir, draw_view(nir, self.config, np.random.default_rng((self.seed, 3, n))), self.config.crop)
        else:
            rgb, nir = crop_and_flip(rgb, nir, self.config, rng)
        return {"rgb": self._disturbed(rgb, rng), "nir": to_model_range(nir)}

    def _disturbed(self, rgb: np.ndarray, rng: np.random.Generator) -> Float[Tensor, "3 h w"]:
        """The RGB window as another camera might have taken and stored it."""
        if self.config.jpeg and rng.random() < self.config.jpeg:
            rgb = through_jpeg(rgb, int(rng.integers(*JPEG_QUALITY, endpoint=True)))
        light = jitter(to_model_range(rgb), self.config.jitter, rng)
        return colour_cast(light, self.config.cast, rng) if self.config.cast else light

    def _load(self, n: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
        """The pair at place n of the shuffles that are drawn from `stream`."""
        epoch, place = divmod(n, len(self.pairs))
        order = np.random.default_rng((self.seed, stream, epoch)).permutation(len(self.pairs))
        for index in map(int, np.roll(order, -place)):
            if index in self._kept:
                return self._kept[index]
            if index in self._bad:
                continue
            try:
                pair = load_pair(self.pairs[index])
            except (ImageError, PairError) as error:
                self._bad.add(index)
                log.warning("left out: %s", error)
                continue
            if self.config.cache:
                self._kept[index] = pair
            return pair
        raise PairError(f"none of the {len(self.pairs)} training pairs can be read (first: {self.pairs[0].rgb})")


class View(NamedTuple):
    """What of a picture a sample shows, and which way round."""

    rows: slice
    columns: slice
    mirrored: bool
    turns: int


def crop_and_flip(
    rgb: np.ndarray, nir: np.ndarray, config: DataConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The same view of both pictures of a pair."""
    view = draw_view(rgb, config, rng)
    return cut(rgb, view, config.crop), cut(nir, view, config.crop)


def draw_view(picture: np.ndarray, config: DataConfig, rng: np.random.Generator) -> View:
    """A random window of the picture, or all of it with `fit: squash`; a random flip and quarter turn.

    The window's side is `crop / s` with s drawn from `scale` (uniform in its logarithm), or the picture's shorter side
    where that is less. With `stretch` one side of the window is longer than the other, as far as the picture goes.
    """
    height, width = picture.shape[:2]
    rows, columns = slice(0, height), slice(0, width)
    if config.fit == "crop":
        low, high = config.scale
        side = max(1, round(config.crop / np.exp(rng.uniform(np.log(low), np.log(high)))))
        side = min(side, height, width)
        tall, wide = _stretched(side, config.stretch, rng)
        tall, wide = min(tall, height), min(wide, width)
        top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
        rows, columns = slice(top, top + tall), slice(left, left + wide)
    turns = int(rng.integers(4)) if config.rotate else 0
    mirrored = config.flip and rng.random() < 0.5
    return View(rows, columns, mirrored, turns)


def _stretched(side: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    """Height and width whose product is about side^2, with a ratio of up to 1 + `share` either way; 0 draws nothing."""
    if not share:
        return side, side
    factor = np.exp(rng.uniform(-1, 1) * np.log1p(share) / 2)
    return max(1, round(side * factor)), max(1, round(side / factor))


def cut(picture: np.ndarray, view: View, side: int) -> np.ndarray:
    """That view of the picture at `side` x `side`: averaged along a side that shrinks, interpolated where one grows."""
    window = picture[view.rows, view.columns]
    height, width = window.shape[:2]
    window = cv2.resize(window, (min(width, side), min(height, side)), interpolation=cv2.INTER_AREA)
    window = cv2.resize(window, (side, side), interpolation=cv2.INTER_LINEAR)
    window = np.rot90(window[:, ::-1] if view.mirrored else window, view.turns)
    return np.ascontiguousarray(window)


def through_jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    """The picture as a JPEG file of this quality (1 to 100) gives it back, in 8 bits."""
    eight = (to_model_range(rgb).permute(1, 2, 0).numpy() * 127.5 + 127.5).round().astype(np.uint8)
    _, file = cv2.imencode(".jpg", cv2.cvtColor(eight, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(file, cv2.IMREAD_COLOR)
    assert decoded is not None
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def colour_cast(rgb: Float[Tensor, "3 h w"], share: float, rng: np.random.Generator) -> Float[Tensor, "3 h w"]:
    """A gain for each channel, drawn within 1 +- `share`; the picture's mean light stays, but for what clips."""
    gains = torch.tensor(rng.uniform(1 - share, 1 + share, (3, 1, 1)), dtype=rgb.dtype)
    light = (rgb + 1) / 2
    cast = light * gains
    return (cast * light.mean() / cast.mean().clamp(min=1e-6)).clamp(0, 1) * 2 - 1


def jitter(rgb: Float[Tensor, "3 h w"], share: float, rng: np.random.Generator) -> Float[Tensor, "3 h w"]:
    """Exposure, contrast about the mean, and (half as much) white balance, each drawn within 1 +- `share`."""
    exposure, contrast = rng.uniform(1 - share, 1 + share, 2)
    balance = torch.tensor(rng.uniform(1 - share / 2, 1 + share / 2, (3, 1, 1)), dtype=rgb.dtype)
    light = (rgb + 1) / 2 * exposure * balance
    light = (light - light.mean()) * contrast + light.mean()
    return light.clamp(0, 1) * 2 - 1
