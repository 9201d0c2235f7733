"""GeoTIFFs and other rasters to near infrared: of any size, with all they say of where and what they are."""

import importlib.metadata
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Shaped

from pix2next.apps.bulk import BulkResult
from pix2next.apps.raster_reading import Raster, Reading, gdal_settings, open_raster, plan_reading
from pix2next.apps.raster_strips import Strip, Strips
from pix2next.apps.raster_writing import Product, Rows, is_cog, plan_product, written
from pix2next.errors import ImageError
from pix2next.images import ValueRange, from_model_range
from pix2next.translate import Translator

RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".jp2", ".vrt", ".img"})
"""What is taken for a raster in a folder; a file that is named may have any suffix."""

_ROWS = 64

Progress = Callable[[int, int], None]


def translate_raster(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    translator: Translator,
    *,
    bands: Sequence[int] | None = None,
    value_range: ValueRange | None = None,
    output: str = "nir",
    cog: bool | None = None,
    compress: str = "deflate",
    model: str = "",
    on_progress: Progress | None = None,
) -> None:
    """Write near infrared, made of the colours of the raster `src`, into the GeoTIFF `dst`, whole or not at all.

    Rows are read, translated and written from top to bottom; what is held is a row of tiles, so memory grows with the
    width alone. Georeference, nodata, mask or alpha, tags, scaling and overviews of `src` go along. Pixels without data
    stay so, and the network sees the nearest colours in their place.

    Args:
        src: anything that GDAL reads; bands of real numbers.
        dst: its suffix is .tif or .tiff; a file that is there is replaced at the end.
        translator: what each tile goes through; its tile size is halved where memory runs out.
        bands: red, green and blue, counted from 1. If not given, by colour interpretation, else by the bands'
            descriptions.
        value_range: the stored values that mean black and white, for the colours as for the result. If not given, the
            translator's; if it has none, what the file or its depth says (see `plan_reading`).
        output: `nir`, in the depth of `src`; `rgbnir`, the colours as they are stored and near infrared; or `ndvi`,
            (NIR - red) / (NIR + red) as float32, 0 where both are black.
        cog: whether `dst` is a cloud-optimised GeoTIFF; if not given, if `src` is one.
        compress: `deflate`, `lzw`, `zstd` or `none`; all without loss.
        model: the network's name, for the tags.
        on_progress: called with how many of how many rows are written, first with 0.

    Raises:
        ConfigError: an argument is none of the above.
        ImageError: `src` cannot be read or used, or `dst` cannot be written.
        WeightsError: the network gave NaN or infinite values.
    """
    target = Path(dst)
    _check_target(src, target)
    with gdal_settings(), open_raster(src) as source:
        reading = plan_reading(source, bands, value_range or translator.value_range)
        product = plan_product(reading, output, compress, is_cog(source) if cog is None else cog)

        def attempt() -> None:
            with written(target, source, reading, product, _provenance(reading, product, model)) as rows:
                _stream(source, reading, product, translator, rows, on_progress or (lambda done, total: None))

        translator.retrying(reading.height, reading.width, attempt)


def translate_rasters(
    folder: Path, out: Path, translator: Translator, *, on_progress: Progress | None = None, **options: Any
) -> BulkResult:
    """`translate_raster` for every raster below `folder`, names and tree kept (as .tif); a bad one is left out.

    `on_progress` counts rasters; `options` are those of `translate_raster`.

    Raises: ImageError if `out` lies in `folder` or two rasters would get one name; nothing has been written then.
    """
    jobs = _plan_folder(folder, out)
    report = on_progress or (lambda done, total: None)
    report(0, len(jobs))
    failed: list[tuple[str, str]] = []
    for count, (source, target) in enumerate(jobs, start=1):
        try:
            translate_raster(source, target, translator, **options)
        except ImageError as error:
            failed.append((str(source), str(error)))
        report(count, len(jobs))
    return BulkResult(done=len(jobs) - len(failed), failed=failed)


def _plan_folder(folder: Path, out: Path) -> list[tuple[Path, Path]]:
    if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(folder)):
        raise ImageError(f"{out} lies in {folder}, whose rasters are read; give a folder outside of it")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in RASTER_SUFFIXES)
    sources: dict[Path, Path] = {}
    for path in found:
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts):
            continue
        target = out / (name if name.suffix.lower() in (".tif", ".tiff") else name.with_suffix(".tif"))
        if target in sources:
            raise ImageError(f"{sources[target]} and {path} would both be written to {target}; rename one")
        sources[target] = path
    if not sources:
        raise ImageError(f"{folder}: no rasters in this folder ({', '.join(sorted(RASTER_SUFFIXES))})")
    return [(source, target) for target, source in sources.items()]


def _check_target(src: str | os.PathLike[str], target: Path) -> None:
    if target.suffix.lower() not in (".tif", ".tiff"):
        raise ImageError(f"cannot write {target}: rasters are written as GeoTIFF; give a name that ends in .tif")
    if target.is_dir():
        raise ImageError(f"cannot write {target}: it is a folder")
    if os.path.realpath(target) == os.path.realpath(src):
        raise ImageError(f"{target} would be overwritten by its own translation; give another name")


def _provenance(reading: Reading, product: Product, model: str) -> dict[str, str]:
    low, high = reading.value_range
    return {
        "SYNTHETIC": f"band {product.made} was made by a network from red, green and blue; it is no measurement",
        "PIX2NEXT_OUTPUT": product.output,
        "PIX2NEXT_BANDS": ",".join(map(str, reading.bands)),
        "PIX2NEXT_RANGE": f"{low:g} {high:g}",
        "PIX2NEXT_VERSION": importlib.metadata.version("pix2next"),
        **({"PIX2NEXT_MODEL": model} if model else {}),
    }


# --- from the network's rows to the file's -----------------------------------------------------------------------


def _stream(
    source: Raster, reading: Reading, product: Product, translator: Translator, rows: Rows, report: Progress
) -> None:
    strips = Strips(source, reading)
    report(0, reading.height)
    for start, band in translator.bands(reading.height, reading.width, strips.part, reading.dtype):
        # Some rows at a time: what is computed on the way is several times as large as they are.
        for top in range(0, len(band), _ROWS):
            part = band[top : top + _ROWS]
            strip = strips.held(start + top, start + top + len(part))
            rows.add(product_rows(part, strip, reading, product), strip.valid)
        report(start + len(band), reading.height)


def product_rows(
    fake: Float32[np.ndarray, "h w"], strip: Strip, reading: Reading, product: Product
) -> Shaped[np.ndarray, "c h w"]:
    """Every band of the product, as it is stored; `fake` in [-1, 1]."""
    if product.output == "ndvi":
        return with_nodata(ndvi(fake, strip.rgb[0], reading.value_range), strip.valid, product.nodata)[None]
    nir = with_nodata(stored(fake, reading), strip.valid, product.nodata)
    colours = list(strip.rgb) if product.output == "rgbnir" else []
    return np.stack([*colours, nir, *([] if strip.alpha is None else [strip.alpha])])


def stored(fake: Float32[np.ndarray, "h w"], reading: Reading) -> Shaped[np.ndarray, "h w"]:
    """Near infrared of [-1, 1] in the raster's own range and depth."""
    dtype = reading.dtype
    # As floating point any range will do, one that begins below zero included.
    values = from_model_range(torch.from_numpy(fake), np.result_type(dtype, np.float32), reading.value_range)
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return values.round().clip(limits.min, limits.max).astype(dtype)


def ndvi(
    fake: Float32[np.ndarray, "h w"], red: Shaped[np.ndarray, "h w"], value_range: ValueRange
) -> Float32[np.ndarray, "h w"]:
    """(NIR - red) / (NIR + red) in [-1, 1], of reflectances from black as 0 to white as 1; 0 where both are black."""
    low, high = value_range
    nir = (fake.clip(-1, 1) + 1) / 2
    reflectance = ((red.astype(np.float32) - np.float32(low)) / np.float32(high - low)).clip(0, 1)
    total = nir + reflectance
    return np.divide(nir - reflectance, total, out=np.zeros_like(total), where=total > 0)


def with_nodata(
    values: Shaped[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], nodata: int | float | None
) -> Shaped[np.ndarray, "h w"]:
    """Pixels without data get `nodata` (where the raster names none: NaN, or 0 of integers), and no other pixel has it.

    A result that happens to be the nodata value moves by the smallest step, or the pixel would be lost.
    """
    kind = values.dtype
    empty = kind.type(nodata if nodata is not None else np.nan if kind.kind == "f" else 0)
    if nodata is not None:
        values = np.where(valid & (values == empty), _beside(empty, kind), values)
    return np.where(valid, values, empty)


def _beside(value: Any, kind: np.dtype[Any]) -> Any:
    """The next value up, or down from the highest there is."""
    if kind.kind == "f":
        return np.nextafter(value, kind.type(np.inf if value <= 0 else -np.inf))
    return kind.type(value - 1 if value == np.iinfo(kind).max else value + 1)
