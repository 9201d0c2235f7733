"""A GeoTIFF written from top to bottom: whole rows of blocks, so that none is compressed twice or waits for the rest.

What the source says of itself goes along: georeference (transform, ground control points or rational polynomials),
nodata, mask or alpha, tags, colour interpretation, scaling and overviews.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from jaxtyping import Bool, Shaped
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from pix2next.apps.raster_reading import Raster, Reading
from pix2next.errors import ConfigError, ImageError, one_line
from pix2next.images import atomic_path

_BLOCK = 512
_NO_NDVI = -9999.0
_OVERVIEW_METHODS = {"nearest", "average", "bilinear", "cubic", "cubic_spline", "lanczos", "gauss", "mode", "rms"}
_OWN_DOMAINS = {"", "IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "RPC", "rio_overview", "COLOR_PROFILE"}
"""Tags that GDAL makes itself, or that go along in another way."""
_MADE_BY_US = {"nir": "synthetic NIR", "rgbnir": "synthetic NIR", "ndvi": "synthetic NDVI"}


_COMPRESSIONS = ("deflate", "lzw", "zstd", "none")


@dataclass(frozen=True)
class Product:
    """What is written, and how.

    Attributes:
        output: nir, rgbnir or ndvi.
        nodata: the value that marks pixels without data.
        colours: the interpretation of each band.
        masked: whether a mask is written along.
        compress: deflate, lzw, zstd or none.
        cog: whether it is cloud-optimised.
    """

    output: str
    dtype: np.dtype[Any]
    nodata: float | None
    colours: tuple[ColorInterp, ...]
    masked: bool
    compress: str
    cog: bool

    @property
    def made(self) -> int:
        """The synthetic band, counted from 1."""
        return 4 if self.output == "rgbnir" else 1


def plan_product(reading: Reading, output: str, compress: str, cog: bool) -> Product:
    """The bands that `output` stands for.

    NDVI is floating point. Its nodata value is the source's if NDVI never takes that, else -9999; pixels under a mask
    get it too, and those that an alpha band hides, which has no place beside NDVI.

    Raises: ConfigError if there is no such output or compression.
    """
    if compress not in _COMPRESSIONS:
        raise ConfigError(f"compression {compress} is not written; known are {', '.join(_COMPRESSIONS)}")
    alpha = [ColorInterp.alpha] if reading.alpha is not None else []
    dtype, nodata = reading.dtype, _holdable(reading.nodata, reading.dtype)
    match output:
        case "nir":
            colours = [ColorInterp.gray, *alpha]
        case "rgbnir":
            colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined, *alpha]
        case "ndvi":
            colours, dtype = [ColorInterp.gray], np.dtype(np.float32)
            nodata = _NO_NDVI if reading.nodata is None or abs(reading.nodata) <= 1 else reading.nodata
        case _:
            raise ConfigError(f"output {output} is unknown; known are nir, rgbnir, ndvi")
    # GDAL takes an alpha band for a mask only where it is the second or the fourth.
    masked = reading.masked or (reading.alpha is not None and output == "rgbnir")
    return Product(output, dtype, nodata, tuple(colours), masked, compress, cog)


def is_cog(source: Raster) -> bool:
    """Whether a raster is a cloud-optimised GeoTIFF."""
    return bool(source.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG")


def _holdable(nodata: float | None, dtype: np.dtype[Any]) -> float | None:
    """GDAL lets a file name a value that its pixels cannot take; rasterio does not write such a one."""
    if nodata is None or dtype.kind == "f":
        return nodata
    return nodata if np.iinfo(dtype).min <= nodata <= np.iinfo(dtype).max and nodata == int(nodata) else None


class Rows:
    """Takes rows from top to bottom and writes them by whole rows of blocks."""

    def __init__(self, dataset: Raster, masked: bool) -> None:
        self._dataset, self._masked = dataset, masked
        block = dataset.block_shapes[0][0]
        height = min(dataset.height, math.ceil(_BLOCK / block) * block)
        self._waiting = np.zeros((dataset.count, height, dataset.width), dataset.dtypes[0])
        self._mask = np.zeros((height, dataset.width), np.uint8)
        self._top = self._filled = 0

    def add(self, rows: Shaped[np.ndarray, "c h w"], valid: Bool[np.ndarray, "h w"]) -> None:
        """The next rows, and where they have data."""
        while rows.shape[1]:
            count = min(rows.shape[1], self._waiting.shape[1] - self._filled)
            place = slice(self._filled, self._filled + count)
            self._waiting[:, place], self._mask[place] = rows[:, :count], np.where(valid[:count], 255, 0)
            self._filled += count
            rows, valid = rows[:, count:], valid[count:]
            if self._filled == self._waiting.shape[1] or self._top + self._filled == self._dataset.height:
                self._write()

    def _write(self) -> None:
        window = Window(0, self._top, self._dataset.width, self._filled)
        self._dataset.write(self._waiting[:, : self._filled], window=window)
        if self._masked:
            self._dataset.write_mask(self._mask[: self._filled], window=window)
        self._top, self._filled = self._top + self._filled, 0


@contextmanager
def written(path: Path, source: Raster, reading: Reading, product: Product, tags: dict[str, str]) -> Iterator[Rows]:
    """Where the rows of a new GeoTIFF at `path` go; it appears when all are there, or not at all.

    GDAL writes a cloud-optimised one only as a copy of a whole raster: it takes twice the space on disk for a while.

    Args:
        tags: of the whole raster, besides those of the source.

    Raises: ImageError if it cannot be written.
    """
    try:
        with atomic_path(path) as beside:
            if not product.cog:
                with _filled(beside, product.compress, source, reading, product, tags) as rows:
                    yield rows
            else:
                first = beside.with_suffix(".first")
                try:
                    with _filled(first, "lzw", source, reading, product, tags) as rows:
                        yield rows
                    rasterio.shutil.copy(first, beside, driver="COG", **_cog_options(source, product))
                finally:
                    first.unlink(missing_ok=True)
            _check_whole(beside, path)
    except RasterioError as error:
        raise ImageError(f"cannot write {path}: {one_line(error.__cause__ or error)}") from error
    except OSError as error:
        raise ImageError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def _filled(
    path: Path, compress: str, source: Raster, reading: Reading, product: Product, tags: dict[str, str]
) -> Iterator[Rows]:
    with rasterio.open(path, "w", **_profile(source, product, compress)) as dataset:
        _describe(dataset, source, reading, product, tags)
        yield Rows(dataset, product.masked)
    _build_overviews(path, source)


def _profile(source: Raster, product: Product, compress: str) -> dict[str, Any]:
    large = min(source.shape) >= _BLOCK
    layout = {"tiled": True, "blockxsize": _block(source), "blockysize": _block(source)} if large else {}
    return {
        "driver": "GTiff",
        "width": source.width,
        "height": source.height,
        "count": len(product.colours),
        "dtype": product.dtype,
        "nodata": product.nodata,
        "photometric": "RGB" if product.output == "rgbnir" else "MINISBLACK",
        "alpha": "NO",  # Otherwise a fourth band would be taken for one.
        "compress": compress,
        **({} if compress == "none" else {"predictor": 3 if product.dtype.kind == "f" else 2}),
        # By the size before compression: after it, nobody knows until it is too late.
        "bigtiff": "IF_SAFER",
        **layout,
        **({} if source.transform.is_identity else {"transform": source.transform}),
        **({} if source.crs is None else {"crs": source.crs}),
    }


def _block(source: Raster) -> int:
    """The source's own, if it is square and of a usual size."""
    high, wide = source.block_shapes[0]
    return int(high) if high == wide and high in (128, 256, 512, 1024) else _BLOCK


def _cog_options(source: Raster, product: Product) -> dict[str, Any]:
    predictor = {} if product.compress == "none" else {"predictor": "YES"}
    return {"compress": product.compress, "blocksize": _block(source), "bigtiff": "IF_SAFER", **predictor}


def _describe(dataset: Raster, source: Raster, reading: Reading, product: Product, tags: dict[str, str]) -> None:
    dataset.colorinterp = product.colours
    points, crs = source.gcps
    if points:
        dataset.gcps = points, crs
    if source.rpcs is not None:
        dataset.rpcs = source.rpcs
    for domain in set(source.tag_namespaces()) - _OWN_DOMAINS:
        dataset.update_tags(ns=domain, **source.tags(ns=domain))
    dataset.update_tags(**{**source.tags(), **tags})
    made, first = product.made, reading.bands[0]
    copied = dict(enumerate(reading.bands, start=1)) if product.output == "rgbnir" else {}
    if reading.alpha is not None and product.output != "ndvi":
        copied[len(product.colours)] = reading.alpha
    for band, origin in copied.items():
        dataset.update_tags(band, **source.tags(origin))
        dataset.set_band_description(band, source.descriptions[origin - 1] or "")
    dataset.set_band_description(made, _MADE_BY_US[product.output])
    dataset.update_tags(made, SYNTHETIC="YES")
    if product.output != "ndvi":
        # Near infrared is stored as red is.
        origins = [copied.get(band, first) - 1 for band in range(1, dataset.count + 1)]
        dataset.scales = [source.scales[i] for i in origins]
        dataset.offsets = [source.offsets[i] for i in origins]
        dataset.units = [source.units[i] or "" for i in origins]


def _build_overviews(path: Path, source: Raster) -> None:
    """As many as the source has, made in the way it names."""
    factors = source.overviews(1)
    if not factors:
        return
    named = source.tags().get("OVR_RESAMPLING_ALG") or source.tags(ns="rio_overview").get("resampling") or ""
    method = Resampling[named.lower()] if named.lower() in _OVERVIEW_METHODS else Resampling.average
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews(factors, method)


def _check_whole(beside: Path, path: Path) -> None:
    """A full disk may show only when GDAL puts its last blocks down, where nothing is raised."""
    try:
        with rasterio.open(beside) as dataset:
            levels = range(len(dataset.overviews(1)))
        for options in ({}, *({"overview_level": level} for level in levels)):
            with rasterio.open(beside, **options) as dataset:
                dataset.read(window=Window(dataset.width - 1, dataset.height - 1, 1, 1))
    except RasterioError as error:
        raise ImageError(f"cannot write {path}: what was written cannot be read back; is the disk full?") from error
