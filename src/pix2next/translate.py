"""Translator: one RGB picture of any size to one NIR picture of the same size and depth."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from numpy.typing import DTypeLike
from PIL import Image
from torch import Tensor, nn

from pix2next.errors import ConfigError, ImageError, WeightsError
from pix2next.images import (
    ValueRange,
    blended_bands,
    check_value_range,
    from_model_range,
    from_pillow,
    pad_to_multiple,
    plan_spans,
    read_rgb,
    to_model_range,
    usable,
)
from pix2next.images.tiles import Span
from pix2next.model.domain import Distance, pooled
from pix2next.model.pix2next import DEFAULT_MODEL, load_model
from pix2next.model.views import VIEWS, Views

TILE = 640
"""A larger picture goes through the network in tiles of this side, unless the caller says otherwise."""
OVERLAP = 64
SMALLEST_TILE = 64

Read = Callable[[Span, Span], Float32[Tensor, "c h w"] | None]
"""The pixels of a row span and a column span in [-1, 1], three channels or one, cut off where the picture ends; None
where there is nothing to translate."""
T = TypeVar("T")

logger = logging.getLogger(__name__)


class Translator:
    """Calls a network on pictures of any height and width of at least 1.

    A picture that fits into one tile goes through in one pass, grown to the network's multiple and cut back. A larger
    one is cut into overlapping tiles that fade into each other; what the network needs of memory then depends on the
    tile, and what is needed besides is the picture, the result and one row of tiles.

    Where memory runs out the tile is halved, for this and every later picture, and a warning is logged.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        device: str = "auto",
        tile: int | None = None,
        batch_size: int = 1,
        value_range: ValueRange | None = None,
        views: int | None = None,
    ) -> None:
        """Take `model`, put it into eval mode and on the device.

        Args:
            model: maps [b, 3, h, w] in [-1, 1] to [b, 1 or 3, h, w], with an attribute `multiple` that h and w are
                multiples of. Three channels, as in the released code, are averaged.
            device: `auto` is CUDA, else MPS, else the CPU.
            tile: its side in pixels, brought to the network's multiple.
            batch_size: how many tiles go through at once; the result does not depend on it.
            value_range: the pixel values that mean black and white, in what comes and in the result; 0 and the full
                scale of the picture's dtype if not given (255, 65535, or 1 for floating point). Values beyond it are
                clipped.
            views: how many views of a picture are averaged, 1 to 4, each of which costs a pass; the model's own number
                if not given (see `pix2next.model.views`).

        Raises:
            ConfigError: such a device does not exist here, a number is out of its range, or the range is none.
        """
        if views is not None and not 1 <= views <= len(VIEWS):
            raise ConfigError(f"a picture has 1 to {len(VIEWS)} views, not {views}")
        if batch_size < 1 or (tile is not None and tile < 1):
            raise ConfigError(f"tile and batch size are at least 1, not {tile} and {batch_size}")
        if value_range is not None:
            check_value_range(value_range)
        self.value_range = value_range
        self.domain = getattr(model, "domain", None)
        self.device = pick_device(device)
        self.multiple = int(model.multiple)  # type: ignore[arg-type]
        self.model = model.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = Views(self.model, views)
        """What a picture goes through: the model, once for each view."""
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
        value_range: ValueRange | None = None,
        views: int | None = None,
    ) -> "Translator":
        """A translator of a shipped model, a checkpoint's file, a run's folder or `owner/name` on the hub.

        Raises: WeightsError if there is no such model; ConfigError as the constructor.
        """
        model = load_model(name_or_path)
        return cls(model, device=device, tile=tile, batch_size=batch_size, value_range=value_range, views=views)

    @property
    def views(self) -> int:
        """How many views of a picture are averaged."""
        return self.network.views

    def __call__(self, rgb: str | os.PathLike[str] | Image.Image | np.ndarray) -> Shaped[np.ndarray, "h w"]:
        """The NIR picture, in the input's height, width and dtype.

        Args:
            rgb: a file (read by the rules in `pix2next.images`), a Pillow image, or an array [h, w], [h, w, 1],
                [h, w, 3] or [h, w, 4] of uint8, uint16, float32 or float64, floating point in [0, 1] unless the
                translator has a range of values. Grey stands for three equal channels; a fourth channel is left out.
                Files and Pillow images come out upright.

        Raises:
            ImageError: it is no such picture, or too little memory even for the smallest tile.
            WeightsError: the network gave NaN or infinite values.
        """
        picture = as_picture(rgb, self.value_range)
        height, width = picture.shape[:2]
        return self.retrying(height, width, lambda: self._in_tiles(picture))

    def fits(self, picture: np.ndarray) -> bool:
        """Whether a picture goes through in one pass."""
        return max(picture.shape[:2]) <= self.tile

    def network_pixels(self, height: int, width: int) -> int:
        """How many pixels the network gets for such a picture: padding counts, and what tiles share counts twice."""
        rows, columns = (sum(span.stop - span.start for span in self._spans(length)) for length in (height, width))
        return rows * columns

    def many(self, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        """NIR pictures of arrays as `__call__` takes them, in their order.

        Those of one size and dtype that fit into a tile go through in one pass, all at once; where memory runs out, and
        otherwise, they go one by one.

        Raises: as `__call__`.
        """
        checked = [as_picture(picture, self.value_range) for picture in pictures]
        alike = len({(picture.shape, picture.dtype) for picture in checked}) == 1
        if len(checked) > 1 and alike and self.fits(checked[0]):
            try:
                return self._in_one_pass(checked)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
            logger.warning("out of memory with %d pictures at once; going on with one", len(checked))
        return [self(picture) for picture in checked]

    def distance(self, rgb: str | os.PathLike[str] | Image.Image | np.ndarray) -> Distance | None:
        """How far a picture, as `__call__` takes it, is from those that the model was trained on; above 1 it is unlike.

        None where nobody can tell: the checkpoint says nothing of its training pictures (or `domain` was set to None),
        the picture is tiny, or memory is too little. What it does not see is told in `pix2next.model.domain`.

        Raises: ImageError if it is no picture.
        """
        return self.distances([as_picture(rgb, self.value_range)])[0]

    def distances(self, pictures: Sequence[np.ndarray]) -> list[Distance | None]:
        """`distance` of arrays of one size and dtype, in one pass. Raises: as `distance`."""
        if self.domain is None:
            return [None] * len(pictures)
        checked = [as_picture(picture, self.value_range) for picture in pictures]
        try:
            found = pooled(self.model.vfm, checked, self.value_range)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            return [None] * len(pictures)  # A warning is not worth the picture.
        return [self.domain.distance(features) if features else None for features in found]

    @torch.inference_mode()
    def _in_one_pass(self, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        height, width = pictures[0].shape[:2]
        dtype = pictures[0].dtype
        tensors = [to_model_range(picture, self.value_range, self.device).expand(3, -1, -1) for picture in pictures]
        fakes = self._network(pad_to_multiple(torch.stack(tensors), self.multiple), dtype)[:, :height, :width]
        _refuse_not_finite(bool(fakes.isfinite().all()))
        return [from_model_range(fake, dtype, self.value_range) for fake in fakes]

    def retrying(self, height: int, width: int, attempt: Callable[[], T]) -> T:
        """What `attempt` gives for a picture of this size; where memory runs out, what it gives with half the tile.

        Raises: ImageError where memory is too little even for the smallest tile.
        """
        while True:
            try:
                return attempt()
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                self._halve_tile(height, width)
            # Past the handler nothing holds the failed pass's tensors.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    @property
    def _smallest_tile(self) -> int:
        return max(_up(SMALLEST_TILE, self.multiple), 2 * self.multiple)

    def _halve_tile(self, height: int, width: int) -> None:
        used = min(self.tile, _up(max(height, width), self.multiple))
        if used <= self._smallest_tile:
            raise ImageError(f"too little memory for a {width} x {height} picture even in tiles of {used} pixels")
        self.tile = max(self._smallest_tile, _down(used // 2, self.multiple))
        logger.warning("out of memory with tiles of %d pixels; going on with %d", used, self.tile)

    def _in_tiles(self, picture: np.ndarray) -> Shaped[np.ndarray, "h w"]:
        height, width = picture.shape[:2]
        nir = np.empty((height, width), picture.dtype)
        for start, band in self.bands(height, width, partial(self._part, picture), picture.dtype):
            rows_of_nir = from_model_range(torch.from_numpy(band), picture.dtype, self.value_range)
            nir[start : start + len(band)] = rows_of_nir
        return nir

    def bands(
        self, height: int, width: int, read: Read, dtype: DTypeLike = np.float32
    ) -> Iterator[tuple[int, Float32[np.ndarray, "h w"]]]:
        """Finished rows of NIR in [-1, 1] from top to bottom, each with the row it starts at; together the picture.

        For sources larger than memory: held is one row of tiles, and `read` is asked for tiles from left to right and
        from top to bottom. Where it gives None for a tile, the network is not called. Where memory runs out, the error
        passes through (see `retrying`).

        Args:
            height: of the whole picture, as `width`.
            read: where pixels come from.
            dtype: what they are stored as: 8 bits may pass a GPU in half precision.

        Raises: WeightsError if the network gives NaN or infinite values.
        """
        rows, columns = self._spans(height), self._spans(width)
        for start, band in blended_bands(rows, columns, partial(self._predict, read, np.dtype(dtype)), self.batch_size):
            inside = band[: height - start, :width]
            _refuse_not_finite(bool(np.isfinite(inside).all()))
            yield start, inside

    def _part(self, picture: np.ndarray, row: Span, column: Span) -> Float32[Tensor, "c h w"]:
        return to_model_range(picture[row.start : row.stop, column.start : column.stop], self.value_range, self.device)

    def _spans(self, length: int) -> list[Span]:
        overlap = min(_up(OVERLAP, self.multiple), max(self.multiple, _down(self.tile // 2, self.multiple)))
        return plan_spans(_up(length, self.multiple), self.tile, overlap, self.multiple)

    @torch.inference_mode()
    def _predict(
        self, read: Read, dtype: np.dtype[Any], row: Span, columns: Sequence[Span]
    ) -> Float32[np.ndarray, "n h w"]:
        parts = [read(row, column) for column in columns]
        there = [part is not None for part in parts]
        nir = np.zeros((len(columns), row.stop - row.start, columns[0].stop - columns[0].start), np.float32)
        if any(there):
            tiles = [pad_to_multiple(part.expand(3, -1, -1)[None], self.multiple) for part in parts if part is not None]
            nir[there] = self._network(torch.cat(tiles), dtype).cpu().numpy()
        return nir

    def _network(self, rgb: Float32[Tensor, "b 3 h w"], dtype: np.dtype[Any]) -> Float32[Tensor, "b h w"]:
        with torch.autocast("cuda", torch.bfloat16, enabled=self._half_precision(dtype)):
            fake = self.network(rgb.to(self.device, memory_format=torch.channels_last))
        return fake.float().mean(dim=1)

    def _half_precision(self, dtype: np.dtype[Any]) -> bool:
        """bfloat16 resolves some 256 steps in [-1, 1]: enough for 8 bits of NIR, too coarse for more."""
        return (
            dtype == np.uint8 and self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        )


def _refuse_not_finite(finite: bool) -> None:
    if not finite:
        raise WeightsError("the network gave NaN or infinite values; its checkpoint is not fit for use")


def as_picture(rgb: object, value_range: ValueRange | None = None) -> np.ndarray:
    """An array [h, w] or [h, w, 3] of uint8, uint16 or floating point out of whatever came.

    Floating point is in [0, 1], or anything finite where a range of values is named.

    Raises: ImageError, one sentence, if it is no picture.
    """
    match rgb:
        case str() | os.PathLike():
            return read_rgb(Path(rgb), value_range)
        case Image.Image():
            return from_pillow(rgb, value_range)
        case np.ndarray():
            return _checked(np.asarray(rgb), value_range)  # A masked array's values, without its mask.
    raise ImageError(f"a {type(rgb).__name__} is no picture; give a path, a Pillow image or a numpy array")


def _checked(array: np.ndarray, value_range: ValueRange | None) -> np.ndarray:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"an array of shape {array.shape} is no picture; give [h, w], [h, w, 3] or [h, w, 4]")
    if array.size == 0:
        raise ImageError(f"an array of shape {array.shape} has no pixels")
    if array.dtype.newbyteorder("=") not in (np.uint8, np.uint16, np.float32, np.float64):
        raise ImageError(f"an array of {array.dtype} is no picture; give uint8, uint16, float32 or float64")
    if array.ndim == 3:
        array = array[:, :, 0] if array.shape[2] == 1 else array[:, :, :3]
    return usable(array, "the array", value_range)


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


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out, of the processor or of a device."""
    phrases = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or any(phrase in str(error) for phrase in phrases)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _down(value: int, multiple: int) -> int:
    return value // multiple * multiple
