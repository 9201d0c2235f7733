"""What a raster holds: which bands are red, green and blue, what is black and white, and what tells where data is.

GDAL reads rasters, through rasterio; what reads the pictures in `pix2next.images` knows nothing of georeference, nodata
or masks.
"""

import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped

from pix2next.errors import ConfigError, ImageError, one_line
from pix2next.images import ValueRange, check_value_range, full_scale

try:
    import rasterio
    from rasterio.enums import ColorInterp, MaskFlags
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rasterio.windows import Window
except ImportError as error:
    raise ConfigError("rasters are read with rasterio, which is not here; pip install 'pix2next[geo]'") from error

Raster = Any
"""An open dataset of rasterio, which has no types."""

_COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_NAMES = [re.compile(rf"^{name[0]}$|\b{name}\b(?!.?edge)", re.I) for name in ("red", "green", "blue")]
_CACHE_MEGABYTES = 128
_SAMPLES = 8
_SAMPLE_SIDE = 64
_GUESSES = "--range, as --range 0 10000 for reflectance times 10,000 or --range 0 4095 for 12 bits"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """How a raster is read.

    Attributes:
        name: what messages call it.
        bands: red, green and blue, counted from 1.
        value_range: the stored values that mean black and white; what lies beyond is clipped for the network.
        nodata: the value that marks pixels without data.
        alpha: the band that says how opaque a pixel is; 0 means no data.
        masked: whether a mask, in the file or beside it, says which pixels have data.
    """

    name: str
    width: int
    height: int
    bands: tuple[int, int, int]
    dtype: np.dtype[Any]
    value_range: ValueRange
    nodata: float | None
    alpha: int | None
    masked: bool


@contextmanager
def gdal_settings() -> Iterator[None]:
    """Within it GDAL keeps few blocks, whatever the machine's memory, and puts masks into the file.

    Nor is there a warning of a missing georeference: a raster without it is translated all the same.
    """
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MEGABYTES, GDAL_TIFF_INTERNAL_MASK=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def open_raster(path: str | os.PathLike[str]) -> Iterator[Raster]:
    """The dataset, open for reading.

    Raises: ImageError, one sentence, if GDAL does not know it for a raster, or it holds none or many.
    """
    try:
        dataset = rasterio.open(os.fspath(path))
    except (RasterioError, OSError) as error:
        raise ImageError(f"{path} is no raster that can be read ({one_line(error)})") from error
    with dataset:
        if dataset.count == 0:
            parts = f", but {len(dataset.subdatasets)} rasters; give one of them" if dataset.subdatasets else ""
            raise ImageError(f"{path} holds no bands{parts}")
        yield dataset


def plan_reading(dataset: Raster, bands: Sequence[int] | None = None, value_range: ValueRange | None = None) -> Reading:
    """How to read `dataset`, from what the caller says, and else from what the file says of itself.

    The range of values, where none is named, is in this order: what the bands' scale and offset turn into 0 and 1; 0
    and the highest value of as many bits as the file says it uses; 0 to 255 or 65535 for unsigned integers of 8 or 16
    bits; 0 to 1 for floating point. It is never the picture's own minimum and maximum. Other integers have no default.

    Raises:
        ConfigError: the range is none, or there are no such bands.
        ImageError: which bands or which values are meant cannot be told, or they cannot be used.
    """
    chosen = _named_bands(dataset, bands) if bands is not None else _coloured_bands(dataset)
    kinds = {np.dtype(dataset.dtypes[band - 1]) for band in chosen}
    dtype = kinds.pop()
    if kinds or dtype.kind not in "uif":
        came = " and ".join(sorted({dataset.dtypes[band - 1] for band in chosen}))
        raise ImageError(f"{dataset.name} has bands of {came}; give three of one kind of real numbers")
    if value_range is not None:
        check_value_range(value_range)
    flags = set(dataset.mask_flag_enums[chosen[0] - 1])
    reading = Reading(
        name=dataset.name,
        width=dataset.width,
        height=dataset.height,
        bands=chosen,
        dtype=dtype,
        value_range=value_range or _stated_range(dataset, chosen, dtype),
        nodata=dataset.nodatavals[chosen[0] - 1],
        alpha=_alpha_band(dataset, chosen),
        masked=not flags & {MaskFlags.all_valid, MaskFlags.nodata, MaskFlags.alpha},
    )
    if value_range is None:
        _check_stated_range(dataset, reading)
    return reading


# --- which bands ------------------------------------------------------------------------------------------------


def _named_bands(dataset: Raster, bands: Sequence[int]) -> tuple[int, int, int]:
    if len(bands) != 3 or not all(1 <= band <= dataset.count for band in bands):
        came = ",".join(map(str, bands))
        raise ConfigError(
            f"{dataset.name}: bands {came} are not three of 1 to {dataset.count}; give red, green and blue, as 1,2,3"
        )
    red, green, blue = bands
    return red, green, blue


def _coloured_bands(dataset: Raster) -> tuple[int, int, int]:
    """By colour interpretation, or else by descriptions; each colour has to be there once."""
    if ColorInterp.palette in dataset.colorinterp:
        raise ImageError(
            f"{dataset.name} holds numbers of a palette, not colours; expand it (gdal_translate -expand rgb)"
        )
    by_label = [[i for i, label in enumerate(dataset.colorinterp, 1) if label is colour] for colour in _COLOURS]
    texts = [(text or "").strip() for text in dataset.descriptions]
    by_text = [[i for i, text in enumerate(texts, 1) if name.search(text)] for name in _NAMES]
    for found in (by_label, by_text):
        if all(len(places) == 1 for places in found):
            return found[0][0], found[1][0], found[2][0]
    count = f"its {dataset.count} bands are"
    example = ",".join("123" if dataset.count > 2 else "111")
    raise ImageError(
        f"{dataset.name} does not say which of {count} red, green and blue; "
        f"give them in this order, as --bands {example}"
    )


def _alpha_band(dataset: Raster, chosen: Sequence[int]) -> int | None:
    """The band labelled alpha, if it is one: near infrared as the fourth band often carries that label by mistake."""
    labelled = [i for i, label in enumerate(dataset.colorinterp, 1) if label is ColorInterp.alpha and i not in chosen]
    if not labelled:
        return None
    values = _sample(dataset, labelled[-1:])
    if np.mean((values == 0) | (values == values.max())) > 0.9:
        return labelled[-1]
    logger.warning(
        "%s: band %d is labelled alpha but holds all kinds of values; it is not taken for transparency",
        dataset.name, labelled[-1],
    )  # fmt: skip
    return None


# --- which values -----------------------------------------------------------------------------------------------


def _stated_range(dataset: Raster, bands: Sequence[int], dtype: np.dtype[Any]) -> ValueRange:
    scaling = {(dataset.scales[band - 1], dataset.offsets[band - 1]) for band in bands}
    if scaling != {(1.0, 0.0)}:
        scale, offset = scaling.pop()
        if scaling or not scale > 0:
            raise ImageError(f"{dataset.name} has red, green and blue scaled differently; say what counts with --range")
        return -offset / scale, (1 - offset) / scale
    bits = dataset.tags(bands[0], ns="IMAGE_STRUCTURE").get("NBITS")
    if bits is not None and dtype.kind == "u":
        return 0.0, 2.0 ** int(bits) - 1
    if dtype.kind == "f" or dtype in (np.uint8, np.uint16):
        return 0.0, full_scale(dtype)
    raise ImageError(f"{dataset.name} has {dtype} pixels, which have no usual range; give {_GUESSES}")


def _check_stated_range(dataset: Raster, reading: Reading) -> None:
    """Refuses, by a sample, a range that is clearly not the one meant, and warns of one that is probably not."""
    values = _sample(dataset, sorted(set(reading.bands)))
    values = values[np.isfinite(values)]
    if reading.nodata is not None:
        values = values[values != reading.nodata]
    low, high = reading.value_range
    if values.size and np.mean((values < low) | (values > high)) > 0.01:
        raise ImageError(
            f"{reading.name} holds values from {values.min():g} to {values.max():g}, beyond the range {low:g} to "
            f"{high:g} that it would have by default; give {_GUESSES}"
        )
    if values.size and reading.dtype == np.uint16 and np.quantile(values, 0.99) < high / 5:
        logger.warning(
            "%s: nearly all values lie below %g, a fifth of the range that is used (%g to %g); if they are not meant "
            "to be dark, give %s", reading.name, high / 5, low, high, _GUESSES,
        )  # fmt: skip


def _sample(dataset: Raster, bands: Sequence[int]) -> Shaped[np.ndarray, "n"]:
    """Values from small windows all over the raster."""
    tops, lefts = (np.linspace(0, max(0, length - _SAMPLE_SIDE), _SAMPLES).astype(int) for length in dataset.shape)
    windows = [Window(left, top, _SAMPLE_SIDE, _SAMPLE_SIDE) for top in set(tops) for left in set(lefts)]
    return np.concatenate(
        [read_window(dataset, dataset.read, list(bands), window=window).ravel() for window in windows]
    )


def read_window(dataset: Raster, read: Callable[..., np.ndarray], bands: Any, window: Window) -> np.ndarray:
    """What `read`, a method of `dataset`, gives. Raises: ImageError if the file is damaged."""
    try:
        return read(bands, window=window)
    except (RasterioError, OSError) as error:
        reason = one_line(error.__cause__ or error)
        raise ImageError(f"{dataset.name} is damaged or cut short ({reason})") from error
