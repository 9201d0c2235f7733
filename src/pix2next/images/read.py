"""Pictures from disk, by the rules in `pix2next.images`."""

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, Shaped, UInt8, UInt16
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from pix2next.errors import ImageError
from pix2next.images import tiff
from pix2next.images.pixels import Nir, Rgb, ValueRange, full_scale, usable
from pix2next.images.stored import Stored, silent_opencv, silent_warnings

Pixels = UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"] | Float32[np.ndarray, "h w *c"]
"""Grey [h, w] or colour [h, w, 3]."""

MAX_PIXELS = 2**30
"""More are refused before anything is decoded; it is OpenCV's own limit, too."""

_STARTS = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0"),
    "WebP": (b"RIFF",),
    "BMP": (b"BM",),
}
_ENDINGS = {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif", "WebP": ".webp", "BMP": ".bmp"}
# The plugins are called directly: Image.open refuses large pictures by a limit that is global to the process.
_PLUGINS: dict[str, Any] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow, and the parsing here, raise on damaged data.
DAMAGE = (OSError, EOFError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, struct.error)


def read_rgb(path: str | Path, value_range: ValueRange | None = None) -> Rgb:
    """The picture as colour, upright, in the file's depth; floating point as `usable` says.

    Raises: ImageError, one sentence that names the file, if it is missing, damaged, cut short or of no known kind.
    """
    return _colour(_read(Stored(Path(path)), value_range))


def decode_rgb(data: bytes, name: str, value_range: ValueRange | None = None, *, upright: bool = True) -> Rgb:
    """A file's bytes as `read_rgb` would give the file; `name` is what it is called in a sentence.

    With `upright` False an orientation that the file names is left aside; a TIFF is turned upright all the same.

    Raises: ImageError as `read_rgb`.
    """
    return _colour(_read(Stored(Path(name), data), value_range, upright=upright))


def read_nir(path: str | Path) -> Nir:
    """The picture as one channel, upright, in the file's depth.

    Three equal channels are one; unequal ones (a grey picture that went through colour JPEG) are averaged, each with
    the same weight: none of them is nearer to near infrared, so a luma would be wrong.

    Raises: ImageError as `read_rgb`.
    """
    return one_channel(_read(Stored(Path(path))))


def read_size(path: str | Path) -> tuple[int, int]:
    """Width and height from the head of the file, as stored; that the rest is whole is not said.

    Raises: ImageError as `read_rgb`.
    """
    file = Stored(Path(path))
    kind = kind_of(file)
    try:
        if kind == "TIFF":
            layout = tiff.read_layout(file)
            return layout.width, layout.height
        with silent_warnings, file.open() as stream, _PLUGINS[kind](stream) as opened:
            return opened.size
    except DAMAGE as error:
        raise ImageError(f"{file}: this {kind} file is damaged or cut short ({_reason(error)})") from error


def ending_of(data: bytes, name: str) -> str:
    """What a file of this content is usually called, as `.png`. Raises: ImageError as `read_rgb`."""
    return _ENDINGS[kind_of(Stored(Path(name), data))]


def _colour(picture: Pixels) -> Rgb:
    return picture if picture.ndim == 3 else cv2.merge([picture] * 3)


def one_channel(picture: Pixels) -> Nir:
    """Grey as it is; of colour the equal channels' one, or the average of unequal ones."""
    if picture.ndim == 2:
        return picture
    first, second, third = cv2.split(picture)
    if np.array_equal(first, second) and np.array_equal(first, third):
        return first
    return cv2.transform(picture, np.full((1, 3), 1 / 3))


def _read(file: Stored, value_range: ValueRange | None = None, *, upright: bool = True) -> Pixels:
    kind = kind_of(file)
    try:
        picture = _decode(file, kind, upright=upright)
    except DAMAGE as error:
        raise ImageError(f"{file}: this {kind} file is damaged or cut short ({_reason(error)})") from error
    return usable(picture, str(file), value_range)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def kind_of(file: Stored) -> str:
    """A name of `_STARTS`, by the file's first bytes.

    Raises: ImageError if it is missing, empty or of no known kind.
    """
    try:
        with file.open() as opened:
            head = opened.read(12)
    except (OSError, ValueError) as error:
        reason = "it is a folder" if file.path.is_dir() else getattr(error, "strerror", None) or error
        raise ImageError(f"cannot read {file}: {reason}") from None
    if not head:
        raise ImageError(f"{file} is empty (0 bytes)")
    for kind, starts in _STARTS.items():
        if head.startswith(starts) and (kind != "WebP" or head.endswith(b"WEBP")):
            return kind
    raise ImageError(f"{file} is not a picture of a known kind; known are {', '.join(_STARTS)}")


def _decode(file: Stored, kind: str, *, upright: bool) -> Pixels:
    match kind:
        case "PNG":
            width, height, bits, colour = _png_header(file)
            _check_size(file, width, height)
            _check_png_chunks(file)
            if bits == 16:
                return _deep_png(file, grey=colour in (0, 4), upright=upright)
        case "TIFF":
            layout = tiff.read_layout(file)
            _check_size(file, layout.width, layout.height)
            tiff.refuse_unreadable(file, layout)
            if layout.for_opencv:
                return _opencv_tiff(file, inverted=layout.photometric == tiff.WHITE_IS_ZERO)
    with silent_warnings, file.open() as stream, _PLUGINS[kind](stream) as opened:
        _check_size(file, *opened.size)
        return _pixels(opened, str(file), upright=upright)


def _check_size(file: Stored, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(f"{file} has {width} x {height} pixels, more than the {MAX_PIXELS} that are read; cut it up")


def from_pillow(picture: Image.Image, value_range: ValueRange | None = None) -> Pixels:
    """The pixels of a Pillow image, upright, by the same rules as a file's.

    Raises: ImageError if its file is damaged, or its pixels are of a kind that is not used.
    """
    try:
        pixels = _pixels(picture, "the Pillow image")
    except DAMAGE as error:
        raise ImageError(f"the Pillow image is damaged or cut short ({_reason(error)})") from error
    return usable(pixels, "the Pillow image", value_range)


def _pixels(picture: Image.Image, name: str, *, upright: bool = True) -> Pixels:
    if 0 in picture.size:
        raise ImageError(f"{name} has no pixels ({picture.width} x {picture.height})")
    picture.load()
    turn = _turn(picture) if upright else None
    turned = picture if turn is None else picture.transpose(turn)
    match turned.mode:
        case "L" | "RGB" | "F":
            return np.array(turned)
        case "I;16" | "I;16L" | "I;16B" | "I;16N":
            return np.array(turned).astype(np.uint16)
        case "1" | "LA" | "La":
            return np.array(turned.convert("L"))
        case "P" | "PA" | "RGBA" | "RGBX" | "RGBa" | "CMYK" | "YCbCr":
            return np.array(turned.convert("RGB"))
    raise ImageError(
        f"{name} has pixels of Pillow's mode {turned.mode}, which is not used; convert it to L, RGB, I;16 or F"
    )


def _turn(picture: Image.Image) -> Image.Transpose | None:
    try:
        return _UPRIGHT.get(picture.getexif().get(_ORIENTATION, 1))
    except DAMAGE:  # Damaged EXIF makes the pixels no worse.
        return None


def _png_header(file: Stored) -> tuple[int, int, int, int]:
    """Width, height, bits, colour type."""
    with file.open() as opened:
        opened.seek(16)
        width, height, bits, colour = struct.unpack(">IIBB", opened.read(10))
        return width, height, bits, colour


def _deep_png(file: Stored, *, grey: bool, upright: bool) -> Pixels:
    """16 bits, of which Pillow would drop half in colour. Alpha goes, and OpenCV applies the EXIF orientation."""
    flags = cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    picture = _imdecode(file, flags if upright else flags | cv2.IMREAD_IGNORE_ORIENTATION)
    return picture if grey else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture)


def _check_png_chunks(file: Stored) -> None:
    """Raises: ValueError or struct.error where the file ends early or a chunk is damaged.

    Pillow lets the end be missing, and of damage libpng writes to stderr.
    """
    with file.open() as opened:
        opened.seek(8)
        kind = b""
        while kind != b"IEND":
            length, kind = struct.unpack(">I4s", opened.read(8))
            body, checksum = opened.read(length), opened.read(4)
            if zlib.crc32(kind + body) != int.from_bytes(checksum, "big"):
                raise ValueError("a checksum is wrong")


def _opencv_tiff(file: Stored, *, inverted: bool) -> Pixels:
    picture = _imdecode(file, cv2.IMREAD_UNCHANGED)
    if picture.dtype == np.float64:
        picture = picture.astype(np.float32)
    if picture.ndim == 2:
        return (full_scale(picture.dtype) - picture).astype(picture.dtype) if inverted else picture
    if picture.shape[2] == 4:
        return cv2.cvtColor(picture, cv2.COLOR_BGRA2RGB)
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture)


def _imdecode(file: Stored, flags: int) -> Shaped[np.ndarray, "h w *c"]:
    data = file.array()
    if data.size >= 2**31:
        raise ImageError(f"{file} has {data.size} bytes, and only up to 2 GiB can be decoded; compress it or cut it up")
    return decode_bytes(data, flags)


def decode_bytes(data: UInt8[np.ndarray, "bytes"], flags: int) -> Shaped[np.ndarray, "h w *c"]:
    """What OpenCV makes of an encoded picture, without its messages. Raises: ValueError if it cannot decode it."""
    try:
        with silent_opencv:
            picture = cv2.imdecode(data, flags)
    except cv2.error as error:
        raise ValueError(error.err) from None
    if picture is None:
        raise ValueError("OpenCV cannot decode it")
    return picture
