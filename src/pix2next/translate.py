"""Translator: one RGB picture of any size to one NIR picture of the same size and depth."""

import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from PIL import Image
from torch import Tensor, nn

from pix2next.errors import ConfigError, ImageError, WeightsError
from pix2next.images import (
    blended_bands,
    from_model_range,
    from_pillow,
    pad_to_multiple,
    plan_spans,
    read_rgb,
    to_model_range,
    unit_range,
)
from pix2next.images.tiles import Span
from pix2next.model.pix2next import DEFAULT_MODEL, load_model

TILE = 640
"""A larger picture goes through the network in tiles of this side, unless the caller says otherwise."""
OVERLAP = 64
SMALLEST_TILE = 64

logger = logging.getLogger(__name__)


class Translator:
    """Calls a network on pictures of any height and width of at least 1.

    A picture that fits into one tile goes through in one pass, grown to the network's multiple and cut back. A larger
    one is cut into overlapping tiles that fade into each other; what the network needs of memory then depends on the
    tile, and what is needed besides is the picture, the result and one row of tiles.

    Where memory runs out the tile is halved, for this and every later picture, and a warning is logged.
    """

    def __init__(self, model: nn.Module, *, device: str = "auto", tile: int | None = None, batch_size: int = 1) -> None:
        """Take `model`, put it into eval mode and on the device.

        Args:
            model: maps [b, 3, h, w] in [-1, 1] to [b, 1 or 3, h, w], with an attribute `multiple` that h and w are
                multiples of. Three channels, as in the released code, are averaged.
            device: `auto` is CUDA, else MPS, else the CPU.
            tile: its side in pixels, brought to the network's multiple.
            batch_size: how many tiles go through at once; the result does not depend on it.

        Raises:
            ConfigError: such a device does not exist here, or a number is below 1.
        """
        if batch_size < 1 or (tile is not None and tile < 1):
            raise ConfigError(f"tile and batch size are at least 1, not {tile} and {batch_size}")
        self.device = pick_device(device)
        self.multiple = int(model.multiple)  # type: ignore[arg-type]
        self.model = model.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batch_size = batch_size
        self.tile = max(self._smallest_tile, _down(tile or TILE, self.multiple))

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = DEFAULT_MODEL,
        *,
        device: str = "auto",
        tile: int | None = None,
        batch_size: int = 1,
    ) -> "Translator":
        """A translator of a shipped model, a checkpoint's file, a run's folder or `owner/name` on the hub.

        Raises: WeightsError if there is no such model; ConfigError as the constructor.
        """
        return cls(load_model(name_or_path), device=device, tile=tile, batch_size=batch_size)

    def __call__(self, rgb: str | os.PathLike[str] | Image.Image | np.ndarray) -> Shaped[np.ndarray, "h w"]:
        """The NIR picture, in the input's height, width and dtype.

        Args:
            rgb: a file (read by the rules in `pix2next.images`), a Pillow image, or an array [h, w], [h, w, 1],
                [h, w, 3] or [h, w, 4] of uint8, uint16, float32 or float64, floating point in [0, 1]. Grey stands for
                three equal channels; a fourth channel is left out. Files and Pillow images come out upright.

        Raises:
            ImageError: it is no such picture, or too little memory even for the smallest tile.
            WeightsError: the network gave NaN or infinite values.
        """
        picture = as_picture(rgb)
        while True:
            try:
                return self._in_tiles(picture)
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                self._halve_tile(picture)
            # Past the handler nothing holds the failed pass's tensors.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    @property
    def _smallest_tile(self) -> int:
        return max(_up(SMALLEST_TILE, self.multiple), 2 * self.multiple)

    def _halve_tile(self, picture: np.ndarray) -> None:
        height, width = picture.shape[:2]
        used = min(self.tile, _up(max(height, width), self.multiple))
        if used <= self._smallest_tile:
            raise ImageError(f"too little memory for a {width} x {height} picture even in tiles of {used} pixels")
        self.tile = max(self._smallest_tile, _down(used // 2, self.multiple))
        logger.warning("out of memory with tiles of %d pixels; going on with %d", used, self.tile)

    def _in_tiles(self, picture: np.ndarray) -> Shaped[np.ndarray, "h w"]:
        height, width = picture.shape[:2]
        rows, columns = self._spans(height), self._spans(width)
        nir = np.empty((height, width), picture.dtype)
        for start, band in blended_bands(rows, columns, partial(self._predict, picture), self.batch_size):
            inside = band[: height - start, :width]
            if not np.isfinite(inside).all():
                raise WeightsError("the network gave NaN or infinite values; its checkpoint is not fit for use")
            nir[start : start + len(inside)] = from_model_range(torch.from_numpy(inside), picture.dtype)
        return nir

    def _spans(self, length: int) -> list[Span]:
        overlap = min(_up(OVERLAP, self.multiple), max(self.multiple, _down(self.tile // 2, self.multiple)))
        return plan_spans(_up(length, self.multiple), self.tile, overlap, self.multiple)

    @torch.inference_mode()
    def _predict(self, picture: np.ndarray, row: Span, columns: Sequence[Span]) -> Float32[np.ndarray, "n h w"]:
        tiles = [self._tile_of(picture, row, column) for column in columns]
        rgb = torch.cat(tiles).to(self.device, memory_format=torch.channels_last)
        with torch.autocast("cuda", torch.bfloat16, enabled=self._half_precision(picture.dtype)):
            fake = self.model(rgb)
        return fake.float().mean(dim=1).cpu().numpy()

    def _tile_of(self, picture: np.ndarray, row: Span, column: Span) -> Float32[Tensor, "1 3 h w"]:
        part = to_model_range(picture[row.start : row.stop, column.start : column.stop])
        return pad_to_multiple(part.expand(3, -1, -1)[None], self.multiple)

    def _half_precision(self, dtype: np.dtype[Any]) -> bool:
        """bfloat16 resolves some 256 steps in [-1, 1]: enough for 8 bits of NIR, too coarse for more."""
        return (
            dtype == np.uint8 and self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        )


def as_picture(rgb: object) -> np.ndarray:
    """An array [h, w] or [h, w, 3] of uint8, uint16 or floating point in [0, 1] out of whatever came.

    Raises: ImageError, one sentence, if it is no picture.
    """
    match rgb:
        case str() | os.PathLike():
            return read_rgb(Path(rgb))
        case Image.Image():
            return from_pillow(rgb)
        case np.ndarray():
            return _checked(np.asarray(rgb))  # A masked array's values, without its mask.
    raise ImageError(f"a {type(rgb).__name__} is no picture; give a path, a Pillow image or a numpy array")


def _checked(array: np.ndarray) -> np.ndarray:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"an array of shape {array.shape} is no picture; give [h, w], [h, w, 3] or [h, w, 4]")
    if array.size == 0:
        raise ImageError(f"an array of shape {array.shape} has no pixels")
    if array.dtype.newbyteorder("=") not in (np.uint8, np.uint16, np.float32, np.float64):
        raise ImageError(f"an array of {array.dtype} is no picture; give uint8, uint16, float32 or float64")
    if array.ndim == 3:
        array = array[:, :, 0] if array.shape[2] == 1 else array[:, :, :3]
    return unit_range(array, "the array") if array.dtype.kind == "f" else array


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else MPS, else the CPU; anything else is torch's name of a device.

    Raises: ConfigError if torch knows no such device or cannot use it here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        probe = torch.zeros(1, device=name)
        probe.cpu()  # A `meta` device exists, but holds no values.
        return probe.device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"device {name!r} cannot be used here ({reason}); auto picks one that can") from error


def _out_of_memory(error: BaseException) -> bool:
    phrases = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or any(phrase in str(error) for phrase in phrases)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _down(value: int, multiple: int) -> int:
    return value // multiple * multiple
