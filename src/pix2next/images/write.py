"""NIR pictures to disk, in their own depth."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import DTypeLike

from pix2next.errors import ImageError
from pix2next.images.files import PICTURE_SUFFIXES, atomic_path
from pix2next.images.pixels import Nir

_DEFLATE = 8
_LONGEST_SIDE = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383}


def write_nir(path: str | Path, nir: Nir, quality: int | None = None) -> None:
    """One channel in its own depth, in the format that the suffix names; whole or not at all.

    PNG and TIFF (deflate) hold 8 and 16 bits, TIFF floating point too; BMP, JPEG and WebP hold 8. WebP knows no single
    channel, so it gets three equal ones.

    Args:
        path: where to.
        nir: what.
        quality: 1 to 100 for JPEG, 95 if not given, and for WebP, lossless if not given; the others have none.

    Raises: ImageError if the format cannot hold the depth or the size, or the file cannot be written.
    """
    path = Path(path)
    data = _encoded(path, nir, quality)
    try:
        with atomic_path(path) as beside:
            beside.write_bytes(data)
    except OSError as error:
        raise ImageError(f"cannot write {path}: {error.strerror or error}") from error


def encode_nir(nir: Nir, suffix: str, quality: int | None = None) -> bytes:
    """What `write_nir` would write to a file with this suffix, as `.png`.

    Raises: ImageError if the format cannot hold the depth or the size.
    """
    return bytes(_encoded(Path(f"picture{suffix}"), nir, quality))


def _encoded(path: Path, nir: Nir, quality: int | None) -> memoryview:
    check_holds(path, nir.dtype, nir.shape)
    suffix = path.suffix.lower()
    try:
        whole, data = cv2.imencode(suffix, nir, _settings(suffix, nir.dtype, quality))
    except cv2.error as error:
        raise ImageError(f"cannot write {path}: {error.err}") from error
    if not whole:
        raise ImageError(f"cannot write {path}: OpenCV could not encode {nir.shape[1]} x {nir.shape[0]} pixels")
    return data.data


def check_holds(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    """Raises: ImageError if the format that `path` names cannot hold such pixels."""
    suffix, depth = path.suffix.lower(), np.dtype(dtype)
    if suffix not in PICTURE_SUFFIXES:
        known = ", ".join(sorted(PICTURE_SUFFIXES))
        raise ImageError(
            f"cannot write {path}: {suffix or 'no suffix'} is no format that is written; known are {known}"
        )
    tiff = suffix in (".tif", ".tiff")
    if depth.kind == "f" and not tiff:
        raise ImageError(f"cannot write {path}: {suffix} does not hold floating point; use .tif")
    if depth == np.uint16 and not tiff and suffix != ".png":
        raise ImageError(f"cannot write {path}: {suffix} does not hold 16 bits; use .png or .tif")
    if max(shape) > _LONGEST_SIDE.get(suffix, max(shape)):
        size = f"{shape[1]} x {shape[0]}"
        raise ImageError(f"cannot write {path}: {suffix} does not hold {size} pixels; use .png or .tif")


def _settings(suffix: str, dtype: np.dtype[Any], quality: int | None) -> list[int]:
    match suffix:
        case ".jpg" | ".jpeg":
            return [cv2.IMWRITE_JPEG_QUALITY, quality or 95]
        case ".webp":
            return [cv2.IMWRITE_WEBP_QUALITY, quality or 101]  # Above 100 is lossless.
        case ".tif" | ".tiff":
            predictor = 1 if dtype.kind == "f" else 2
            return [cv2.IMWRITE_TIFF_COMPRESSION, _DEFLATE, cv2.IMWRITE_TIFF_PREDICTOR, predictor]
        case _:
            return []
