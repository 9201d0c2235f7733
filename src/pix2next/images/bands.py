"""Rasters of several bands: every band of a TIFF as it is stored, without GDAL.

Ordinary decoders stop at four bands, mix up bands stored plane by plane, or cut 16 bits to 8. Here the page is told to
libtiff as a grey one, which it reads faithfully: a plane at a time where bands are stored plane by plane, and as a
picture c times as wide where the c bands of a pixel stand side by side. Only the horizontal predictor has to be undone
by hand then, as it takes differences between pixels, not between neighbouring samples.

Source: TIFF 6.0, sec. 8, 13, 14 and 15 (compression, LZW, differencing predictor, tiles).
"""

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import einops
import numpy as np
from jaxtyping import UInt8, UInt16

from pix2next.errors import ImageError, one_line
from pix2next.images import tiff
from pix2next.images.read import DAMAGE, MAX_PIXELS, decode_bytes, kind_of
from pix2next.images.stored import Stored

Bands = UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]

_COMPRESSIONS = {1: "none", 5: "LZW", 8: "deflate", 32773: "packbits", 32946: "deflate"}
_PREDICTED = (5, 8, 32946)
"""Compressions that a predictor goes with; the tag means nothing for the others."""


def read_bands(path: str | Path) -> Bands:
    """Every band of the first page of a TIFF or GeoTIFF, in the order of the file, in its own depth (8 or 16 bits).

    Georeference, colour interpretation and a value for no data are left aside.

    Raises: ImageError, one sentence that names the file, if it is no whole TIFF of a kind that is read.
    """
    file = Stored(Path(path))
    if (kind := kind_of(file)) != "TIFF":
        raise ImageError(f"{file} is a {kind} file; bands are read from TIFF and GeoTIFF")
    try:
        layout, tags = tiff.read_layout(file), tiff.read_tags(file)
        _refuse(file, layout, tags)
        return _decode(file, layout, tags)
    except (*DAMAGE, ArithmeticError, RuntimeError) as error:
        raise ImageError(f"{file}: this TIFF file is damaged or cut short ({one_line(error)})") from error


def _refuse(file: Stored, layout: tiff.TiffLayout, tags: Any) -> None:
    tiff.refuse_cut_short(file, layout)
    if layout.width * layout.height * layout.samples > MAX_PIXELS:
        size = f"{layout.width} x {layout.height} pixels of {layout.samples} bands"
        raise ImageError(f"{file} has {size}, more than the {MAX_PIXELS} samples that are read; cut it up")
    if set(layout.bits) not in ({8}, {16}) or set(layout.formats) != {1}:
        bits = "/".join(map(str, sorted(set(layout.bits))))
        raise ImageError(f"{file} has bands of {bits} bits that are no unsigned integers; scale them to 8 or 16 bits")
    if layout.photometric not in (tiff.BLACK_IS_ZERO, tiff.RGB):
        raise ImageError(
            f"{file} holds colours of photometric {layout.photometric}, not bands; write it as plain bands"
        )
    if tags.get(259, 1) not in _COMPRESSIONS:
        known = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
        raise ImageError(f"{file} is compressed in a way that is not read (code {tags[259]}; known are {known})")
    if tags.get(317, 1) not in (1, 2) or tags.get(266, 1) != 1 or tags.get(274, 1) != 1:
        raise ImageError(f"{file} is stored rotated or with an unknown predictor; write it again as a plain TIFF")


def _decode(file: Stored, layout: tiff.TiffLayout, tags: Any) -> Bands:
    data = file.array()
    offsets, counts = tiff.chunks(tags)
    encoded = [data[start : start + count].tobytes() for start, count in zip(offsets, counts, strict=True)]
    planes = layout.samples if layout.planes else 1
    each = len(encoded) // planes
    build = _from_tiles if 322 in tags else _from_strips
    stored = [build(encoded[plane * each : (plane + 1) * each], layout, tags) for plane in range(planes)]
    return np.concatenate(stored, axis=2) if layout.planes else stored[0]


def _from_strips(encoded: list[bytes], layout: tiff.TiffLayout, tags: Any) -> Bands:
    return _block(encoded, layout.width, layout.height, tags.get(278, layout.height), layout, tags)


def _from_tiles(encoded: list[bytes], layout: tiff.TiffLayout, tags: Any) -> Bands:
    wide, high = tags[322], tags[323]
    across, down = math.ceil(layout.width / wide), math.ceil(layout.height / high)
    tiles = np.stack([_block([tile], wide, high, high, layout, tags) for tile in encoded[: across * down]])
    whole = einops.rearrange(tiles, "(down across) h w c -> (down h) (across w) c", across=across)
    return np.ascontiguousarray(whole[: layout.height, : layout.width])


def _block(encoded: list[bytes], width: int, height: int, rows: int, layout: tiff.TiffLayout, tags: Any) -> Bands:
    """The strips of `rows` rows in `encoded`, [height, width, bands of a pixel that stand side by side]."""
    bands = 1 if layout.planes else layout.samples
    page = _grey_page(
        encoded, width * bands, height, rows, bits=max(layout.bits), code=tags.get(259, 1), order=tags.prefix
    )
    grey = decode_bytes(np.frombuffer(page, np.uint8), cv2.IMREAD_UNCHANGED)
    pixels = einops.rearrange(grey, "h (w c) -> h w c", c=bands)
    # Each sample had the same band of the pixel to its left taken off; sums wrap around.
    predicted = tags.get(317, 1) == 2 and tags.get(259, 1) in _PREDICTED
    return np.cumsum(pixels, axis=1, dtype=grey.dtype) if predicted else pixels


def _grey_page(
    encoded: list[bytes], width: int, height: int, rows: int, *, bits: int, code: int, order: bytes
) -> bytes:
    """A TIFF of one band, without a predictor, that holds the strips as they are."""
    byte_order = ">" if order == b"MM" else "<"
    starts = np.cumsum([8, *map(len, encoded)])
    begin = int(starts[-1] + starts[-1] % 2)
    entries: dict[int, Sequence[int]] = {
        256: [width], 257: [height], 258: [bits], 259: [code], 262: [tiff.BLACK_IS_ZERO], 273: starts[:-1].tolist(),
        277: [1], 278: [rows], 279: list(map(len, encoded)),
    }  # fmt: skip
    after = begin + 2 + 12 * len(entries) + 4
    directory, values = struct.pack(byte_order + "H", len(entries)), b""
    for tag, numbers in entries.items():
        packed = struct.pack(f"{byte_order}{len(numbers)}I", *numbers)
        if len(packed) > 4:
            packed, values = struct.pack(byte_order + "I", after + len(values)), values + packed
        directory += struct.pack(byte_order + "HHI", tag, 4, len(numbers)) + packed
    pixels = b"".join(encoded).ljust(begin - 8, b"\0")
    return order + struct.pack(byte_order + "HI", 42, begin) + pixels + directory + b"\0\0\0\0" + values
