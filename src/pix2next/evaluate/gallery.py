"""Pictures kept for a report while others pass by: small and compressed, so that memory holds no full-size picture."""

import base64
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

from pix2next.evaluate.pixelwise import eight_bit_units, rmse
from pix2next.evaluate.scorer import Example
from pix2next.images import Nir, full_scale

WORST = 20
SHEET = 500
"""Pictures on the contact sheet; of more, those with the largest error."""
THUMBNAIL = 128
LARGEST_ERROR = 64
"""8-bit units that the brightest colour of an error's map stands for, and all above."""
_LONG_SIDES = {1: 512, 2: 448, 3: 384, 4: 320}
"""Of the large pictures, by how many methods are shown; more have 256. So a page's size stays within bounds."""
_ON_SHEET = 3
"""Methods on the contact sheet."""

Eight = UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Tile:
    """One picture of the contact sheet."""

    name: str
    error: float
    """RMSE of the first method, in 8-bit units at native size, whatever the protocol."""
    picture: str
    """RGB, truth and what was made of it, side by side."""


@dataclass(frozen=True)
class View:
    """One picture to look at closely; its pictures are data URIs."""

    name: str
    width: int
    height: int
    """Of the original."""
    rgb: str | None
    truth: str
    made: dict[str, str]
    """Method, its picture."""
    error: dict[str, str]
    """Method, map of its absolute error."""
    rmse: dict[str, float]


class Largest(Generic[Kept]):
    """The `count` items of the largest value that were added."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._heap: list[tuple[float, int, Kept]] = []
        self._added = 0

    def wants(self, value: float) -> bool:
        """Whether an item of this value would be kept."""
        return len(self._heap) < self.count or value > self._heap[0][0]

    def add(self, value: float, item: Kept) -> None:
        """Keep it, in the place of the smallest if there are `count` already."""
        self._added += 1
        entry = (value, -self._added, item)
        if len(self._heap) < self.count:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def in_order(self) -> list[Kept]:
        """The largest first; of equal ones the one that was added first."""
        return [item for _, _, item in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


class Gallery:
    """The contact sheet and the worst pictures, by the error of the first of `methods`."""

    def __init__(self, methods: Sequence[str]) -> None:
        self.methods = tuple(methods)
        self.sheet: Largest[Tile] = Largest(SHEET)
        self.worst: Largest[View] = Largest(WORST)

    def add(self, example: Example) -> None:
        """Take what is needed of an example."""
        error = rmse(example.fakes[self.methods[0]], example.nir)
        if self.sheet.wants(error):
            self.sheet.add(error, Tile(example.name, error, self._strip(example)))
        if self.worst.wants(error):
            self.worst.add(error, self._view(example))

    def _strip(self, example: Example) -> str:
        shown = [example.nir, *(example.fakes[method] for method in self.methods[:_ON_SHEET])]
        pictures = [*([] if example.rgb is None else [eight_bits(example.rgb)]), *map(eight_bits, shown)]
        small = [in_colour(shrunk(picture, THUMBNAIL)) for picture in pictures]
        gap = np.full((small[0].shape[0], 2, 3), 128, np.uint8)
        joined = [part for picture in small for part in (gap, picture)][1:]
        return data_uri(np.concatenate(joined, axis=1), quality=55)

    def _view(self, example: Example) -> View:
        side = _LONG_SIDES.get(len(self.methods), 256)
        made = {method: example.fakes[method] for method in self.methods}
        height, width = example.nir.shape
        return View(
            example.name,
            width,
            height,
            None if example.rgb is None else _large(eight_bits(example.rgb), side),
            _large(eight_bits(example.nir), side),
            {method: _large(eight_bits(fake), side) for method, fake in made.items()},
            {method: _large(error_map(fake, example.nir), side) for method, fake in made.items()},
            {method: rmse(fake, example.nir) for method, fake in made.items()},
        )


def shown_on_sheet(methods: Sequence[str], with_rgb: bool) -> str:
    """What a tile of the contact sheet shows, from left to right."""
    return ", ".join([*(["RGB"] if with_rgb else []), "truth", *methods[:_ON_SHEET]])


def error_map(fake: Nir, nir: Nir) -> UInt8[np.ndarray, "h w 3"]:
    """The absolute difference in colours: black is none, pale yellow `LARGEST_ERROR` 8-bit units or more."""
    error = np.abs(eight_bit_units(fake) - eight_bit_units(nir))
    levels = (error * (255 / LARGEST_ERROR)).clip(0, 255).round().astype(np.uint8)
    return cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1].copy()


def eight_bits(picture: Shaped[np.ndarray, "..."]) -> Eight:
    """For the eye: 8 bits of any depth."""
    if picture.dtype == np.uint8:
        return picture
    return (picture.astype(np.float32) * (255 / full_scale(picture.dtype))).round().astype(np.uint8)


def in_colour(picture: Eight) -> UInt8[np.ndarray, "h w 3"]:
    """A grey picture with three equal channels; one in colour as it is."""
    return picture if picture.ndim == 3 else cv2.merge([picture] * 3)


def shrunk(picture: Eight, side: int) -> Shaped[np.ndarray, "..."]:
    """Brought down to a long side of `side` pixels; smaller pictures stay as they are."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def data_uri(picture: Eight, quality: int) -> str:
    """The picture inside of its own address, as WebP."""
    colour = in_colour(picture)[..., ::-1]
    _, encoded = cv2.imencode(".webp", np.ascontiguousarray(colour), [cv2.IMWRITE_WEBP_QUALITY, quality])
    return f"data:image/webp;base64,{base64.b64encode(encoded.tobytes()).decode('ascii')}"


def _large(picture: Eight, side: int) -> str:
    return data_uri(shrunk(picture, side), quality=75)
